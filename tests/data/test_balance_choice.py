"""Promises of choosing: the target within one picture a cell, or an error that shows why not."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unskew.data.balance_choice import choose
from unskew.data.balance_options import BalanceSettings
from unskew.data.rows import Drawn, Row
from unskew.data.shortfall import nearest_counts
from unskew.data.targets import goals_of
from unskew.errors import UserError

DRAWN = Drawn("a mechanic", 0, "", "")
VALUES = {"presentation": ("woman", "man", "person"), "season": ("winter", "summer")}


def rows_of(
    counts: dict[tuple[str, ...], int], subject: str = "mechanic", drawn: Drawn | None = None
) -> list[Row]:
    """So many rows of each combination of as many attributes as the keys have values."""
    return [
        Row(
            f"{subject}/{'-'.join(cell)}-{n}",
            Path("x.png"),
            subject,
            None,
            dict(zip(VALUES, cell, strict=False)),
            drawn=drawn,
        )
        for cell, count in counts.items()
        for n in range(count)
    ]


def asked(**more: object) -> BalanceSettings:
    return BalanceSettings.model_validate({"attributes": ["presentation"], **more})


def shown(rows: list[Row], wanted: BalanceSettings, seed: int = 0) -> Counter[tuple[object, ...]]:
    choice = choose(rows, goals_of(rows, wanted, {}), wanted, seed)
    return Counter(tuple(rows[n].labels.values()) for n, _ in choice.uses)


parts = st.lists(st.integers(1, 6), min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    parts,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.lists(st.integers(0, 9), min_size=6, max_size=6),
    st.integers(1, 40) | st.just("auto"),
    st.integers(1, 3),
)
def test_a_feasible_target_is_met_to_within_one_picture_a_cell(
    first: list[int], second: tuple[int, int], there: list[int], size: int | str, repeats: int
) -> None:
    """Else it is refused, and then no whole counts near the target are to be had (tried all)."""
    cells = list(itertools.product(*VALUES.values()))
    rows = rows_of(dict(zip(cells, there, strict=True)))
    if not rows:
        return
    targets = {
        id: {v: p / sum(ps) for v, p in zip(VALUES[id], ps, strict=True)}
        for id, ps in (("presentation", first), ("season", second))
    }
    wanted = asked(
        attributes=list(VALUES), targets=targets, pictures_per_subject=size, most_repeats=repeats
    )
    share_k = np.array([targets["presentation"][a] * targets["season"][b] for a, b in cells])
    try:
        counts = shown(rows, wanted)
    except UserError as error:
        if "must be >=" in str(error):
            assert size != "auto" and size * share_k.min() < 1
            return
        n = size if isinstance(size, int) else int(np.ceil(1 / share_k.min() - 1e-9))
        low_k = np.ceil(n * share_k - 1 + 1e-9)
        high_k = np.minimum(np.floor(n * share_k + 1 - 1e-9), np.array(there) * repeats)
        assert (low_k > high_k).any() or high_k.sum() < n
        return
    n = counts.total()
    assert n == size or size == "auto"
    for cell, share, most in zip(cells, share_k, there, strict=True):
        assert abs(counts[cell] - n * share) < 1
        assert counts[cell] <= most * repeats


def test_no_picture_repeats_unless_it_may() -> None:
    """With most_repeats 1 every number stands once; with 3 none stands more than thrice."""
    rows = rows_of({("woman",): 2, ("man",): 9, ("person",): 4})
    for repeats in (1, 3):
        wanted = asked(most_repeats=repeats)
        choice = choose(rows, goals_of(rows, wanted, {}), wanted, 0)
        uses = Counter(number for number, _ in choice.uses)
        assert max(uses.values()) == (1 if repeats == 1 else 3)
        assert len(choice.uses) == 6 * repeats


def test_auto_repeats_no_more_than_the_fullest_cell_needs() -> None:
    """Where the cells are full already, every picture is taken once, however often it might."""
    rows = rows_of({("woman",): 4, ("man",): 4, ("person",): 4})
    assert shown(rows, asked(most_repeats=5)).total() == 12


def test_the_same_seed_gives_the_same_choice_in_any_order_of_subjects() -> None:
    """Another seed gives another one."""
    counts = {("woman",): 5, ("man",): 30, ("person",): 30}
    a, b = rows_of(counts), rows_of(counts, "nurse")

    def names(rows: list[Row], seed: int) -> set[str]:
        wanted = asked()
        return {
            rows[n].name for n, _ in choose(rows, goals_of(rows, wanted, {}), wanted, seed).uses
        }

    assert names(a + b, 7) == names(b + a, 7)
    assert names(a + b, 7) != names(a + b, 8)


def test_a_target_that_cannot_be_met_is_told_in_full() -> None:
    """What is there, usable, wanted, missing and nearest; the sizes and repeats that would do."""
    rows = rows_of({("woman",): 3, ("man",): 20, ("person",): 20})
    with pytest.raises(UserError) as error:
        shown(rows, asked(pictures_per_subject=30))
    said = str(error.value)
    assert "missing (combinations: 1, subjects: 1)" in said
    row = next(line for line in said.splitlines() if line.split()[:1] == ["woman"])
    assert row.split() == ["woman", "3", "3", "10", "7", "10.0%"]
    assert "pictures_per_subject 9" in said and "most_repeats 4" in said
    assert "nearest presentation that can be met: {woman: 0.1, man: 0.4667, person: 0.4333}" in said
    near = {"presentation": {"woman": 0.1, "man": 0.4667, "person": 0.4333}}
    assert shown(rows, asked(pictures_per_subject=30, targets=near))[("woman",)] == 3


@given(
    st.integers(0, 12),
    st.lists(st.integers(0, 5), min_size=3, max_size=3),
    parts,
)
def test_the_nearest_counts_are_the_nearest(size: int, most: list[int], part: list[int]) -> None:
    """No other whole counts within what there is are nearer to the target (tried all)."""
    share_k = np.array(part) / sum(part)
    found_k = nearest_counts(size, share_k, np.array(most))
    total = min(size, sum(most))
    assert found_k.sum() == total and (found_k <= most).all() and (found_k >= 0).all()
    ranges = (range(m + 1) for m in most)
    best = min(
        sum((c - size * q) ** 2 for c, q in zip(counts, share_k, strict=True))
        for counts in itertools.product(*ranges)
        if sum(counts) == total
    )
    assert ((found_k - size * share_k) ** 2).sum() == pytest.approx(best, abs=1e-9)


def test_synthesis_is_asked_for_what_is_missing_and_no_more() -> None:
    """With those drawn the target is met; with fewer drawn, the most that shows it is taken."""
    rows = rows_of({("woman",): 1, ("man",): 6})
    wanted = asked(by="synthesis")
    choice = choose(rows, goals_of(rows, wanted, {}), wanted, 0)
    lacks = {m.labels["presentation"]: m.count for m in choice.missing}
    assert lacks == {"woman": 5, "person": 6}
    drawn = rows + rows_of({("woman",): 5, ("person",): 6}, drawn=DRAWN)
    assert not choose(drawn, goals_of(drawn, wanted, {}), wanted, 0, drawn=True).missing
    assert shown(drawn, wanted).total() == 18
    fewer = rows + rows_of({("woman",): 5, ("person",): 2}, drawn=DRAWN)
    choice = choose(fewer, goals_of(fewer, wanted, {}), wanted, 0, drawn=True)
    assert len(choice.uses) == 6 and "18 were wanted" in choice.notes[0]


def test_subjects_without_a_picture_are_asked_for_too() -> None:
    """From nothing at all: each subject's cells of the attributes that apply to it; controls."""
    wanted = asked(attributes=list(VALUES), by="synthesis", pictures_per_subject=6)
    also = {"mechanic": ("presentation",), "market": ("season",), "apple": ()}
    choice = choose([], goals_of([], wanted, also), wanted, 0)
    lacks = {(m.subject, *m.labels.values()): m.count for m in choice.missing}
    assert lacks == {
        **{("mechanic", value): 2 for value in VALUES["presentation"]},
        **{("market", value): 3 for value in VALUES["season"]},
        ("apple",): 6,
    }


def test_every_row_is_taken_or_has_a_reason() -> None:
    """Unknown labels and subjects that are not wanted are left out, and it is said why."""
    rows = rows_of({("woman",): 2, ("man",): 3, ("person",): 2})
    rows += [Row("odd", Path("x"), "mechanic", None, {"presentation": None})]
    rows += [*rows_of({("woman",): 1}, "nurse"), Row("apple", Path("x"), "apple", None)]
    wanted = asked(leave_out=["nurse"])
    choice = choose(rows, goals_of(rows, wanted, {}), wanted, 0)
    taken = {number for number, _ in choice.uses}
    assert taken.isdisjoint(choice.left_out) and len(taken) + len(choice.left_out) == len(rows)
    assert choice.left_out[7] == "its label is unknown: presentation"
    assert choice.left_out[8] == "its subject is in balance.leave_out" and 9 in taken


def test_impossible_settings_are_listed_together() -> None:
    """Attributes, targets and labels: each with what is allowed."""
    with pytest.raises(UserError) as error:
        goals_of([], asked(attributes=["shade"], targets={"season": {"winter": 1.0}}), {})
    assert "shade" in str(error.value) and "add it there" in str(error.value)
    rows = [Row("a", Path("x"), "mechanic", None, {"presentation": "vampire"})]
    with pytest.raises(UserError, match=r"'vampire' \(allowed: woman, man, person, or unknown\)"):
        goals_of(rows, asked(), {})

"""Promises of balancing: every subject shows the target; the choice depends on the seed alone."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unskew.attributes import Attribute
from unskew.data.balance import apportion, balance_table, choose_balanced
from unskew.errors import UserError


def attribute(id: str, values: Sequence[str], target: Sequence[float]) -> Attribute:
    shares = np.array(target, dtype=float)
    return Attribute(id, id, tuple(values), shares / shares.sum(), "perceived")


PRESENTATION = attribute("presentation", ("woman", "man", "person"), (1, 1, 1))
SEASON = attribute("season", ("winter", "summer"), (1, 1))

Rows = list[tuple[str, dict[str, str]]]


def choose(
    rows: Rows, attributes: Sequence[Attribute], size: int | str, seed: int = 0
) -> list[int]:
    subjects, values = [subject for subject, _ in rows], [row for _, row in rows]
    return choose_balanced(subjects, values, attributes, size, seed).tolist()  # type: ignore[arg-type, no-any-return]


@st.composite
def pools(draw: st.DrawFn) -> tuple[Rows, list[Attribute]]:
    """Two attributes with any target of small whole parts, and 1-4 rows in each cell."""
    parts = st.lists(st.integers(1, 5), min_size=2, max_size=4)
    attributes = []
    for id in ("a", "b"):
        target = draw(parts)
        attributes.append(attribute(id, [f"{id}{k}" for k in range(len(target))], target))
    rows = [
        (subject, {"a": a, "b": b})
        for subject in ("x", "y")
        for a in attributes[0].values
        for b in attributes[1].values
        for _ in range(draw(st.integers(1, 4)))
    ]
    return draw(st.permutations(rows)), attributes


@given(pools(), st.integers(0, 60), st.integers(0, 3))
def test_every_cell_is_within_one_of_its_wanted_number(
    pool: tuple[Rows, list[Attribute]], extra: int, seed: int
) -> None:
    """So is every value of the first attribute; the sizes are met; no wanted cell is empty."""
    rows, (a, b) = pool
    size = int(np.ceil(1 / (a.target.min() * b.target.min()) - 1e-9)) + extra
    chosen = choose(rows, (a, b), size, seed)
    for subject in ("x", "y"):
        shown = Counter(tuple(rows[i][1].values()) for i in chosen if rows[i][0] == subject)
        assert shown.total() == size
        for name_a, share_a in zip(a.values, a.target, strict=True):
            of_a = sum(count for cell, count in shown.items() if cell[0] == name_a)
            assert abs(of_a - size * share_a) < 1 + 1e-6
            for name_b, share_b in zip(b.values, b.target, strict=True):
                count = shown[name_a, name_b]
                assert count >= 1
                assert abs(count - size * share_a * share_b) < 1 + 1e-6


@given(pools())
def test_auto_is_exact_and_uses_every_row(pool: tuple[Rows, list[Attribute]]) -> None:
    """Shares of "auto" equal the target, and it never takes fewer rows than there are."""
    rows, (a, b) = pool
    chosen = choose(rows, (a, b), "auto")
    for subject in ("x", "y"):
        own = [rows[i][1] for i in chosen if rows[i][0] == subject]
        assert len(own) >= sum(s == subject for s, _ in rows)
        for shared in balance_table(["s"] * len(own), own, (a, b)):
            assert shared.share == pytest.approx(shared.target)


@given(pools(), st.integers(20, 90))
def test_rows_of_a_cell_are_used_equally_often(
    pool: tuple[Rows, list[Attribute]], extra: int
) -> None:
    """No row of a cell is used twice more than another one of it."""
    rows, attributes = pool
    used = Counter(choose(rows, attributes, 600 + extra))
    uses: dict[tuple[str, ...], list[int]] = {}
    for i, (subject, values) in enumerate(rows):
        uses.setdefault((subject, *values.values()), []).append(used[i])
    assert all(max(counts) - min(counts) <= 1 for counts in uses.values())


def test_the_choice_is_a_function_of_the_seed() -> None:
    """Same seed, same rows; another seed, others; what other subjects hold changes nothing."""
    rows: Rows = [("x", {"season": s}) for s in SEASON.values for _ in range(20)]
    first = choose(rows, [SEASON], 10, seed=1)
    assert first == choose(rows, [SEASON], 10, seed=1)
    assert first != choose(rows, [SEASON], 10, seed=2)
    other: Rows = [("other", {"presentation": p}) for p in PRESENTATION.values] * 4
    together = choose([*rows, *other], [PRESENTATION, SEASON], 10, seed=1)
    assert [i for i in together if i < len(rows)] == first


def test_rounding_favours_no_cell() -> None:
    """Where a share does not come out whole, subjects differ in which cell gets the odd one."""
    counts = [
        apportion(10, PRESENTATION.target, np.random.default_rng(seed)).tolist()
        for seed in range(300)
    ]
    assert {tuple(sorted(c)) for c in counts} == {(3, 3, 4)}
    assert np.mean(counts, axis=0) == pytest.approx([10 / 3] * 3, abs=0.1)


def test_a_value_with_target_0_is_left_out() -> None:
    """Its rows are not taken, and no such row is needed."""
    rows: Rows = [("x", {"presentation": p}) for p in PRESENTATION.values]
    two = attribute("presentation", PRESENTATION.values, (1, 1, 0))
    assert choose(rows, [two], "auto") == [0, 1]
    assert choose(rows[:2], [two], "auto") == [0, 1]


def test_an_attribute_that_is_not_listed_is_not_balanced() -> None:
    """A subject with none of the listed attributes keeps all its rows under "auto"."""
    rows: Rows = [("x", {"season": "winter"})] * 3
    assert choose(rows, [PRESENTATION], "auto") == [0, 1, 2]


@pytest.mark.parametrize(
    ("rows", "size", "said"),
    [
        ([("x", {"season": "spring"})], "auto", "season = 'spring' (allowed: winter, summer)"),
        ([("x", {"season": "winter"})], "auto", "'x' has no picture of 1 of the 2 combinations"),
        ([("x", {"season": "winter"}), ("x", {})], "auto", "must have the same attributes"),
        (
            [("x", {"season": "winter"}), ("x", {"season": "summer"})],
            1,
            "pictures_per_subject must be >= 2, got 1",
        ),
    ],
)
def test_what_cannot_be_balanced_is_named(rows: Rows, size: int | str, said: str) -> None:
    """A wrong label, a missing cell, a missing label and too small a size each say what to mend."""
    with pytest.raises(UserError) as error:
        choose(rows, [SEASON], size)
    assert said in str(error.value)


def test_a_target_that_never_comes_out_whole_is_named() -> None:
    """The search of "auto" ends."""
    odd = attribute("season", SEASON.values, (1, np.pi))
    rows: Rows = [("x", {"season": s}) for s in SEASON.values]
    with pytest.raises(UserError, match="targets: no number of pictures"):
        choose(rows, [odd], "auto")


def test_the_table_shows_the_subject_that_is_furthest_off() -> None:
    """Two opposite subjects are on target together and fully off each by itself."""
    values = [{"season": "winter"}] * 4 + [{"season": "summer"}] * 4 + [{}]
    winter, summer = balance_table([*"aaaabbbbc"], values, [SEASON])
    assert (winter.share, winter.lowest, winter.highest, winter.count) == (0.5, 0.0, 1.0, 4)
    assert summer.value == "summer" and summer.target == 0.5

"""Promises of weights and of splits: exact marginals; what is held out never reaches training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from unskew.data.balance_options import BalanceSettings
from unskew.data.balance_weights import weigh
from unskew.data.raking import nearest_marginals, off, raked
from unskew.data.rows import Drawn, Row
from unskew.data.splits import SplitSettings, split_rows
from unskew.data.targets import goals_of
from unskew.errors import UserError

A, B = ("woman", "man", "person"), ("winter", "summer")
CELLS = np.array([(a, b) for a in range(3) for b in range(2)])


def targets_of(table: np.ndarray) -> list[np.ndarray]:
    return [table.sum(axis=1), table.sum(axis=0)]


shares = st.lists(st.integers(0, 5), min_size=6, max_size=6).filter(any)


@settings(max_examples=60, deadline=None)
@given(shares, shares)
def test_weights_reproduce_given_marginals_to_one_millionth(
    there: list[int], wish: list[int]
) -> None:
    """Whenever any shares of the cells that have pictures have them; and 0 stays 0."""
    start_k = np.array(there, dtype=float)
    table = np.array(wish, dtype=float) * (start_k > 0)
    if not table.any():
        return
    targets = targets_of((table / table.sum()).reshape(3, 2))
    share_k = raked(start_k, CELLS, targets)
    assert share_k is not None and (share_k >= 0).all()
    assert off(share_k, CELLS, targets) <= 1e-6
    assert (share_k[start_k == 0] == 0).all()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=6, max_size=6), st.integers(0, 5), shares)
def test_raking_finds_the_shares_nearest_to_the_pictures_own(
    there: list[int], empty: int, wish: list[int]
) -> None:
    """In relative entropy, by scipy's SLSQP, which knows nothing of raking."""
    there[empty] = 0
    start_k = np.array(there) / sum(there)
    table = (np.array(wish) + 1) * (start_k > 0)
    targets = targets_of((table / table.sum()).reshape(3, 2))
    share_k = raked(start_k, CELLS, targets)
    assert share_k is not None
    has = start_k > 0
    sums = np.array([CELLS[has, a] == v for a, t in enumerate(targets) for v in range(len(t))])
    found = minimize(
        lambda x: float((x * np.log(np.maximum(x, 1e-12) / start_k[has])).sum()),
        table[has] / table.sum(),
        bounds=[(0, 1)] * int(has.sum()),
        constraints={"type": "eq", "fun": lambda x: (sums @ x - np.concatenate(targets))[:-1]},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert np.abs(found.x - share_k[has]).max() < 1e-3


def test_a_cell_that_must_be_nothing_is_nothing() -> None:
    """Plain raking would near that only ever more slowly."""
    start_k = np.array([4.0, 2.0, 0.0, 3.0, 0.0, 0.0])
    targets = [np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.5])]
    share_k = raked(start_k, CELLS, targets)
    assert share_k is not None
    np.testing.assert_allclose(share_k, [0.5, 0, 0, 0.5, 0, 0], atol=1e-9)


def test_marginals_that_no_weights_have_are_none_and_the_nearest_are_found() -> None:
    """Only women in winter and men in summer cannot be half women and a third winter."""
    start_k = np.array([4.0, 0.0, 0.0, 3.0, 0.0, 0.0])
    targets = [np.array([0.5, 0.5, 0.0]), np.array([1 / 3, 2 / 3])]
    assert raked(start_k, CELLS, targets) is None
    near_k = nearest_marginals(start_k > 0, CELLS, targets)
    np.testing.assert_allclose(near_k, [5 / 12, 0, 0, 7 / 12, 0, 0], atol=1e-4)


def rows_of(counts: dict[tuple[str, str], int], subject: str = "mechanic") -> list[Row]:
    return [
        Row(
            f"{subject} {a} {b} {n}",
            Path("x"),
            subject,
            None,
            {"presentation": a, "season": b},
            sha256=f"{subject}{a}{b}{n}".encode().hex(),
        )
        for (a, b), count in counts.items()
        for n in range(count)
    ]


BY_WEIGHTS = BalanceSettings(attributes=("presentation", "season"), by="weights")


def shown(rows: list[Row], id: str) -> dict[str | None, float]:
    """Weighted share of each value."""
    choice = weigh(rows, goals_of(rows, BY_WEIGHTS, {}))
    assert np.mean([weight for _, weight in choice.uses]) == pytest.approx(1)
    total: dict[str | None, float] = {}
    for number, weight in choice.uses:
        value = rows[number].labels[id]
        total[value] = total.get(value, 0) + weight / len(choice.uses)
    return total


def test_every_picture_is_weighed_to_the_target() -> None:
    """With all combinations there, each has its share; with one missing, each attribute has."""
    counts = {(a, b): 1 + 3 * i + 5 * j for i, a in enumerate(A) for j, b in enumerate(B)}
    for lacking in (None, ("woman", "winter")):
        counts.pop(lacking, None)  # type: ignore[arg-type]
        rows = rows_of(counts)
        choice = weigh(rows, goals_of(rows, BY_WEIGHTS, {}))
        assert len(choice.uses) == len(rows) and not choice.left_out
        assert shown(rows, "presentation") == pytest.approx(dict.fromkeys(A, 1 / 3), abs=1e-6)
        assert shown(rows, "season") == pytest.approx(dict.fromkeys(B, 1 / 2), abs=1e-6)
        assert ("combinations need not" in " ".join(choice.notes)) == (lacking is not None)


def test_weights_that_cannot_be_are_refused_with_what_can() -> None:
    """The error shows what is there and the nearest shares; a heavy weight is told."""
    rows = rows_of({("woman", "winter"): 3, ("man", "summer"): 4})
    with pytest.raises(UserError) as error:
        weigh(rows, goals_of(rows, BY_WEIGHTS, {}))
    assert "woman, winter: 3" in str(error.value)
    assert "nearest that can be met {woman: 0.5, man: 0.5, person: 0}" in str(error.value)
    heavy = rows_of({(a, b): 1 if a == "woman" else 40 for a in A for b in B})
    assert "counts 27.0 times" in weigh(heavy, goals_of(heavy, BY_WEIGHTS, {})).notes[0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=14),
    st.lists(st.lists(st.integers(0, 15), min_size=2, max_size=4), max_size=4),
    st.floats(0, 0.5),
    st.integers(0, 3),
)
def test_nothing_held_out_or_like_it_reaches_training(
    subjects: list[str], alike: list[list[int]], share: float, seed: int
) -> None:
    """Nor does a split separate pictures that look the same, directly or by way of a third."""
    rows = [Row(f"{n}", Path("x"), s, None, {}) for n, s in enumerate(subjects)]
    wanted = SplitSettings(held_out=("a",) if "a" in subjects else (), validation_share=share)
    splits = split_rows(rows, [[str(n) for n in group] for group in alike], wanted, seed)
    for group in alike:
        members = [n for n in group if n < len(rows)]
        assert len({splits[n] for n in members}) <= 1
        if any(subjects[n] == "a" for n in members):
            assert all(splits[n] == "held_out" for n in members)
    assert all(splits[n] == "held_out" for n, s in enumerate(subjects) if s == "a")


def test_validation_takes_its_share_of_every_combination() -> None:
    """Within one picture, whatever order the rows come in; of a single picture it takes none."""
    rows = rows_of({("woman", "winter"): 20, ("man", "winter"): 10, ("person", "summer"): 1})
    wanted = SplitSettings(validation_share=0.25)
    splits = dict(zip((r.name for r in rows), split_rows(rows, [], wanted, 0), strict=True))
    count = {
        v: sum(s == "validation" and v in n for n, s in splits.items())
        for v in (" woman", " man", " person")
    }
    assert count == {" woman": 5, " man": pytest.approx(2.5, abs=0.5), " person": 0}
    again = split_rows(rows[::-1], [], wanted, 0)
    assert dict(zip((r.name for r in rows[::-1]), again, strict=True)) == splits


def test_rows_that_say_their_split_keep_it_and_take_their_likes_along() -> None:
    """Held out goes before validation, that before training; same bytes are alike."""
    rows = [
        Row("a", Path("x"), "s", None, {}, sha256="11", split="train"),
        Row("b", Path("x"), "s", None, {}, sha256="11", split="held_out"),
        Row("c", Path("x"), "s", None, {}, sha256="22", split="validation"),
        Row("d", Path("x"), "s", None, {}, sha256="33"),
    ]
    splits = split_rows(rows, [("c", "d", "gone")], SplitSettings(), 0)
    assert splits == ("held_out", "held_out", "validation", "validation")
    with pytest.raises(UserError, match=r"splits.held_out names 'zebra'"):
        split_rows(rows, [], SplitSettings(held_out=("zebra",)), 0)


def test_what_was_drawn_for_training_is_trained_on() -> None:
    """And which of the others are for validation does not hang on how many were drawn."""
    rows = rows_of({("woman", "winter"): 20})
    wanted = SplitSettings(validation_share=0.25)
    before = split_rows(rows, [], wanted, 0)
    how = Drawn("a woman", 1_000_000, "11", "30 steps")
    drawn = [replace(r, name=f"drawn/{r.name}", sha256=f"d{r.sha256}", drawn=how) for r in rows]
    assert split_rows([*rows, *drawn], [], wanted, 0) == (*before, *["train"] * len(drawn))
    assert "validation" in before

"""Promises of weighted rows in training: the target comes of their weights, and only once."""

from collections import Counter
from pathlib import Path

import pytest

from unskew.attributes import load_attribute
from unskew.train.batches import Stream, build_decks
from unskew.train.rows import Row

PRESENTATION = {"presentation": load_attribute("presentation")}


def rows_of(counts: dict[str, int], weights: dict[str, float]) -> list[Row]:
    values = [value for value, count in counts.items() for _ in range(count)]
    return [
        Row(n, Path(f"{n}.png"), "t", "neutral", "s", {"presentation": v}, "e", weights.get(v, 1.0))
        for n, v in enumerate(values, 1)
    ]


def test_weighted_rows_come_equally_often_and_weigh_the_target() -> None:
    """Also where a value that the target asks for has no row; what repeats is a whole pass."""
    counts = {"woman": 2, "man": 8}
    rows = rows_of(counts, {"woman": 2.5, "man": 0.625})
    (deck,) = build_decks(rows, PRESENTATION, seed=3)
    stream = Stream("neutral", (deck,), 1, 3)
    dealt = [stream.row(draw) for draw in range(40)]
    assert set(Counter(row.line for row in dealt).values()) == {4}
    for place in range(0, 40, 10):
        assert len({row.line for row in dealt[place : place + 10]}) == 10
    weighed = Counter[str]()
    for row in dealt:
        weighed[row.values["presentation"]] += row.weight  # type: ignore[assignment]
    assert weighed["woman"] == pytest.approx(weighed["man"]) == pytest.approx(20)


def test_rows_of_one_weight_are_dealt_at_the_target() -> None:
    """Whatever that weight is: it says nothing of shares."""
    rows = rows_of(
        {"woman": 1, "man": 8, "person": 3}, dict.fromkeys(("woman", "man", "person"), 0.5)
    )
    (deck,) = build_decks(rows, PRESENTATION, seed=3)
    shown = Counter(deck.row(draw).values["presentation"] for draw in range(30))
    assert shown == {"woman": 10, "man": 10, "person": 10}

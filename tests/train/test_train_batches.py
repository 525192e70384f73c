"""The deck deals the target's rates exactly, and needs no memory to do so."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unskew.attributes import Attribute, load_attribute
from unskew.errors import UserError
from unskew.train.batches import (
    MOST_COPIES,
    Batches,
    Stream,
    build_decks,
    even_out,
    pass_of,
    shares_dealt,
    shuffled,
)
from unskew.train.options import BatchSettings
from unskew.train.rows import Kind, Row

PRESENTATION = load_attribute("presentation")
TONE = load_attribute("skin_tone")
PEOPLE = {"presentation": PRESENTATION, "skin_tone": TONE}


def attribute(id: str, shares: list[float]) -> Attribute:
    values = tuple(f"{id}{n}" for n in range(len(shares)))
    return Attribute(id, id, values, np.array(shares), "made up")


def rows_of(
    subjects: int, attributes: dict[str, Attribute], kind: Kind = "neutral", copies: int = 1
) -> list[Row]:
    """`copies` rows for every subject and combination of values."""
    combinations = itertools.product(
        range(subjects), *(a.values for a in attributes.values()), range(copies)
    )
    return [
        Row(
            line,
            Path(f"{line}.png"),
            "text",
            kind,
            f"s{subject}",
            dict(zip(attributes, values, strict=True)),
            "explicit",
            1.0,
        )
        for line, (subject, *values, _) in enumerate(combinations, 1)
    ]


def settings(**changes: object) -> BatchSettings:
    plain = {
        "size": 30,
        "accumulation": 1,
        "neutral_share": 0.7,
        "control_share": 0.1,
        "draws_per_subject": 1,
    }
    return BatchSettings.model_validate({**plain, **changes})


def batches(seed: int = 0, **changes: object) -> Batches:
    rows = [
        *rows_of(4, PEOPLE, copies=3),
        *rows_of(4, PEOPLE, "explicit"),
        *rows_of(5, {}, "control", copies=2),
    ]
    return Batches.of(rows, settings(**changes), PEOPLE, seed)


def test_a_pass_shows_every_combination_once() -> None:
    """Uniform targets over 3 x 5 values: each pass of a subject's deck is its 15 combinations."""
    (deck,) = build_decks(rows_of(1, PEOPLE, copies=4), PEOPLE, seed=3)
    for number in range(5):
        dealt = [tuple(deck.row(number * 15 + draw).values.values()) for draw in range(15)]
        assert len(set(dealt)) == 15
    orders = {tuple(deck.row(n * 15 + d).values["skin_tone"] for d in range(15)) for n in range(5)}
    assert len(orders) > 1


@given(st.lists(st.integers(0, 20), min_size=2, max_size=4).filter(any))
def test_a_pass_is_exact_for_any_target(parts: list[int]) -> None:
    """Over each pass the shares are the target's own, beside another attribute."""
    target = [part / sum(parts) for part in parts]
    attributes = {"a": attribute("a", target), "b": attribute("b", [0.25, 0.75])}
    (deck,) = build_decks(rows_of(1, attributes, copies=2), attributes, seed=1)
    size = len(deck.cards)
    for number in (0, 3):
        dealt = [deck.row(number * size + draw) for draw in range(size)]
        for wanted in attributes.values():
            np.testing.assert_allclose(shares_dealt(dealt, wanted), wanted.target, atol=1e-12)


def test_pictures_of_a_combination_take_turns() -> None:
    """With 4 pictures of each combination, 4 passes show each picture once."""
    rows = rows_of(1, PEOPLE, copies=4)
    (deck,) = build_decks(rows, PEOPLE, seed=0)
    assert Counter(deck.row(draw).line for draw in range(60)) == Counter(row.line for row in rows)


@pytest.mark.parametrize("run", [1, 3, 15])
def test_subjects_take_turns(run: int) -> None:
    """Every turn gives each subject `run` draws, and no draw of a subject's deck is skipped."""
    decks = build_decks(rows_of(7, PEOPLE), PEOPLE, seed=0)
    stream = Stream("neutral", decks, run, seed=0)
    turn = [stream.row(draw) for draw in range(7 * run)]
    assert set(Counter(row.subject for row in turn).values()) == {run}
    whole = [stream.row(draw) for draw in range(7 * 15 * run)]
    assert set(Counter(row.line for row in whole).values()) == {run}


def test_explicit_captions_name_few_subjects_attributes_as_often() -> None:
    """Two scenes beside eight people: half of the explicit rows are scenes', at even rates."""
    season = {"season": attribute("season", [0.5, 0.5])}
    scenes = [
        replace(row, subject=f"scene {row.subject}") for row in rows_of(2, season, "explicit")
    ]
    rows = [*rows_of(8, PEOPLE), *rows_of(8, PEOPLE, "explicit"), *scenes]
    dealt = Batches.of(rows, settings(neutral_share=0.0, control_share=0.0), PEOPLE | season, 0)
    drawn = [row for step in range(32) for row in dealt.rows(step)]
    of_scenes = [row for row in drawn if "season" in row.values]
    assert len(of_scenes) == len(drawn) / 2
    np.testing.assert_allclose(shares_dealt(of_scenes, season["season"]), [0.5, 0.5])


def test_one_subject_alone_does_not_flood_the_explicit_rows() -> None:
    """A subject with attributes of its own comes at most MOST_COPIES times as often as another."""
    season = {"season": attribute("season", [0.5, 0.5])}
    market = [replace(row, subject="market") for row in rows_of(1, season, "explicit")]
    (alone,) = build_decks(market, season, seed=0)
    people = build_decks(rows_of(3 * MOST_COPIES, PEOPLE, "explicit"), PEOPLE, seed=0)
    evened = even_out([alone, *people])
    assert len(evened) == len(people) + MOST_COPIES
    assert len({deck.name for deck in evened}) == len(evened)


def test_batches_have_no_memory() -> None:
    """A step's rows are the same whichever steps were asked for before, and in any process."""
    forward, backward = batches(), batches()
    steps = [[row.line for row in forward.rows(step)] for step in range(20)]
    assert [[row.line for row in backward.rows(s)] for s in reversed(range(20))] == steps[::-1]
    assert [[row.line for row in batches(seed=1).rows(step)] for step in range(20)] != steps
    assert shuffled(5, 0, "mechanic", 2) == (2, 1, 4, 0, 3)


@given(
    size=st.integers(1, 40),
    neutral=st.sampled_from([0.0, 0.25, 0.7, 1.0]),
    control=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_kinds_come_at_their_shares(size: int, neutral: float, control: float) -> None:
    """Every batch is full; after any number of steps each kind is about a row from its share."""
    dealt = batches(size=size, neutral_share=neutral, control_share=control)
    counts: Counter[str] = Counter()
    for step in range(12):
        rows = dealt.rows(step)
        assert len(rows) == size
        counts.update(row.kind for row in rows)
        total = size * (step + 1)
        assert counts["control"] == pytest.approx(control * total, abs=1)
        assert counts["neutral"] == pytest.approx(neutral * (1 - control) * total, abs=1.7)


def test_the_window_is_long_enough() -> None:
    """After the steps that are announced, neutral rows have shown every rate exactly once over."""
    dealt = batches(size=20, control_share=0.0, neutral_share=1.0)
    window = dealt.window_steps()
    neutral = [row for step in range(window) for row in dealt.rows(step)]
    for subject in {row.subject for row in neutral}:
        own = [row for row in neutral if row.subject == subject]
        np.testing.assert_allclose(shares_dealt(own, PRESENTATION), PRESENTATION.target)
        np.testing.assert_allclose(shares_dealt(own, TONE), TONE.target)


def test_a_value_with_target_zero_is_never_dealt() -> None:
    """What the target leaves out does not come, and need not be in the dataset."""
    attributes = {"a": attribute("a", [0.5, 0.5, 0.0])}
    rows = [row for row in rows_of(2, attributes) if row.values["a"] != "a2"]
    for deck in build_decks(rows, attributes, seed=0):
        assert set(deck.cards) == {("a0",), ("a1",)}


def test_a_subject_without_a_combination_is_named() -> None:
    """A missing combination names the subject, its first row and what is missing."""
    rows = [r for r in rows_of(2, PEOPLE) if tuple(r.values.values()) != ("man", "tan")]
    with pytest.raises(UserError, match=r"'s0' \(from row 1, 1.png\).*\['man', 'tan'\]"):
        build_decks(rows, PEOPLE, seed=0)


def test_rows_of_one_subject_have_the_same_attributes() -> None:
    """A subject that is labelled in one row and not in another cannot be dealt."""
    rows = [*rows_of(1, {"presentation": PRESENTATION}), *rows_of(1, {"skin_tone": TONE})]
    with pytest.raises(UserError, match="the same attributes"):
        build_decks(rows, PEOPLE, seed=0)


@pytest.mark.parametrize(
    ("kind", "share"),
    [("explicit", "neutral_share"), ("control", "control_share"), ("neutral", "neutral_share")],
)
def test_a_kind_that_is_asked_for_must_be_there(kind: str, share: str) -> None:
    """No neutral rows, or a share of rows that do not exist, is an error and no shorter batch."""
    rows = [*rows_of(1, PEOPLE), *rows_of(1, PEOPLE, "explicit"), *rows_of(1, {}, "control")]
    with pytest.raises(UserError, match=f"no {kind} rows.*batch.{share}"):
        Batches.of([row for row in rows if row.kind != kind], settings(), PEOPLE, 0)


@pytest.mark.parametrize("shares", [[0.004, 0.996], [0.123, 0.456, 0.421]])
def test_an_awkward_target_is_refused(shares: list[float]) -> None:
    """Shares that no pass of a hundred parts can hold are refused, not rounded in silence."""
    with pytest.raises(UserError, match="fractions of at most 100 parts"):
        pass_of([attribute("a", shares)])

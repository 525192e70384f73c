"""Which examples a step sees: shuffled decks, so that every value comes exactly at its rate.

Nothing here has a state. The rows of a step are a function of (seed, step): a resumed run deals
the same cards, and so do two processes, which take every second place of one and the same batch.

A subject's deck holds each combination of its attributes' values as often as the target asks, at
the smallest size where that comes out whole: 15 cards for three presentations x five tones. Each
pass over the deck is shuffled anew; so are the pictures of a combination, and the subjects.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from unskew.attributes import Attribute
from unskew.errors import UserError
from unskew.train.options import BatchSettings
from unskew.train.rows import Kind, Row

Combination = tuple[str, ...]
"""One value of each attribute that a subject has, in the attributes' order."""


MOST_COPIES = 10
"""How much more often than another subject one may come for the sake of its attribute's words."""


@lru_cache(maxsize=4096)
def shuffled(size: int, *key: object) -> tuple[int, ...]:
    """A permutation of range(size) that is a function of the key alone, in every process."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return tuple(
        np.random.default_rng(int.from_bytes(digest[:8], "big")).permutation(size).tolist()
    )


@dataclass(frozen=True)
class Deck:
    """One subject's rows of one kind, dealt at the target's rates."""

    name: str
    cards: tuple[Combination, ...]
    """One pass, before it is shuffled; a combination stands in it as often as the target asks."""
    rows: Mapping[Combination, tuple[Row, ...]]
    seed: int

    @property
    def attribute_ids(self) -> tuple[str, ...]:
        """The attributes that the subject has."""
        return tuple(next(iter(self.rows.values()))[0].values)

    def row(self, draw: int) -> Row:
        """The row of this deck's draw number 0, 1, 2, ..."""
        number, place = divmod(draw, len(self.cards))
        order = [
            self.cards[card] for card in shuffled(len(self.cards), self.seed, self.name, number)
        ]
        combination = order[place]
        before = number * self.cards.count(combination) + order[:place].count(combination)
        rows = self.rows[combination]
        turn, card = divmod(before, len(rows))
        return rows[shuffled(len(rows), self.seed, self.name, combination, turn)[card]]


@dataclass(frozen=True)
class Stream:
    """All subjects of one kind in shuffled turns, `run` neighbouring draws each."""

    kind: Kind
    decks: tuple[Deck, ...]
    run: int
    seed: int

    def row(self, draw: int) -> Row:
        """The row of this stream's draw number 0, 1, 2, ..."""
        turn, place = divmod(draw, len(self.decks) * self.run)
        deck = self.decks[shuffled(len(self.decks), self.seed, self.kind, turn)[place // self.run]]
        return deck.row(turn * self.run + place % self.run)


@dataclass(frozen=True)
class Batches:
    """The rows of every step."""

    size: int
    neutral_share: Fraction
    control_share: Fraction
    streams: Mapping[Kind, Stream]

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        settings: BatchSettings,
        attributes: Mapping[str, Attribute],
        seed: int,
    ) -> Self:
        """Deal these rows.

        Raises UserError as `build_decks` does, and for a kind that is asked for and has no row.
        """
        shares = {
            "neutral": settings.neutral_share,
            "explicit": 1 - settings.neutral_share,
            "control": settings.control_share,
        }
        streams: dict[Kind, Stream] = {}
        for kind in ("neutral", "explicit", "control"):
            chosen = [row for row in rows if row.kind == kind]
            if not chosen and (shares[kind] > 0 or kind == "neutral"):
                raise UserError(
                    f"the dataset has no {kind} rows, but batch.{_SHARE_OF[kind]} asks for them: "
                    "give a dataset that has, or change the share"
                )
            if chosen:
                run = settings.draws_per_subject if kind == "neutral" else 1
                decks = build_decks(chosen, attributes, seed)
                decks = even_out(decks) if kind == "explicit" else decks
                streams[kind] = Stream(kind, decks, run, seed)
        return cls(
            settings.size,
            Fraction(settings.neutral_share).limit_denominator(1000),
            Fraction(settings.control_share).limit_denominator(1000),
            streams,
        )

    def drawn(self, steps: int) -> dict[Kind, int]:
        """How many rows of each kind the first `steps` steps hold: shares that never drift."""
        controls = math.floor(steps * self.size * self.control_share)
        others = steps * self.size - controls
        neutral = math.floor(others * self.neutral_share)
        return {"neutral": neutral, "explicit": others - neutral, "control": controls}

    def rows(self, step: int) -> tuple[Row, ...]:
        """The `size` rows of step 0, 1, 2, ..., the same in every process."""
        first, end = self.drawn(step), self.drawn(step + 1)
        return tuple(
            self.streams[kind].row(draw) for kind in first for draw in range(first[kind], end[kind])
        )

    def window_steps(self) -> int:
        """Steps after which every subject's neutral rows have shown the target's rates once."""
        neutral = self.streams["neutral"]
        draws = len(neutral.decks) * max(len(deck.cards) for deck in neutral.decks)
        return math.ceil(
            draws / max(1, float(self.size * (1 - self.control_share) * self.neutral_share))
        )


_SHARE_OF = {"neutral": "neutral_share", "explicit": "neutral_share", "control": "control_share"}


def build_decks(
    rows: Sequence[Row], attributes: Mapping[str, Attribute], seed: int
) -> tuple[Deck, ...]:
    """One deck a subject, by name.

    The rows of a subject that `is_weighed` come equally often, whatever they show: their weights
    make the target already, and dealing at its rates would make it twice over. Raises UserError
    when rows of one subject differ in which attributes they have, or when a subject lacks a
    combination of values that the target asks for.
    """
    by_subject: dict[str, list[Row]] = {}
    for row in rows:
        by_subject.setdefault(row.subject, []).append(row)
    decks = []
    for subject, subjects_rows in sorted(by_subject.items()):
        ids = tuple(subjects_rows[0].values)
        cells: dict[Combination, list[Row]] = {}
        for row in subjects_rows:
            if tuple(row.values) != ids:
                raise UserError(
                    f"row {row.line} ({row.file}): {subject!r} has {list(row.values)} here and "
                    f"{list(ids)} in row {subjects_rows[0].line}; all rows of a subject must have "
                    "the same attributes: complete the labels, or leave the rows out"
                )
            cells.setdefault(tuple(row.values.values()), []).append(row)
        if is_weighed(subjects_rows):
            cards = without_shares(cells)
        else:
            cards = pass_of([attributes[id] for id in ids])
        missing = sorted(set(cards) - set(cells))
        if missing:
            first = subjects_rows[0]
            raise UserError(
                f"{subject!r} (from row {first.line}, {first.file}) has no {first.kind} row for "
                f"{len(missing)} of the {len(set(cards))} combinations of {list(ids)} that the "
                f"target asks for (first: {list(missing[0])}): add such pictures, leave the "
                "subject out, or give that value a target of 0"
            )
        # in the cards' order, never a set's: sums over it must have the same bits in every process
        dealt = {combination: tuple(cells[combination]) for combination in dict.fromkeys(cards)}
        decks.append(Deck(subject, cards, dealt, seed))
    return tuple(decks)


def is_weighed(rows: Sequence[Row]) -> bool:
    """Whether a subject's rows differ in their weights, as those balanced by weights do."""
    return len({row.weight for row in rows}) > 1


def without_shares(cells: Mapping[Combination, Sequence[Row]]) -> tuple[Combination, ...]:
    """The cards of a pass in which every row comes once, whatever the target."""
    return tuple(itertools.chain.from_iterable([name] * len(rows) for name, rows in cells.items()))


def even_out(decks: Sequence[Deck]) -> tuple[Deck, ...]:
    """Let decks of few subjects come more often, until all sets of attributes come about equally.

    What a value's word means is kept by the explicit captions that name it, whichever subject they
    are about: three scenes among forty occupations would leave "snowy" too few of them. A deck that
    comes again is shuffled on its own, and none comes more than MOST_COPIES times.
    """
    groups: dict[tuple[str, ...], list[Deck]] = {}
    for deck in decks:
        groups.setdefault(deck.attribute_ids, []).append(deck)
    most = max(len(group) for group in groups.values())
    return tuple(
        replace(deck, name=f"{deck.name} {copy}" if copy else deck.name)
        for group in groups.values()
        for copy in range(min(MOST_COPIES, most // len(group)))
        for deck in group
    )


def pass_of(attributes: Sequence[Attribute]) -> tuple[Combination, ...]:
    """The cards of one pass: every combination of values, as often as the targets' product asks.

    Raises UserError for a target that is no list of fractions of at most 100 parts.
    """
    shares = [_fractions(attribute) for attribute in attributes]
    combined = {
        tuple(value for value, _ in combination): math.prod(share for _, share in combination)
        for combination in itertools.product(*(share.items() for share in shares))
    }
    size = math.lcm(*(Fraction(share).denominator for share in combined.values()))
    return tuple(
        itertools.chain.from_iterable(
            [name] * int(share * size) for name, share in combined.items()
        )
    )


def _fractions(attribute: Attribute) -> dict[str, Fraction]:
    shares = [Fraction(float(share)).limit_denominator(100) for share in attribute.target]
    rounding = max(abs(float(s) - t) for s, t in zip(shares, attribute.target, strict=True))
    if sum(shares) != 1 or rounding > 1e-3:
        raise UserError(
            f"targets.{attribute.id} must be shares that are fractions of at most 100 parts, such "
            f"as 0.25 or 1/3, got {attribute.target.tolist()}: round them"
        )
    return dict(zip(attribute.values, shares, strict=True))


def shares_dealt(rows: Sequence[Row], attribute: Attribute) -> NDArray[np.float64]:
    """(K,) share of each value among the rows that have the attribute; 0 where none has."""
    counts = Counter(row.values[attribute.id] for row in rows if attribute.id in row.values)
    return np.array([counts[value] for value in attribute.values]) / max(1, counts.total())

"""Captions of the user's pictures: from templates, or in their own words made neutral."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from unskew.attributes import Attribute
from unskew.data.balance import seeded
from unskew.data.caption_check import contradictions, names_all
from unskew.data.caption_options import CaptionSettings
from unskew.data.captions import Caption
from unskew.data.neutral import Change, Vocabulary, neutralise, vocabulary
from unskew.data.phrases import Phrase, phrase_of, spoken
from unskew.data.rows import Row
from unskew.data.wordlists import Words, load_words
from unskew.errors import UserError


@dataclass(frozen=True)
class Rewritten:
    """A caption of the user's, and what became of it."""

    name: str
    """Of the row."""
    before: str
    neutral: str
    changes: tuple[Change, ...]
    denied: tuple[tuple[str, str, str], ...] = ()
    """(attribute, value, words) that the caption names and the picture's label denies; then its
    explicit caption is a template's."""

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Captioner:
    """Writes the captions of rows."""

    words: Words
    templates: tuple[str, ...]
    settings: CaptionSettings
    attributes: tuple[Attribute, ...]
    seed: int
    _known: dict[str, Vocabulary] = field(default_factory=dict, compare=False)
    _spoken: dict[tuple[object, ...], str] = field(default_factory=dict, compare=False)

    def phrase(self, subject: str) -> Phrase:
        """What the subject is called."""
        return phrase_of(subject, self.settings.phrases.get(subject))

    def spoken(self, subject: str, labels: Mapping[str, str]) -> str:
        """The subject with these values named; none names nothing."""
        key = (subject, *labels.items())
        if key not in self._spoken:
            self._spoken[key] = spoken(self.phrase(subject), labels, self.words)
        return self._spoken[key]

    def known(self, subject: str) -> Vocabulary:
        """The words by which captions of this subject are read."""
        if subject not in self._known:
            noun = self.phrase(subject).noun
            self._known[subject] = vocabulary(self.words, noun)
        return self._known[subject]

    def is_control(self, row: Row) -> bool:
        """Whether none of the balanced attributes applies: there is nothing to name."""
        return not any(a.id in row.labels for a in self.attributes)

    def wordings(self, subject: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        """What a base is asked with for these values: every template, explicit; each once."""
        said = self.spoken(subject, labels)
        return tuple(dict.fromkeys(t.replace("{x}", said) for t in self.templates))

    def captions(self, row: Row, caption: str | None, turn: int) -> Iterator[Caption]:
        """A row's captions: a neutral and an explicit one in each of `count` templates, or its own.

        `caption` is the row's own, None where it has none or it is not to be used; `turn` is how
        often the row was captioned before, which goes on in the templates' order.
        """
        labels = {a.id: v for a in self.attributes if (v := row.labels.get(a.id)) is not None}
        if caption is not None:
            yield from self._own(row, caption, labels, turn)
            return
        for template in self._turn(row, turn):
            plain = self.spoken(row.subject, {})
            neutral = template.replace("{x}", plain)
            if self.is_control(row):
                yield Caption("control", neutral, None)
                continue
            explicit = self._explicit(row, labels, template)
            yield Caption("neutral", neutral, explicit)
            yield Caption("explicit", explicit, explicit)

    def rewritten(self, row: Row, caption: str) -> Rewritten:
        """The user's caption made neutral, and every change of it."""
        known = self.known(row.subject)
        if self.is_control(row):
            return Rewritten(row.name, caption, caption, ())
        neutral, changes = neutralise(caption, known)
        denied = tuple(contradictions(caption, row.labels, known))
        return Rewritten(row.name, caption, neutral, changes, denied)

    def _own(
        self, row: Row, caption: str, labels: Mapping[str, str], turn: int
    ) -> Iterator[Caption]:
        if self.is_control(row):
            yield Caption("control", caption, None)
            return
        neutral = self.rewritten(row, caption).neutral
        if labels and names_all(caption, labels, self.known(row.subject)):
            explicit = caption
        else:
            explicit = self._explicit(row, labels, next(self._turn(row, turn)))
        yield Caption("neutral", neutral or self._plain(row), explicit)
        yield Caption("explicit", explicit, explicit)

    def _plain(self, row: Row) -> str:
        return self.spoken(row.subject, {})

    def _explicit(self, row: Row, labels: Mapping[str, str], template: str) -> str:
        return template.replace("{x}", self.spoken(row.subject, labels))

    def _turn(self, row: Row, turn: int) -> Iterator[str]:
        """The templates of this turn, in an order that the seed and the row's name decide."""
        order = _order(len(self.templates), self.seed, row.name)
        count = self.settings.count
        for number in range(turn * count, (turn + 1) * count):
            yield self.templates[order[number % len(order)]]


@lru_cache(maxsize=1024)
def _order(size: int, seed: int, name: str) -> Sequence[int]:
    return tuple(seeded(seed, "templates", name).permutation(size).tolist())


def captioner(settings: CaptionSettings, attributes: tuple[Attribute, ...], seed: int) -> Captioner:
    """What writes captions that name these attributes.

    Raises UserError that lists what is wrong with templates and words.
    """
    words = load_words(settings.language, attributes, settings.say)
    templates = settings.templates or words.templates
    problems = [
        f"captions.templates needs {{x}} where the subject stands, got {template!r}"
        for template in templates
        if "{x}" not in template
    ]
    if settings.count > len(templates):
        problems.append(
            f"captions.count must be <= {len(templates)} (the templates), got {settings.count}"
        )
    strangers = sorted(set(settings.say) - {a.id for a in attributes})
    problems += [f"captions.say.{id} is no attribute that is balanced" for id in strangers]
    problems += [
        f"captions.phrases.{subject} must have words"
        for subject, phrase in settings.phrases.items()
        if not phrase.strip()
    ]
    if settings.source == "model" and settings.model is None:
        problems.append("captions.model must be given where captions.source is model")
    if problems:
        raise UserError("captions cannot be written:" + "".join(f"\n  {p}" for p in problems))
    return Captioner(words, tuple(templates), settings, attributes, seed)

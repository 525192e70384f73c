"""Neutralising a caption: words that name a value are found, dropped or replaced, and logged.

"A young female mechanic holding her wrench" becomes "A mechanic holding their wrench". One word at
a time is changed until there is none left to change, so that doing it again changes nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from unskew.data.phrases import article
from unskew.data.wordlists import How, Telling, Words

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
POSSESSIVE = re.compile(r"['’]s$")
NO_NOUN = ("ing", "ed", "s")
"""Endings of what may be a verb: "woman holding" is no "woman NOUN"."""
MOST_SKIPPED = 2
"""Words of no list that may stand between an adjective and the word for people that it is about."""
MOST_CHANGES = 1000


@dataclass(frozen=True)
class Change:
    """One change of a caption."""

    attribute: str
    value: str
    words: str
    """As they stood there."""
    instead: str
    """What stands there now; "" where they were dropped."""


@dataclass(frozen=True)
class Vocabulary:
    """Words ready to be looked up."""

    words: Words
    subject: frozenset[str] = frozenset()
    """The words of the row's subject, which are words for people or things like those listed."""

    @cached_property
    def by_first(self) -> Mapping[str, Sequence[tuple[str, str, Telling]]]:
        """First word -> (attribute, value, words that name it), the longest first."""
        found: dict[str, list[tuple[str, str, Telling]]] = {}
        for (attribute, value), tellings in self.words.telling.items():
            for telling in tellings:
                found.setdefault(telling.words[0], []).append((attribute, value, telling))
        for entries in found.values():
            entries.sort(key=lambda entry: -len(entry[2].words))
        return found

    @cached_property
    def before_nouns(self) -> frozenset[str]:
        """Single words that may stand between another one and its noun."""
        return self.adjectives | self._single("of_people") | self.nouns

    @cached_property
    def adjectives(self) -> frozenset[str]:
        """Single words that name a value of any noun: "female"."""
        return self._single("adjective")

    @cached_property
    def nouns(self) -> frozenset[str]:
        """Single words that name a value and a person at once: "woman"."""
        return self._single("noun")

    def _single(self, how: How) -> frozenset[str]:
        return frozenset(
            telling.words[0]
            for entries in self.by_first.values()
            for _, _, telling in entries
            if telling.how == how and len(telling.words) == 1
        )


@dataclass(frozen=True)
class _Token:
    start: int
    end: int
    word: str
    """In lower case, without "'s"."""


def vocabulary(words: Words, subject_noun: str = "") -> Vocabulary:
    """The words, knowing what the row's subject is called."""
    return Vocabulary(words, frozenset(t.word for t in _tokens(subject_noun)[-1:]))


def neutralise(text: str, known: Vocabulary) -> tuple[str, tuple[Change, ...]]:
    """The caption without the words that name a value, and every change in its order.

    Words that cannot be told from others by their place ("the car is old") stay, and so does what
    no list has: `caption_check` lists captions that may name a value still.
    """
    changes: list[Change] = []
    for _ in range(MOST_CHANGES):
        found = next(_namings(text, known), None)
        if found is None:
            break
        text, change = _changed(text, found, known)
        changes.append(change)
    return text, tuple(changes)


def values_named(text: str, known: Vocabulary) -> dict[str, dict[str, str]]:
    """Attribute -> value -> words, of every value that the caption surely names."""
    named: dict[str, dict[str, str]] = {}
    for found in _namings(text, known):
        words = text[found.first.start : found.last.end]
        named.setdefault(found.attribute, {}).setdefault(found.value, words)
    return named


@dataclass(frozen=True)
class _Naming:
    """Words that name a value and can be changed."""

    attribute: str
    value: str
    first: _Token
    last: _Token
    after: _Token | None
    instead: str


def _namings(text: str, known: Vocabulary) -> Iterator[_Naming]:
    tokens = _tokens(text)
    for place, token in enumerate(tokens):
        for attribute, value, telling in known.by_first.get(token.word, ()):
            last = place + len(telling.words) - 1
            if last >= len(tokens) or not _in_a_row(text, tokens[place : last + 1], telling):
                continue
            after = tokens[last + 1] if last + 1 < len(tokens) else None
            if after and not _beside(text, tokens[last], after):
                after = None
            instead = _instead(text, tokens, last, telling, known)
            if instead is not None:
                yield _Naming(attribute, value, token, tokens[last], after, instead)
                break


def _instead(
    text: str, tokens: Sequence[_Token], place: int, telling: Telling, known: Vocabulary
) -> str | None:
    """What stands there instead, "" for nothing; None where the words mean something else here."""
    match telling.how:
        case "phrase":
            return ""
        case "replace":
            noun = _next(text, tokens, place)
            has_noun = noun is not None and noun.word not in known.words.small_words
            return telling.instead if has_noun or not telling.otherwise else telling.otherwise
        case "adjective":
            noun = _next(text, tokens, place)
            if noun is None or noun.word in known.words.small_words:
                return None
            is_noun = telling.words[0] in known.nouns  # "a female smiling" is a person smiling
            return None if is_noun and noun.word.endswith(NO_NOUN[:1]) else ""
        case "of_people":
            return "" if _before_people(text, tokens, place, known, MOST_SKIPPED) else None
        case "noun":
            owner = POSSESSIVE.search(text[tokens[place].start : tokens[place].end])
            if not owner and _before_people(text, tokens, place, known, 1, after_noun=True):
                return ""
            before = tokens[place - 1] if place else None
            if telling.words[0] in known.adjectives and before and before.word in known.words.being:
                return None
            return telling.instead
    raise AssertionError(telling.how)


def _before_people(
    text: str,
    tokens: Sequence[_Token],
    place: int,
    known: Vocabulary,
    may_skip: int,
    *,
    after_noun: bool = False,
) -> bool:
    """Whether the words after this one lead to a word for people."""
    skipped = 0
    while (token := _next(text, tokens, place)) is not None:
        place += 1
        if token.word in known.words.people or token.word in known.subject:
            return True
        if token.word in known.before_nouns:
            if token.word in known.nouns and not after_noun:
                return True
            continue
        skipped += 1
        verb = after_noun and token.word.endswith(NO_NOUN)
        if token.word in known.words.small_words or verb or skipped > may_skip:
            return False
    return False


def _changed(text: str, found: _Naming, known: Vocabulary) -> tuple[str, Change]:
    """The caption with one change, its article and its verb put right."""
    start, end, instead = found.first.start, found.last.end, found.instead
    stood = text[start:end]
    owner = POSSESSIVE.search(stood)
    listed = instead and "'" in instead
    after = text[end:]
    if instead:
        if owner and not listed:
            instead += owner.group()
        if stood[:1].isupper():
            instead = instead[:1].upper() + instead[1:]
        if instead.casefold() == "they" and found.after:
            gap = found.after.start - end
            verb = after[gap : found.after.end - end]
            after = after[:gap] + _plain_verb(verb, known) + after[found.after.end - end :]
        before = _with_article(text[:start], instead, known)
    else:
        after = after.lstrip()
        before = text[:start].rstrip()
        if not after or not re.match(r"[\w\"'(“‘]", after):
            before = before.rstrip(", ") if not after or after[0] in ".,;:!?)" else before
            glue = ""
        else:
            glue = " " if before else ""
        if stood[:1].isupper() and after:
            after = after[:1].upper() + after[1:]
        before = _with_article(before + glue, after, known)
    return before + instead + after, Change(found.attribute, found.value, stood, instead)


def _with_article(before: str, after: str, known: Vocabulary) -> str:
    """What stands before a change; an "a" or "an" at its end as what follows now asks."""
    found = re.search(r"\b(an?)(\s+)$", before, re.IGNORECASE)
    if not found or not after.strip():
        return before
    right = article(after, known.words)
    right = right.capitalize() if found[1][0].isupper() else right
    return f"{before[: found.start()]}{right}{found[2]}"


def _plain_verb(verb: str, known: Vocabulary) -> str:
    """The form after "they" of a verb that stood after "she": "smiles" becomes "smile"."""
    for ending, instead in known.words.verb_endings:
        if verb.endswith(ending) and verb.casefold() not in known.words.small_words:
            return verb[: len(verb) - len(ending)] + instead
    return verb


def _tokens(text: str) -> list[_Token]:
    return [
        _Token(found.start(), found.end(), _plain(found.group())) for found in WORD.finditer(text)
    ]


def _plain(word: str) -> str:
    word = word.casefold().replace("’", "'")
    return word if word in ("she's", "he's", "who's") else POSSESSIVE.sub("", word)


def _in_a_row(text: str, tokens: Sequence[_Token], telling: Telling) -> bool:
    same = all(t.word == word for t, word in zip(tokens, telling.words, strict=True))
    pairs = itertools.pairwise(tokens)
    return same and all(_beside(text, a, b) for a, b in pairs)


def _next(text: str, tokens: Sequence[_Token], place: int) -> _Token | None:
    """The token after this one, if only spaces are between."""
    if place + 1 < len(tokens) and _beside(text, tokens[place], tokens[place + 1]):
        return tokens[place + 1]
    return None


def _beside(text: str, left: _Token, right: _Token) -> bool:
    return text[left.end : right.start].isspace()

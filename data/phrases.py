"""Noun phrases with the right grammar: "a mechanic", "an older woman mechanic", "two men"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from unskew.data.wordlists import Words

GROUP = re.compile(r"^(an?|the) (group|crowd|team|pair|couple|row|line|handful) of (?=\S)", re.I)
SINGLE = re.compile(r"^(an?) (?=\S)", re.I)
COUNTED = re.compile(
    r"^((the|some|several|many|few|a few|both|two|three|four|five|six|seven|eight|nine|ten|\d+) )+"
    r"(?=\S)",
    re.I,
)
NO_PLURALS = ("ss", "us", "is")


@dataclass(frozen=True)
class Phrase:
    """What captions call a subject."""

    opening: str
    """What stands before the noun and does not change: "a group of ", "two ", or nothing."""
    article: bool
    """Whether "a" or "an" belongs before it."""
    noun: str
    """With all that follows: "mechanic", "christmas market in australia"."""
    many: bool


def phrase_of(subject: str, given: str | None) -> Phrase:
    """Read the user's words for a subject, or make them of its name: "truck-driver"."""
    if given is None:
        noun = " ".join(re.sub(r"[-_]+", " ", subject).split())
        return Phrase("", not _plural(noun), noun, _plural(noun))
    text = " ".join(given.split())
    for pattern, article, many in ((GROUP, False, True), (SINGLE, True, False)):
        if found := pattern.match(text):
            opening = "" if article else found.group()
            return Phrase(opening, article, text[found.end() :], many)
    found = COUNTED.match(text)
    noun = text[found.end() :] if found else text
    return Phrase(found.group() if found else "", False, noun, _plural(noun))


def spoken(phrase: Phrase, labels: Mapping[str, str], words: Words) -> str:
    """The phrase with the values of `labels` (attribute -> value) named; none names nothing."""
    noun = phrase.noun
    for (attribute, value), say in words.say.items():
        if labels.get(attribute) != value:
            continue
        first, _, rest = noun.partition(" ")
        instead = {"person": say.person, "people": say.people}.get(first)
        pattern = say.many if phrase.many else say.one
        if instead:
            noun = f"{instead} {rest}".rstrip()
        elif pattern.startswith("{x} with ") and " with " in noun:
            noun = pattern.replace("{x} with ", "{x} and ").replace("{x}", noun)
        else:
            noun = pattern.replace("{x}", noun)
    return f"{article(noun, words)} {noun}" if phrase.article else f"{phrase.opening}{noun}"


def article(noun: str, words: Words) -> str:
    """The word "a" or "an", by how the noun's first word sounds."""
    first = re.split(r"[^\w-]", noun.casefold().lstrip("\"'(“‘"), maxsplit=1)[0]
    parts = (first, first.partition("-")[0])
    if any(part in words.an_before for part in parts):
        return "an"
    if any(part in words.a_before for part in parts):
        return "a"
    if first[:1].isdigit():
        return "an" if first.startswith("8") or first in ("11", "18") else "a"
    return "an" if first[:1] and first[:1] in "aeiouáàâäéèêëíìîïóòôöúùûü" else "a"


def _plural(noun: str) -> bool:
    """Whether an English noun looks like several: its words up to a preposition end in "s"."""
    head = re.split(r" (?:in|on|at|of|with|from|by|near|for|to)\b", noun, maxsplit=1)[0]
    last = head.split()[-1].casefold() if head.split() else ""
    if last in ("people", "men", "women", "children"):
        return True
    return last.endswith("s") and not last.endswith(NO_PLURALS)

"""What is odd about captions: neutral ones that may name a value, explicit ones the label denies.

Much of what looks like amplified bias comes of captions that do not fit their pictures (Seshadri,
Singh and Elazar 2023, "The Bias Amplification Paradox in Text-to-Image Generation").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unskew.attributes import Attribute
from unskew.data.neutral import Vocabulary, values_named


@dataclass(frozen=True)
class Oddity:
    """One caption that a person should look at."""

    file_name: str
    text: str
    problem: Literal["names", "contradicts"]
    attribute: str
    value: str
    """The value that the caption names."""
    words: str
    label: str | None
    """The picture's value."""

    def __str__(self) -> str:
        """One line that a person understands."""
        if self.problem == "names":
            said = f"is neutral, and {self.words!r} may name {self.attribute} = {self.value}"
        else:
            said = f"says {self.words!r}, and the label of {self.attribute} is {self.label}"
        return f"{self.file_name}: {self.text!r} {said}"


def odd_captions(
    rows: Iterable[Mapping[str, Any]],
    attributes: Sequence[Attribute],
    known: Vocabulary,
) -> Iterator[Oddity]:
    """Neutral captions with any word of an attribute's lists, wherever it stands, and explicit
    ones that surely name a value other than the picture's.

    `rows` are a dataset's: file_name, text, kind, and a column for each attribute.
    """  # noqa: D205
    patterns = {
        (a.id, value): _any_of(value_words(a, value, known))
        for a in attributes
        for value in a.values
    }
    harmless = _any_of(set(known.words.harmless)) if known.words.harmless else None
    for row in rows:
        if row["kind"] == "neutral":
            text = harmless.sub("", row["text"]) if harmless else row["text"]
            for (attribute, value), pattern in patterns.items():
                if row.get(attribute) and (found := pattern.search(text)):
                    yield _oddity(row, "names", attribute, value, found.group())
        elif row["kind"] == "explicit":
            for attribute, value, words in contradictions(row["text"], row, known):
                yield _oddity(row, "contradicts", attribute, value, words)


def contradictions(
    text: str, labels: Mapping[str, Any], known: Vocabulary
) -> Iterator[tuple[str, str, str]]:
    """(attribute, value, words) that a caption surely names, where the label is another one."""
    for attribute, named in values_named(text, known).items():
        label = labels.get(attribute)
        if label is not None and label not in named:
            yield from ((attribute, value, words) for value, words in named.items())


def names_all(text: str, labels: Mapping[str, str | None], known: Vocabulary) -> bool:
    """Whether a caption surely names every one of these values, and no other of them."""
    named = values_named(text, known)
    return all(list(named.get(attribute, ())) == [value] for attribute, value in labels.items())


def value_words(attribute: Attribute, value: str, known: Vocabulary) -> set[str]:
    """All words that may name a value: those of the language's list and of the attribute's file."""
    listed = known.words.telling.get((attribute.id, value), ())
    return {" ".join(t.words) for t in listed} | {
        w.casefold() for w in attribute.words.get(value, ())
    }


def _any_of(words: set[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    either = "|".join(re.escape(word) for word in longest_first)
    return re.compile(rf"(?<![\w-])(?:{either})(?![\w-])", re.IGNORECASE)


def _oddity(
    row: Mapping[str, Any],
    problem: Literal["names", "contradicts"],
    attribute: str,
    value: str,
    words: str,
) -> Oddity:
    label = row.get(attribute)
    return Oddity(row["file_name"], row["text"], problem, attribute, value, words, label)

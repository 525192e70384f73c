"""What is odd about prompts that are allowed: two that say the same, words that give it away."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from unskew.attributes import Attribute, load_attribute
from unskew.prompts import Prompt, Suite

SMALL_WORDS = {"a", "an", "the"}


def near_duplicates(suites: Sequence[Suite]) -> list[tuple[Prompt, Prompt]]:
    """Pairs of prompts that differ in nothing but case, marks, accents, articles and word order.

    Each prompt is paired with the first of its kind.
    """
    first: dict[tuple[str, ...], Prompt] = {}
    pairs = []
    for prompt in (prompt for suite in suites for prompt in suite.prompts):
        words = sorted(word for word in _words(prompt.text) if word not in SMALL_WORDS)
        earlier = first.setdefault(tuple(words) or (prompt.text,), prompt)
        if earlier is not prompt:
            pairs.append((earlier, prompt))
    return pairs


def naming_words(suites: Sequence[Suite]) -> list[tuple[Prompt, str, str, str]]:
    """(prompt, attribute, value, word) where a neutral prompt names a value it is measured on.

    The words are those of the attribute's file, or the value's own name where it lists none.
    """
    found = []
    ids = dict.fromkeys(
        id for suite in suites for prompt in suite.prompts for id in prompt.attributes
    )
    attributes = {id: load_attribute(id) for id in ids}
    for suite in suites:
        for prompt in suite.prompts if suite.role == "neutral" else ():
            said = f" {' '.join(_words(prompt.text))} "
            for attribute in map(attributes.__getitem__, prompt.attributes):
                for value in attribute.values:
                    word = next((w for w in _names(attribute, value) if f" {w} " in said), None)
                    if word:
                        found.append((prompt, attribute.id, value, word))
    return found


def _names(attribute: Attribute, value: str) -> list[str]:
    words = attribute.words.get(value) or (value,)
    return [" ".join(_words(word)) for word in words]


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"[^\W_]+", "".join(c for c in plain if not unicodedata.combining(c)))

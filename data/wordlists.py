"""A language's words: how captions name a value, and which words of a caption give one away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import unskew.configs
from unskew.attributes import Attribute
from unskew.errors import UserError
from unskew.yaml_files import StrictModel, checked, read_yaml

WORDS_DIR = Path(next(iter(unskew.configs.__path__))) / "words"
How = Literal["adjective", "of_people", "noun", "phrase", "replace"]


@dataclass(frozen=True)
class Say:
    """How an explicit caption names one value; {x} stands for the noun without its article."""

    one: str
    many: str
    person: str | None = None
    """Takes the place of "person" where the noun begins with it; None where `one` serves."""
    people: str | None = None


@dataclass(frozen=True)
class Telling:
    """Words that name a value."""

    words: tuple[str, ...]
    """In lower case."""
    how: How
    instead: str
    """What stands there instead: for a noun, or words to replace; "" where they are dropped."""
    otherwise: str = ""
    """For words to replace: what stands there instead where no noun follows; "" means `instead`."""


@dataclass(frozen=True)
class Words:
    """One language's words for the attributes that are asked for."""

    language: str
    templates: tuple[str, ...]
    an_before: frozenset[str]
    a_before: frozenset[str]
    small_words: frozenset[str]
    """Words that are no nouns and stand before none."""
    being: frozenset[str]
    verb_endings: tuple[tuple[str, str], ...]
    people: frozenset[str]
    """Single words for people, the last one of each that has several."""
    harmless: tuple[str, ...]
    """In lower case: phrases in which a word that may name a value names none."""
    say: Mapping[tuple[str, str], Say]
    """(attribute, value) -> how it is named, in the order in which they are put on a noun."""
    telling: Mapping[tuple[str, str], tuple[Telling, ...]]
    """(attribute, value) -> the words that name it."""


class _SayFile(StrictModel):
    one: str
    many: str | None = None
    person: str | None = None
    people: str | None = None


class _Topic(StrictModel):
    attributes: dict[str, dict[str, str]]
    say: dict[str, _SayFile]
    adjectives: dict[str, list[str]] = {}
    of_people: dict[str, list[str]] = {}
    nouns: dict[str, dict[str, str]] = {}
    phrases: dict[str, list[str]] = {}
    replace: dict[str, dict[str, Any]] = {}


class _Articles(StrictModel):
    an_before: list[str]
    a_before: list[str]


class _WordsFile(StrictModel):
    templates: list[str]
    articles: _Articles
    small_words: list[str]
    being: list[str]
    verb_endings: list[list[str]]
    harmless: list[str] = []
    people: list[str]
    topics: dict[str, _Topic]


@lru_cache(maxsize=8)
def _file(language: str, folder: Path) -> _WordsFile:
    file = folder / f"{language}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in folder.glob("*.yaml"))) or "none"
        raise UserError(f"captions.language {language!r} has no word list (there are: {known})")
    return checked(_WordsFile, read_yaml(file, "word list"), str(file))


def load_words(
    language: str,
    attributes: tuple[Attribute, ...],
    say: Mapping[str, Mapping[str, str]],
    folder: Path = WORDS_DIR,
) -> Words:
    """A language's words for these attributes; `say` is the user's own attribute -> value -> words.

    An attribute that the list does not know gets the words of its own file. Raises UserError where
    the list or `say` is wrong, and where nothing says how a value is named.
    """
    table = _file(language, folder)
    named: dict[tuple[str, str], Say] = {}
    telling: dict[tuple[str, str], list[Telling]] = {}
    topic_of = {id: topic for topic in table.topics.values() for id in topic.attributes}
    order = [a for id in topic_of for a in attributes if a.id == id]
    order += [a for a in attributes if a not in order]
    problems = []
    for attribute in order:
        topic, own = topic_of.get(attribute.id), say.get(attribute.id, {})
        strangers = sorted(set(own) - set(attribute.values))
        if strangers:
            problems.append(f"captions.say.{attribute.id}.{strangers[0]} is no value of it")
        for value in attribute.values:
            key = topic.attributes[attribute.id].get(value) if topic else None
            found = list(_telling(topic, key)) if topic and key else []
            if not found:
                found = [_own(word) for word in attribute.words.get(value, (value,))]
            telling[attribute.id, value] = found
            if value in own:
                if "{x}" not in own[value]:
                    problems.append(
                        f"captions.say.{attribute.id}.{value} needs {{x}} where the noun stands, "
                        f"got {own[value]!r}"
                    )
                named[attribute.id, value] = Say(own[value], own[value])
            elif topic and key in topic.say:
                said = topic.say[key]
                named[attribute.id, value] = Say(
                    said.one, said.many or said.one, said.person, said.people
                )
            else:
                name = value.replace("_", " ")
                problems.append(
                    f"captions.say.{attribute.id}.{value} must be given, such as '{name} {{x}}': "
                    f"the {language} word list does not say how captions name it"
                )
    if problems:
        raise UserError("captions cannot be written:" + "".join(f"\n  {p}" for p in problems))
    return Words(
        language=language,
        templates=tuple(table.templates),
        an_before=frozenset(table.articles.an_before),
        a_before=frozenset(table.articles.a_before),
        small_words=frozenset(table.small_words),
        being=frozenset(table.being),
        verb_endings=tuple((end, instead) for end, instead in table.verb_endings),
        people=frozenset(words.split()[-1] for words in table.people),
        harmless=tuple(phrase.casefold() for phrase in table.harmless),
        say=named,
        telling={key: tuple(found) for key, found in telling.items()},
    )


def _telling(topic: _Topic, key: str) -> Iterator[Telling]:
    lists: tuple[tuple[How, dict[str, list[str]]], ...] = (
        ("adjective", topic.adjectives),
        ("of_people", topic.of_people),
        ("phrase", topic.phrases),
    )
    for how, words in lists:
        yield from (Telling(_split(word), how, "") for word in words.get(key, ()))
    for word, instead in topic.nouns.get(key, {}).items():
        yield Telling(_split(word), "noun", instead)
    for word, instead in topic.replace.get(key, {}).items():
        if isinstance(instead, dict):
            yield Telling(_split(word), "replace", instead["before_noun"], instead["else"])
        else:
            yield Telling(_split(word), "replace", instead)


def _own(word: str) -> Telling:
    """A word of an attribute's own file: one before a noun is dropped, a phrase anywhere."""
    words = _split(word)
    return Telling(words, "phrase" if len(words) > 1 else "adjective", "")


def _split(word: str) -> tuple[str, ...]:
    return tuple(word.casefold().split())

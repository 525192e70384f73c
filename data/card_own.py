"""The card of a dataset of the user's own, and what its Croissant file says in words."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unskew.attributes import Attribute
from unskew.data.balance_tables import Balance
from unskew.data.croissant import Description
from unskew.data.picture_sheet import SHEET
from unskew.settings import Settings

BALANCE_PICTURE = "balance.png"
MOST_LISTED = 200
HUB_LICENCES = {
    name: name.casefold()
    for name in (
        "CC0-1.0",
        "CC-BY-4.0",
        "CC-BY-SA-4.0",
        "CC-BY-NC-4.0",
        "Apache-2.0",
        "MIT",
        "CC-BY-3.0",
        "CC-BY-2.0",
        "CC-BY-NC-SA-4.0",
        "OpenRAIL",
        "OpenRAIL++",
    )
}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
COLUMNS = {
    "file_name": "the picture's file",
    "text": "the caption",
    "kind": "neutral: names no value; explicit: names every one; control: a thing with none",
    "subject": "what is shown",
    "explicit_text": "the caption that names every value; null for a control",
    "weight": "how much the row counts in training",
    "split": "train, validation or held_out",
    "source": "where the picture comes from",
    "license": "the terms under which it may be used",
    "sha256": "of the picture's file",
    "labelled_by": "who or what gave its labels",
    "prompt": "what the base was asked for, where it drew the picture",
    "seed": "of the noise that it was drawn from",
    "base": "sha256 of the base that drew it",
    "sampler": "scheduler, steps, guidance and size",
}


class CardSettings(Settings):
    """What the dataset's card says beside what is found out by itself."""

    title: str = "A balanced dataset"
    """The dataset's name."""
    collection: str = ""
    """Who took or drew the pictures, when, where and for what."""
    consent: str = ""
    """How the people who can be recognised agreed to be in it, and how one of them gets out."""
    limits: tuple[str, ...] = ()
    """What it is not good for, one sentence each."""


@dataclass(frozen=True)
class Facts:
    """What a card is written from."""

    settings: CardSettings
    language: str
    split: str
    rows: Sequence[Mapping[str, Any]]
    table: Sequence[Balance]
    attributes: Sequence[Attribute]
    by: str
    """In words, how it was balanced."""
    left_out: Mapping[str, int]
    """Reason -> pictures that are not in it for that."""
    notes: Sequence[str]
    captions: str
    """In words, how it was captioned and what was changed."""
    sections: Mapping[str, str]
    """Title -> Markdown, of what came before: how pictures were gathered, screened, drawn."""

    def card_parts(self) -> list[Any]:
        """All that decides the card and is neither a row nor a setting."""
        return [
            dict(self.left_out),
            list(self.notes),
            dict(self.sections),
            list(map(vars, self.table)),
        ]


def card(facts: Facts) -> str:
    """The README.md. What users wrote is shown as it is and never read as Markdown or HTML."""
    rows, said = facts.rows, facts.settings
    files = len({row["file_name"] for row in rows})
    kinds = Counter(str(row["kind"]) for row in rows)
    parts = [
        _header(facts),
        f"# {plain(said.title)}",
        f"{files:,} pictures with {len(rows):,} captions ("
        + ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        + f"), for `{facts.split}`. Written by `unskew data build`, part of Unskew.",
    ]
    if facts.split != "train":
        parts.append("**Not for training**: it is kept to judge what was trained.")
    parts += [_balance(facts), _content(rows)]
    parts += [f"## {plain(title)}\n{text.strip()}" for title, text in facts.sections.items()]
    parts.append("## Captions\n" + facts.captions)
    parts.append("## Collection and consent\n" + "\n\n".join([_collection(said), _consent(said)]))
    parts.append(_sources(rows))
    parts.append("## Limits\n" + "\n".join(f"- {line}" for line in limits(facts)))
    parts.append(_columns(rows, facts.attributes))
    return "\n\n".join(parts) + "\n"


def description(facts: Facts) -> Description:
    """The same for the Croissant file."""
    labelled = sorted({str(row["labelled_by"]) for row in facts.rows if row.get("labelled_by")})
    tools = tuple(x for x in labelled if "column" not in x and "asked" not in x)
    ids = ", ".join(a.title for a in facts.attributes) or "nothing"
    return Description(
        name=facts.settings.title,
        text=f"Captioned pictures, balanced by {ids}, for fine-tuning text-to-image models.",
        license=licence(facts.rows),
        language=facts.language,
        keywords=("text-to-image", "fairness", "bias", "unskew"),
        columns={**COLUMNS, **{a.id: a.title for a in facts.attributes}},
        collection=" ".join([_collection(facts.settings), _consent(facts.settings)]),
        labels="Labels of perceived properties, given by: " + ("; ".join(labelled) or "not said"),
        label_tools=tools,
        processing=(facts.by, facts.captions),
        biases=tuple(
            f"{b.attribute} = {b.value}: {b.before:.1%} before, {b.after:.1%} after balancing, "
            f"target {b.target:.1%}"
            for b in facts.table
        )
        or ("It was not balanced.",),
        limits=tuple(limits(facts)),
        sensitive=tuple(f"{a.title}: {a.caveat}" for a in facts.attributes)
        or ("No label of a person's property.",),
        uses=("Training a text-to-image model to show the target where a caption says nothing.",),
        impact=(
            "The target is the makers' choice, not a claim about the world; labels are perceived "
            "and say nothing of who anyone is."
        ),
    )


def limits(facts: Facts) -> list[str]:
    """What the dataset is not good for: the user's own words first."""
    return [
        *(plain(limit) for limit in facts.settings.limits),
        *(plain(note) for note in facts.notes),
        "Labels are perceived, by a person or a classifier, and some are wrong.",
        "What goes with a value in these pictures (clothes, places, light) is learnt with it.",
        "The target is a choice of whoever made the dataset and not a claim about the world.",
        *(f"{plain(a.title)}: {plain(a.caveat)}" for a in facts.attributes),
    ]


def licence(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows' licence where they have one and the same; "mixed", or "unknown", where not."""
    found = {str(row["license"]) for row in rows} - {""}
    return found.pop() if len(found) == 1 else "mixed" if found else "unknown"


def _header(facts: Facts) -> str:
    name = licence(facts.rows)
    hub = HUB_LICENCES.get(name, "unknown" if name == "unknown" else "other")
    size = next((words for most, words in SIZES if len(facts.rows) < most), "n>1M")
    title = plain(facts.settings.title).replace('"', "'").replace("\\", "/")
    return "\n".join(
        [
            "---",
            f'pretty_name: "{title}"',
            f"license: {hub}",
            f"language: [{facts.language}]",
            "task_categories: [text-to-image]",
            f"size_categories: [{size}]",
            "tags: [unskew, croissant]",
            "---",
        ]
    )


def _balance(facts: Facts) -> str:
    lines = ["## Balance", facts.by]
    if any(row.get(a.id) for row in facts.rows for a in facts.attributes):
        lines += ["", f"![A picture of each combination, and how many count]({SHEET})"]
    if facts.table:
        lines += [
            "",
            f"![Shares before and after balancing, and the target]({BALANCE_PICTURE})",
            "",
            "Shares of the rows with a label, by weight; in brackets those of the subjects with "
            "least and with most of the value.",
            "",
            "| attribute | value | target | before | after | pictures |",
            "| --- | --- | --- | --- | --- | --- |",
            *(
                f"| {plain(b.attribute)} | {plain(b.value)} | {b.target:.1%} "
                f"| {b.before:.1%} ({b.before_lowest:.1%} - {b.before_highest:.1%}) "
                f"| {b.after:.1%} ({b.after_lowest:.1%} - {b.after_highest:.1%}) "
                f"| {b.pictures:,} |"
                for b in facts.table
            ),
        ]
    if facts.left_out:
        lines += ["", "Left out:", ""]
        lines += [f"- {count:,}: {plain(reason)}" for reason, count in facts.left_out.items()]
    return "\n".join(lines)


def _content(rows: Sequence[Mapping[str, Any]]) -> str:
    pictures: dict[str, set[str]] = {}
    for row in rows:
        pictures.setdefault(str(row["subject"]), set()).add(str(row["file_name"]))
    named = [f"{plain(subject)} ({len(own):,})" for subject, own in sorted(pictures.items())]
    more = f", and {len(named) - MOST_LISTED} more" if len(named) > MOST_LISTED else ""
    return f"## What is in it\n{len(named)} subjects, with their pictures: " + (
        ", ".join(named[:MOST_LISTED]) + more
    )


def _collection(said: CardSettings) -> str:
    return plain(said.collection) or "How the pictures were collected was not said."


def _consent(said: CardSettings) -> str:
    return plain(said.consent) or (
        "Whether the people who can be recognised agreed was not said: ask before you use it."
    )


def _sources(rows: Sequence[Mapping[str, Any]]) -> str:
    pairs: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        key = (str(row["source"]), str(row["license"]))
        pairs.setdefault(key, set()).add(str(row["file_name"]))
    listed = sorted(pairs.items(), key=lambda item: -len(item[1]))
    lines = ["## Sources and licences", "| source | licence | pictures |", "| --- | --- | --- |"]
    lines += [
        f"| {plain(source) or 'not said'} | {plain(licence) or 'unknown'} | {len(own):,} |"
        for (source, licence), own in listed[:MOST_LISTED]
    ]
    if len(listed) > MOST_LISTED:
        lines.append(f"| and {len(listed) - MOST_LISTED} more | in `metadata.jsonl` | |")
    return "\n".join(lines)


def _columns(rows: Sequence[Mapping[str, Any]], attributes: Sequence[Attribute]) -> str:
    titles = {a.id: f"{a.title}; null where it is unknown or has none" for a in attributes}
    lines = ["## Columns", "| column | what it says |", "| --- | --- |"]
    lines += [
        f"| `{name}` | {plain(COLUMNS.get(name) or titles.get(name) or 'a label')} |"
        for name in (rows[0] if rows else ())
    ]
    return "\n".join(lines)


def plain(text: str) -> str:
    """One line that Markdown and HTML show as it is."""
    shown = html.escape(" ".join(text.split()), quote=False)
    for mark in "\\`*_[]|":
        shown = shown.replace(mark, f"\\{mark}")
    return shown

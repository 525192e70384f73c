"""The lines of a dataset's metadata, and what became of the user's captions on the way."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unskew.data.caption_check import Oddity, odd_captions
from unskew.data.imagefolder import PictureFile
from unskew.data.row_captions import Captioner, Rewritten
from unskew.data.rows import Row
from unskew.data.splits import Split
from unskew.runs import sha256_file

LONGEST_NAME = 40


@dataclass(frozen=True)
class Written:
    """A folder's rows, ready to be written."""

    rows: tuple[Mapping[str, Any], ...] = ()
    rewritten: tuple[Rewritten, ...] = ()
    """The captions that were changed or denied, each once."""
    oddities: tuple[Oddity, ...] = ()
    """Captions that a person should look at, each once."""


def write_rows(
    uses: Sequence[tuple[Row, float]],
    split: Split,
    writer: Captioner,
    captions: Mapping[str, str],
) -> Written:
    """The lines of these rows and weights, in DESIGN's columns; one for each caption.

    Loaders take a column's type from its first values, so rows with labels come first.
    """
    balanced = [a.id for a in writer.attributes]
    shown = {id for row, _ in uses for id, value in row.labels.items() if value is not None}
    ids = [id for id in balanced if id in shown]
    ids += [
        i for i in dict.fromkeys(i for row, _ in uses for i in row.labels) if i in shown - {*ids}
    ]
    drawn = any(row.drawn for row, _ in uses)
    labelled = any(row.labelled_by for row, _ in uses)
    turns: Counter[str] = Counter()
    lines: list[dict[str, Any]] = []
    rewritten: dict[str, Rewritten] = {}
    oddities: dict[tuple[str, str, str, str], Oddity] = {}
    clean: set[tuple[object, ...]] = set()
    for row, weight in _labels_first(uses, ids):
        caption = row.caption or captions.get(row.name)
        own = caption if writer.settings.source != "templates" else None
        turn = turns[row.name]
        turns[row.name] += 1
        if own is not None and turn == 0:
            one = writer.rewritten(row, own)
            if one.changes or one.denied:
                rewritten[row.name] = one
        file_name = picture_file(row).file_name
        here = []
        for text in writer.captions(row, own, turn):
            here.append(
                {
                    "file_name": file_name,
                    "text": text.text,
                    "kind": text.kind,
                    "subject": row.subject,
                    **{id: row.labels.get(id) for id in ids},
                    "explicit_text": text.explicit_text,
                    "weight": weight,
                    "split": split,
                    "source": row.source,
                    "license": row.license,
                    "sha256": "",
                    **(_of_labels(row) if labelled else {}),
                    **(_of_drawing(row) if drawn else {}),
                }
            )
        lines += here
        said = (row.subject, *((x["kind"], x["text"]) for x in here), *row.labels.items())
        if said in clean:  # a template's caption of another picture that shows the same
            continue
        found = list(odd_captions(here, writer.attributes, writer.known(row.subject)))
        if not found:
            clean.add(said)
        for odd in found:
            oddities.setdefault((odd.file_name, odd.text, odd.problem, odd.attribute), odd)
    return Written(tuple(lines), tuple(rewritten.values()), tuple(oddities.values()))


def picture_file(row: Row) -> PictureFile:
    """Where a row's picture goes: named by its subject and its bytes, safe in every system."""
    sha256 = row.sha256 or sha256_file(row.file)
    name = re.sub(r"[^a-z0-9]+", "-", row.subject.casefold()).strip("-")[:LONGEST_NAME].strip("-")
    plain = row.plain and row.suffix in (".jpg", ".png")
    suffix = row.suffix if plain else ".png"
    file_name = f"images/{name or 'picture'}-{sha256[:16]}{suffix}"
    return PictureFile(file_name, row.file, sha256, plain)


def _labels_first(uses: Sequence[tuple[Row, float]], ids: Sequence[str]) -> list[tuple[Row, float]]:
    """The rows, those before the others that are the first to show a value of an attribute."""
    first: dict[str, int] = {}
    for number, (row, _) in enumerate(uses):
        for id in ids:
            if row.labels.get(id) is not None:
                first.setdefault(id, number)
    front = sorted(set(first.values()))
    rest = (n for n in range(len(uses)) if n not in set(front))
    return [uses[n] for n in (*front, *rest)]


def _of_labels(row: Row) -> dict[str, Any]:
    said = "; ".join(f"{id}: {who}" for id, who in row.labelled_by.items())
    return {"labelled_by": said or None}


def _of_drawing(row: Row) -> dict[str, Any]:
    d = row.drawn
    return {
        "prompt": d.prompt if d else None,
        "seed": d.seed if d else None,
        "base": d.base if d else None,
        "sampler": d.sampler if d else None,
    }

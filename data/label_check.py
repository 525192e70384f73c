"""A person's check of labels: a page with a sample of pictures, and how often the person agreed.

The page is the one that calibrates studies: it tells neither the label nor who gave it.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from statsmodels.stats.proportion import proportion_confint

from unskew.data.build_setup import Setup
from unskew.data.card_own import plain
from unskew.data.rows import Row
from unskew.errors import UserError
from unskew.evaluate.calibration import Labels
from unskew.evaluate.label_page import page_of, picture_uri
from unskew.evaluate.pictures import read_picture
from unskew.evaluate.schema_model import Model
from unskew.runs import write_json_atomic, write_text_atomic

PAGE = "label-check.html"
SAMPLE = "label-check.json"


class CheckTask(Model):
    """One label to check."""

    id: str
    """Says nothing of the label: a number in the shuffled order."""
    attribute: str
    value: str
    """The label."""
    by: str
    """Who gave it."""
    picture: str
    """Its row's name."""


class CheckSample(Model):
    """What a person is asked."""

    schema_version: Literal[1] = 1
    tasks: tuple[CheckTask, ...]

    @property
    def sha256(self) -> str:
        """What a file of answers names its sample by."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def write_check(rows: Sequence[Row], per_attribute: int, setup: Setup) -> CheckSample | None:
    """Write page and sample into the work folder; None where there is nothing to check.

    Which pictures are drawn is a function of their bytes, so the same rows give the same page. Only
    labels count, of columns and classifiers alike.
    """
    drawn = {a: _sample(rows, a, per_attribute) for a in setup.attributes} if per_attribute else {}
    asked = [(a, row) for a, own in drawn.items() for row in own]
    asked.sort(key=lambda pair: _order("page", *pair))
    if not asked:
        return None
    tasks = tuple(
        CheckTask(
            id=f"t{number:05d}",
            attribute=attribute,
            value=str(row.labels[attribute]),
            by=row.labelled_by.get(attribute, "unknown"),
            picture=row.name,
        )
        for number, (attribute, row) in enumerate(asked, 1)
    )
    sample = CheckSample(tasks=tasks)
    places = {row.name: n for n, row in enumerate({r.name: r for _, r in asked}.values())}
    files = {row.name: row.file for _, row in asked}
    data = {
        "run": "dataset",
        "sample": sample.sha256,
        "attributes": {
            a.id: {"title": a.title, "caveat": a.caveat, "values": list(a.values)}
            for a in setup.attributes.values()
            if drawn[a.id]
        },
        "tasks": [
            {"id": t.id, "attribute": t.attribute, "picture": places[t.picture]} for t in tasks
        ],
        "pictures": [picture_uri(read_picture(files[name])) for name in places],
    }
    write_json_atomic(setup.work / SAMPLE, sample.model_dump(mode="json"))
    write_text_atomic(setup.work / PAGE, page_of(data))
    return sample


def agreement(sample: CheckSample | None, files: Sequence[Path]) -> str:
    """Markdown: how often persons agreed with labels, by attribute and by who gave them.

    Raises UserError for a file that is none of the page's, or is of another sample.
    """
    counts: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for file in files:
        said = _answers(file)
        if sample is None or said.sample != sample.sha256:
            raise UserError(
                f"label.checked {file} answers another page: labels or pictures have changed "
                "since; check the new page, or leave this file out"
            )
        for task in sample.tasks:
            if task.id in said.labels:
                answer = said.labels[task.id]
                count = counts[said.rater, task.attribute, task.by]
                count[0] += answer == task.value
                count[1] += answer is not None
                count[2] += answer is None
    lines = [
        "| person | attribute | labelled by | agreed | cannot tell |",
        "| --- | --- | --- | --- | ---: |",
    ]
    for (rater, attribute, by), (agreed, told, untold) in counts.items():
        share = "none told"
        if told:
            low, high = proportion_confint(agreed, told, method="wilson")
            share = f"{agreed} of {told} ({low:.0%} to {high:.0%})"
        lines.append(f"| {rater} | {plain(attribute)} | {plain(by)} | {share} | {untold} |")
    return "\n".join(lines)


def _sample(rows: Iterable[Row], attribute: str, count: int) -> list[Row]:
    labelled = (row for row in rows if row.labels.get(attribute) is not None)
    return heapq.nsmallest(count, labelled, key=lambda row: _order("draw", attribute, row))


def _order(what: str, attribute: str, row: Row) -> str:
    key = json.dumps([what, attribute, row.sha256, row.name])
    return hashlib.sha256(key.encode()).hexdigest()


def _answers(file: Path) -> Labels:
    try:
        return Labels.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no file of labels"
        raise UserError(
            f"label.checked {file} cannot be read ({what}): give what the page's Download labels "
            "button gave"
        ) from None

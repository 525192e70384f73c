"""Collecting: gather, screen and label in one call, to the rows that a dataset may be made of."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from unskew.data.build_setup import Setup
from unskew.data.gather import Gathered
from unskew.data.gather_folder import gather_folder
from unskew.data.gather_streams import gather_stream
from unskew.data.label_options import LabelSettings
from unskew.data.labelling import label, label_readers
from unskew.data.ledger import Line, read_lines
from unskew.data.rows import Row
from unskew.data.screen import ScreenSettings
from unskew.data.screen_page import Page, write_page
from unskew.data.screening import (
    FaceCounter,
    count_reason,
    counted,
    judge,
    look_over,
    record_of,
)
from unskew.data.sources import AnySource, FolderSettings, name_of
from unskew.errors import UserError
from unskew.evaluate.classifiers.face_finder import face_finder
from unskew.runs import atomic_path

RECORD = "screened.jsonl"
PAGE = "screened.html"
KEPT = "kept.jsonl"


@dataclass(frozen=True)
class Plan:
    """What is collected."""

    sources: tuple[AnySource, ...]
    screen: ScreenSettings
    label: LabelSettings
    held_out: tuple[str, ...] = ()
    """Subjects that are not trained on: of duplicates theirs is kept."""


def collect(plan: Plan, setup: Setup) -> Iterator[Row]:
    """The rows that are kept, labelled, in the order of gathering; the same in every process.

    Writes `screened.jsonl` (every picture, kept or not, and why) and `screened.html` into the work
    folder. What a former attempt did is not done again. Raises UserError for a source
    that cannot be read.
    """
    _check(plan)
    readers = label_readers(plan.label, setup)
    setup.processes.only_first(lambda: _screen(plan, setup))
    setup.processes.wait()
    yield from label(kept_rows(setup), kept_rows(setup), readers, plan.label.floor, setup)


def kept_rows(setup: Setup) -> Iterator[Row]:
    """The rows that screening kept, with the labels of their columns."""
    return map(row_from, read_lines(setup.work / KEPT))


def gather(plan: Plan, setup: Setup) -> Iterator[tuple[int, Gathered]]:
    """(number of its source, picture), of all sources in their order."""
    attributes = tuple(setup.attributes)
    for number, source in enumerate(plan.sources):
        match source:
            case FolderSettings():
                pictures = gather_folder(source, attributes)
            case _:
                pictures = gather_stream(number, source, setup)
        for picture in pictures:
            yield number, picture


def row_from(line: Line) -> Row:
    """A row that was written down with `asdict`."""
    return Row(**{**line, "file": Path(line["file"])})


def _check(plan: Plan) -> None:
    names = Counter(name_of(source) for source in plan.sources)
    twice = [name for name, times in names.items() if times > 1]
    if twice:
        raise UserError(
            f"sources: {names[twice[0]]} are called {twice[0]!r}: give each a `source` of its own"
        )


def _screen(plan: Plan, setup: Setup) -> None:
    """Look, judge, and write down what is kept and what is not; what is kept, last."""
    counter = None if plan.screen.faces == "any" else _face_counter()
    with tqdm(unit="picture", desc="looking", disable=None) as bar:
        looks = look_over(gather(plan, setup), setup, counter, bar.update)
    reasons: Counter[str] = Counter()
    page = Page()
    kept = 0
    with (
        atomic_path(setup.work / KEPT) as kept_file,
        atomic_path(setup.work / RECORD) as record_file,
        kept_file.open("w", encoding="utf-8") as rows,
        record_file.open("w", encoding="utf-8") as record,
    ):
        for judged in judge(looks, plan.sources, plan.screen, setup, plan.held_out):
            record.write(json.dumps(record_of(judged)) + "\n")
            count_reason(reasons, judged)
            page.add(judged)
            if judged.row is not None:
                rows.write(json.dumps(asdict(judged.row), default=str) + "\n")
                kept += 1
    write_page(page, reasons, kept, setup.work / PAGE)
    if not plan.sources:
        return
    setup.processes.say(f"screened: {kept} pictures kept, {reasons.total()} left out")
    for line in counted(reasons):
        setup.processes.say(line)


def _face_counter() -> FaceCounter:
    finder, lock = face_finder(), threading.Lock()

    def count(image: NDArray[np.uint8]) -> int:
        with lock:  # dlib's detector is one object with a state
            return finder.count(image)

    return count

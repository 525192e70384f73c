"""Labels by classifiers, for what columns left unknown; below the floor it stays unknown.

Rows are read in fixed parts, in the order in which they were kept. What was said of a part is kept
in the work folder, so several processes deal the parts among them, and a build that goes on takes
from there what is done.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from unskew.ahead import ahead
from unskew.attributes import SUBJECT
from unskew.data.build_setup import Setup
from unskew.data.checking import load_readers
from unskew.data.label_options import LabelSettings
from unskew.data.rows import Row
from unskew.errors import UserError
from unskew.evaluate.classifiers.loading import check_readers
from unskew.evaluate.classify import Reader
from unskew.evaluate.pictures import PictureError, read_picture
from unskew.runs import write_json_atomic

PART = 16
"""Pictures read together; all of them are in memory at once, at their full size."""
Said = dict[str, tuple[str, float]]
"""Attribute -> (value, probability), of one picture and the attributes that could be read."""


def label_readers(settings: LabelSettings, setup: Setup) -> tuple[Reader, ...]:
    """The classifiers that label.

    Raises UserError for classifiers that cannot be had, or that read what is none of the dataset's.
    """
    if any(SUBJECT in c.attributes for c in settings.classifiers.values()):
        raise UserError("label.classifiers cannot label the subject: give it by a column")
    check_readers(settings.classifiers, ())
    return load_readers(settings.classifiers, tuple(setup.attributes), setup, "label.classifiers")


def label(
    rows: Iterator[Row],
    again: Iterator[Row],
    readers: Sequence[Reader],
    floor: float,
    setup: Setup,
) -> Iterator[Row]:
    """The rows with what classifiers say of their unknown attributes; the same in every process.

    `rows` and `again` are the same rows: the first is read, then the second is labelled.
    """
    if not readers:
        yield from again
        return
    folder = setup.work / "labels"
    processes = setup.processes
    with tqdm(
        unit="picture", desc="labelling", disable=None if processes.is_first else True
    ) as bar:
        for number, part in enumerate(_parts(rows)):
            if number % processes.count == processes.index:
                _read_part(part, readers, folder)
                bar.update(len(part))
    processes.wait()
    given: Counter[str] = Counter()
    for part in _parts(again):
        said = json.loads(_file(part, readers, folder).read_text("utf-8"))
        for row, own in zip(part, said, strict=True):
            labelled = with_labels(row, own, readers, floor)
            given.update(a for a, value in labelled.labels.items() if value is None)
            yield labelled
    for attribute, count in given.items():
        processes.say(f"labels: {attribute} of {count} pictures stays unknown")


def with_labels(
    row: Row, said: Mapping[str, Sequence[object]], readers: Sequence[Reader], floor: float
) -> Row:
    """The row with the labels of unknown attributes that were read with enough probability."""
    labels, by = dict(row.labels), dict(row.labelled_by)
    for attribute, (value, probability) in said.items():
        if labels.get(attribute, "") is None and float(str(probability)) >= floor:
            labels[attribute] = str(value)
            by[attribute] = next(r.classifier.name for r in readers if attribute in r.attributes)
    return replace(row, labels=labels, labelled_by=by)


def _opened(file: Path) -> NDArray[np.uint8]:
    try:
        return read_picture(file)
    except PictureError as error:
        raise UserError(f"{file} changed since it was looked at ({error}): run again") from None


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rows = iter(rows)
    while part := list(islice(rows, PART)):
        yield part


def _asked(row: Row, reader: Reader) -> list[str]:
    return [a for a, value in row.labels.items() if value is None and a in reader.attributes]


def _file(part: Sequence[Row], readers: Sequence[Reader], folder: Path) -> Path:
    asked = [[row.sha256, [_asked(row, reader) for reader in readers]] for row in part]
    key = hashlib.sha256(json.dumps([asked, [r.identity for r in readers]]).encode()).hexdigest()
    return folder / f"{key[:32]}.json"


def _read_part(part: Sequence[Row], readers: Sequence[Reader], folder: Path) -> None:
    file = _file(part, readers, folder)
    if file.is_file():
        return
    wanted = [n for n, row in enumerate(part) if any(_asked(row, r) for r in readers)]
    images = dict(zip(wanted, ahead(_opened, [part[n].file for n in wanted]), strict=True))
    said: list[Said] = [{} for _ in part]
    for reader in readers:
        mine = [n for n in wanted if _asked(part[n], reader)]
        if not mine:
            continue
        attributes = list(dict.fromkeys(a for n in mine for a in _asked(part[n], reader)))
        readings = reader.classifier.read([images[n] for n in mine], attributes)
        for attribute, reading in readings.items():
            for place, n in enumerate(mine):
                k = int(reading.value_n[place])
                if k >= 0 and attribute in _asked(part[n], reader):
                    probability = float(reading.probability_nk[place, k])
                    said[n][attribute] = (reading.values[k], probability)
    write_json_atomic(file, said)

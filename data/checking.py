"""Does a drawn picture show what was asked? By a classifier, then by the common screening."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from unskew.ahead import ahead
from unskew.attributes import SUBJECT
from unskew.data.build_setup import Setup
from unskew.data.duplicates import Known, Print
from unskew.data.looking import Look, look_at
from unskew.data.screen import ScreenSettings, reason_against
from unskew.data.synthesis_options import SynthesisSettings
from unskew.errors import UserError
from unskew.evaluate.classifiers.loading import check_readers, load_classifier
from unskew.evaluate.classify import ArmPictures, Reader, parts_of, read_part
from unskew.evaluate.generate import Cell

Against = Literal["subject", "value", "screened"]


@dataclass(frozen=True)
class Verdict:
    """What one drawn picture turned out to be."""

    file: Path
    look: Look
    against: Against | None
    """What speaks against it: another subject or none that could be read, another value, or how it
    looks; None where it is as asked."""

    def after(self, known: Known) -> Verdict:
        """The same, where it duplicates none that is known; a good one is known from here on."""
        if self.against is not None:
            return self
        look = self.look
        number = len(known)
        seen = Print(number, look.sha256, look.luminance_hash, look.colours, None)
        return self if known.twin_of(seen) is None else replace(self, against="screened")


def load_checkers(
    settings: SynthesisSettings, attributes: tuple[str, ...], setup: Setup
) -> tuple[Reader, ...]:
    """The classifiers that check these attributes, and the subject where one of them reads it.

    Raises UserError where an attribute has none, unless there is no classifier at all.
    """
    if not settings.classifiers:
        return ()
    check_readers(settings.classifiers, attributes)
    return load_readers(settings.classifiers, attributes, setup, "synthesis.classifiers")


def load_readers(
    classifiers: Mapping[str, Any], attributes: tuple[str, ...], setup: Setup, where: str
) -> tuple[Reader, ...]:
    """Classifiers by name, each asked for those of these attributes, and the subject, it reads."""
    readers = []
    values = {id: setup.attributes[id].values for id in setup.attributes}
    for name, asked in classifiers.items():
        unknown = [a for a in asked.attributes if a != SUBJECT and a not in values]
        if unknown:
            raise UserError(
                f"{where}.{name}.attributes: {unknown[0]} is none of this dataset's "
                f"(allowed: {', '.join((SUBJECT, *values))})"
            )
        try:
            classifier = load_classifier(asked, values, setup.device)
        except UserError as error:
            raise UserError(f"{where}.{name}: {error}") from error
        mine = {a: values.get(a) for a in asked.attributes if a in (SUBJECT, *attributes)}
        depends = [classifier.name, asked.model_dump(mode="json"), mine]
        identity = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
        readers.append(Reader(classifier, mine, identity))
    return tuple(readers)


def check(
    cells: Sequence[Cell],
    folder: Path,
    readers: Sequence[Reader],
    screen: ScreenSettings,
    floor: float,
    setup: Setup,
    kept: Path,
) -> list[Verdict]:
    """One verdict a cell. Processes deal the reading among them; all get the same answer."""
    files = {cell: cell.file(folder) for cell in cells}
    pictures = ArmPictures("drawn", files, {}, {})
    parts = list(parts_of(cells))
    for part in setup.processes.share(parts):
        read_part(pictures, part, readers, kept)
    setup.processes.wait()
    said: dict[Cell, dict[str, tuple[str | None, float]]] = {cell: {} for cell in cells}
    for part in parts:
        by_name = {(cell.prompt.id, cell.seed): cell for cell in part}
        for row in read_part(pictures, part, readers, kept).to_pylist():
            if row["attribute"] is not None:
                cell = by_name[row["prompt_id"], row["seed"]]
                said[cell][row["attribute"]] = (row["value"], max(row["probabilities"] or [0]))
    looks = ahead(look_at, files.values())
    return [
        Verdict(file, look, _against(cell, said[cell], floor, look, screen))
        for (cell, file), look in zip(files.items(), looks, strict=True)
    ]


def _against(
    cell: Cell,
    said: Mapping[str, tuple[str | None, float]],
    floor: float,
    look: Look,
    screen: ScreenSettings,
) -> Against | None:
    for attribute in (SUBJECT, *cell.prompt.attributes):
        if attribute in said:
            value, probability = said[attribute]
            if value != cell.prompt.asked[attribute] or probability < floor:
                return "subject" if attribute == SUBJECT else "value"
    return None if reason_against(look, screen) is None else "screened"

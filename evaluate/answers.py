"""What people answered to a page of pictures: its files, one per rater, in a run's folder.

`sample.json` is drawn once and says what each question is; a file of answers names it by its hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import Field, ValidationError

from unskew.errors import UserError
from unskew.evaluate.schema_model import Model
from unskew.runs import write_json_atomic

SAMPLE = "sample.json"
LARGEST_FILE = 20_000_000
"""Bytes of a file of answers; 100,000 labels have some 3 MB."""


class Answers(Model):
    """One rater's answers. What they are called names their field and files."""

    WHAT: ClassVar[str]
    """One of them: "label"."""
    schema_version: Literal[1]
    run: str
    sample: str
    rater: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    """Lower-case letters, digits and hyphens: it names a file."""

    @property
    def given(self) -> Mapping[str, str | None]:
        """Question's id -> answer."""
        answers: Mapping[str, str | None] = getattr(self, f"{self.WHAT}s")
        return answers


class Drawn(Protocol):
    """A sample that is answered."""

    @property
    def run(self) -> str:
        """Fingerprint of the run that it was drawn from."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """How it was drawn."""

    @property
    def sha256(self) -> str:
        """What a file of answers names it by."""

    @property
    def page(self) -> str:
        """Where its page lies in the run's folder, "calibration/label.html"."""

    @property
    def allowed(self) -> Mapping[str, Sequence[str | None]]:
        """Question's id -> what may be answered."""


A = TypeVar("A", bound=Answers)
S = TypeVar("S", bound=Model)


def load_drawn(file: Path, model: type[S]) -> S | None:
    """A `sample.json`; None where none was drawn. Raises UserError when it is none of ours."""
    if not file.is_file():
        return None
    try:
        return model.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{file} is no sample of ours ({error.error_count()} problems): restore it, or delete "
            f"{file.parent} and begin anew"
        ) from None


def check_drawn_alike(old: Drawn | None, new: Drawn, folder: Path) -> None:
    """Raise UserError, with what differs, where another sample lies in the folder already."""
    if old is None or old == new:
        return
    changed = [
        f"\n  {key}: {old.settings.get(key)} -> {value}"
        for key, value in new.settings.items()
        if old.settings.get(key) != value
    ] or ["\n  the run's pictures or readings"]
    raise UserError(
        f"{folder} holds a sample drawn otherwise (there -> now):{''.join(changed)}\n"
        "Ask for the same again, or delete that folder and begin anew."
    )


def read_answers(file: Path, model: type[A], sample: Drawn) -> A:
    """A rater's file, checked against the sample to the last answer. Raises UserError."""
    one, several = model.WHAT, f"{model.WHAT}s"
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise UserError(f"{file} is larger than {LARGEST_FILE:,} bytes: it holds no {several}")
        loaded = json.loads(file.read_text("utf-8"), object_pairs_hook=_once)
        answers = model.model_validate(loaded)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{file} holds no {several}: {where}: {first['msg']} ({error.error_count()} problems); "
            f"give the file that {sample.page} downloads"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is no JSON of {several}: {error}") from None
    if answers.run != sample.run or answers.sample != sample.sha256:
        raise UserError(
            f"{file} answers another {'run' if answers.run != sample.run else 'sample'} than this "
            f"folder's: give the {several} made with this folder's {sample.page}"
        )
    if not answers.given:
        raise UserError(f"{file} holds no {one} yet: open {sample.page} and answer some first")
    allowed = sample.allowed
    for id, answer in answers.given.items():
        if id not in allowed:
            raise UserError(f"{file}: this sample has no question {id!r}")
        if answer not in allowed[id]:
            words = ", ".join(word for word in allowed[id] if word is not None)
            unsure = ", or null for cannot tell" if None in allowed[id] else ""
            raise UserError(f"{file}: {id} is answered {answer!r} (allowed: {words}{unsure})")
    return answers


def store_answers(files: Sequence[Path], folder: Path, model: type[A], sample: Drawn) -> None:
    """Check every file, then keep each in `folder` under its rater's name.

    Raises UserError, and changes nothing, when one is wrong, when two are of one rater, or when a
    rater's new file lacks answers that the stored one has.
    """
    what = f"{model.WHAT}s"
    read = [read_answers(file, model, sample) for file in files]
    raters = [answers.rater for answers in read]
    if len(set(raters)) < len(raters):
        raise UserError(f"{what}: two files are of one rater ({', '.join(raters)}): rename one")
    stored = [folder / f"{what}-{rater}.json" for rater in raters]
    for answers, file in zip(read, stored, strict=True):
        old = read_answers(file, model, sample).given if file.is_file() else {}
        if lost := set(old) - set(answers.given):
            raise UserError(
                f"{what}: rater {answers.rater!r} has {len(lost)} stored {what} that the new file "
                f"lacks (first: {min(lost)}): merge them, or move {file} away first"
            )
    for answers, file in zip(read, stored, strict=True):
        write_json_atomic(file, answers.model_dump(mode="json"))


def stored_answers(folder: Path, model: type[A], sample: Drawn) -> tuple[A, ...]:
    """Every rater's answers that `folder` keeps, in the order of their names."""
    files = sorted(folder.glob(f"{model.WHAT}s-*.json"))
    return tuple(read_answers(file, model, sample) for file in files)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice!r} stands twice")
    return dict(pairs)

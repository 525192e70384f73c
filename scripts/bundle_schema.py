"""What a bundle's own JSON files say: `bundle.json`, `cells.json` and `checksums.json`."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, ValidationError

from unskew.errors import UserError
from unskew.evaluate.schema_model import Model

BUNDLE_VERSION: Literal[1] = 1
BUNDLE = "bundle.json"
CHECKSUMS = "checksums.json"
CARD = "README.md"
RESULTS = "results.json"
SUMMARY = "summary.md"
TRAINING = "training.json"
GRID = "samples/pairs.png"
CELLS = "cells/cells.json"
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def is_inside(name: str) -> bool:
    """Whether a name from a bundle's file stays inside of the bundle."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _inside(name: str) -> str:
    if not is_inside(name):
        raise ValueError("must be a file inside of the bundle")
    return name


InBundle = Annotated[str, AfterValidator(_inside)]


class BaseFacts(Model):
    """The base that the adapter is for."""

    name: str
    """As a reader finds it: a hub id, or "emoji-world" for the embedded one."""
    id: str
    """What Unskew's `base` takes to get the very one; "" where only its owner has it."""
    revision: str | None
    """Commit on the hub."""
    sha256: Sha256
    """Of its configuration, tokenizers and weights, as `unskew.pipelines.base_sha256` has it."""
    family: Literal["sd", "sdxl"]
    license: str


class DatasetFacts(Model):
    """What the adapter was trained on."""

    sha256: Sha256
    link: str | None
    licenses: tuple[str, ...]
    sources: tuple[str, ...]


class CodeFacts(Model):
    """The code that made it; commits are null where it was an installed package."""

    unskew: Annotated[str, StringConstraints(pattern=r"^[\w.+-]+$")]
    train_commit: str | None
    study_commit: str | None
    versions: dict[str, str]
    """Packages that the training ran with."""


class Measured(Model):
    """Which arm of the study the adapter is."""

    arm: str
    baseline: str
    weight: float


class Widget(Model):
    """A picture of the gallery: left the base's, right the adapter's, from the same noise."""

    text: str
    seed: int
    file: InBundle


class Facts(Model):
    """The whole of `bundle.json`: all that the card says and that no other file does."""

    version: Literal[1] = BUNDLE_VERSION
    card_version: int
    name: str
    license: str
    license_name: str | None
    license_link: str | None
    intended_use: str | None
    attribution: tuple[str, ...]
    attributes: tuple[str, ...]
    base: BaseFacts
    dataset: DatasetFacts
    code: CodeFacts
    adapter_sha256: Sha256
    kohya_sha256: Sha256
    dora: bool
    """Then diffusers and peft alone read the adapter as it was trained."""
    measured: Measured | None
    """Null where no study of this adapter is in the bundle."""
    widgets: tuple[Widget, ...]
    unproven: str | None
    """Why it was published all the same; null where the proof is whole."""
    refusals: tuple[str, ...]
    """What spoke against it; empty where the proof is whole."""


class DrawnCell(Model):
    """A cell of a kept batch, and what each of the two arms drew."""

    prompt_id: str
    text: str
    seed: int
    drawn: dict[str, str]
    """Arm -> the words that were drawn; the noise is that of `text`."""
    sha256: dict[str, Sha256]
    """Arm -> of the study's picture file."""
    reference: dict[str, InBundle]
    """Arm -> its picture in this bundle, small."""


class Cells(Model):
    """The whole of `cells.json`: some of the study's batches, so that they can be drawn again."""

    arms: dict[str, float | None]
    """Arm -> the adapter's weight; null is the bare base."""
    sampler: str
    steps: int
    guidance: float
    negative_prompt: str
    resolution_px: int
    dtype: Literal["fp32", "bf16", "fp16"]
    device: str
    """The kind of device that drew them."""
    reference_px: int
    """Side of the reference pictures."""
    batches: tuple[tuple[DrawnCell, ...], ...]
    """Whole batches as they were drawn: a picture depends a little on its batch."""


class FileSum(Model):
    """One file of a bundle."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0)]


class Checksums(Model):
    """The whole of `checksums.json`: every file of the bundle but this one."""

    version: Literal[1] = BUNDLE_VERSION
    files: dict[InBundle, FileSum]
    """Name in the bundle, with /, -> its hash and size."""


M = TypeVar("M", bound=BaseModel)


def load_part(model: type[M], file: Path) -> M:
    """Read one of a bundle's JSON files. Raises UserError, saying what is wrong where."""
    try:
        return model.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{file.parent} is no whole bundle: it has no {file.name}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{file} is not one of this version: {where}: {first['msg']}") from None


def dumped(model: BaseModel) -> dict[str, Any]:
    """A model as JSON has it."""
    found: dict[str, Any] = model.model_dump(mode="json")
    return found

"""Settings of synthesis: what draws, what checks, and how it stands to what will judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from unskew.errors import UserError
from unskew.evaluate.classifiers.options import ClassifierSettings, ExemplarSettings
from unskew.evaluate.samplers import SamplerName
from unskew.runs import sha256_file
from unskew.settings import Settings, config_path
from unskew.yaml_files import read_yaml

_CLASSIFIERS: TypeAdapter[dict[str, ClassifierSettings]] = TypeAdapter(
    dict[str, ClassifierSettings]
)


class SynthesisSettings(Settings):
    """How the base draws the pictures that are missing."""

    base: str
    """"emoji-world", a folder, a hub's "org/name", or one .safetensors file; best the base that is
    trained then, whose style stays its own."""
    base_revision: str | None = None
    """Of a base on the hub: commit, tag or branch."""
    base_config: Path | None = None
    """Folder with the configuration of a base that is one file."""
    cache: Path = Path("runs/cache")
    """Where a base that is one file is unpacked."""
    sampler: SamplerName = "base"
    """base is the base's own scheduler."""
    steps: Annotated[int, Field(ge=1)] = 30
    """Steps of the sampler."""
    guidance: Annotated[float, Field(ge=1)] = 7.5
    """Classifier-free guidance scale; 1 switches it off."""
    resolution_px: Annotated[int, Field(ge=8, multiple_of=8)] = 512
    """Width and height."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Pictures drawn together. It is part of what makes their bits."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the base; auto takes what the device computes fast and safely."""
    negative_prompt: str = ""
    """Of every picture."""
    first_seed: Annotated[int, Field(ge=0)] = 1_000_000
    """Seeds go up from here; studies use small ones, so none of their noise is trained on."""
    most_tries: Annotated[int, Field(ge=1)] = 100
    """Pictures drawn for one cell at most, whatever it still lacks."""
    when_short: Literal["stop", "leave_out"] = "stop"
    """What becomes of cells that still lack pictures then."""
    classifiers: dict[str, ClassifierSettings] = {}
    """Name -> classifier: do pictures show what was asked? None takes every picture as asked."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The least probability that the checking classifier must give what was asked."""
    judge: str | None = None
    """The YAML of the study that will judge; where its classifier is the one that checks, the build
    and the card say so. null says that nobody looked."""
    license: str = "unknown"
    """Under which the base's pictures may be used; its model card says."""


def said_of_judge(settings: SynthesisSettings) -> list[str]:
    """How each checking classifier stands to the judging ones, in words for the card.

    Raises UserError where the study's file cannot be read.
    """
    if not settings.classifiers:
        return ["no classifier checked what drawn pictures show: their labels are what was asked"]
    if settings.judge is None:
        return ["whether the checking classifier also judges was not looked at: set judge"]
    judging = _judging(settings.judge)
    return [
        f"{name} checks what was drawn; {_relation(one, judging, settings.judge)}"
        for name, one in settings.classifiers.items()
    ]


def _relation(
    one: ClassifierSettings, judging: Mapping[str, ClassifierSettings], where: str
) -> str:
    shared = {name for name, other in judging.items() if _what_reads(one) == _what_reads(other)}
    if shared:
        return (
            f"WARNING: it is the same as {', '.join(sorted(shared))}, which judges in {where}: the "
            "adapter is then judged by what its pictures were chosen by"
        )
    apart: set[str] = set()
    near: set[str] = set()
    for name, other in judging.items():
        if not (isinstance(one, ExemplarSettings) and isinstance(other, ExemplarSettings)):
            continue
        if _exemplars(one.folder) == _exemplars(other.folder):
            disjoint = {one.channels, other.channels} == {"luminance", "chroma"}
            (apart if disjoint else near).add(name)
    if near:
        return (
            f"WARNING: {', '.join(sorted(near))}, which judges in {where}, sees some of what it "
            "sees: let one have the luminance and the other the chroma"
        )
    if apart:
        return f"{', '.join(sorted(apart))}, which judges in {where}, sees disjoint features"
    return f"none that judges in {where} is the same"


def _what_reads(settings: ClassifierSettings) -> dict[str, Any]:
    """All that decides its answers, but not what it is asked or how many at once."""
    said = settings.model_dump(mode="json", exclude={"attributes", "batch"})
    if isinstance(settings, ExemplarSettings):
        said["folder"] = _exemplars(settings.folder)
    return said


def _exemplars(folder: Path) -> str:
    """What tells one folder of exemplars from another: what is in it, else where it is."""
    metadata = folder / "metadata.jsonl"
    return sha256_file(metadata) if metadata.is_file() else str(folder.resolve())


def _judging(judge: str) -> dict[str, ClassifierSettings]:
    file = Path(judge) if Path(judge).is_file() else config_path(judge)
    table = read_yaml(file, "judge")
    classifiers = table.get("classifiers") if isinstance(table, dict) else None
    try:
        return _CLASSIFIERS.validate_python(classifiers or {})
    except ValidationError as error:
        raise UserError(
            f"synthesis.judge {judge}: its classifiers cannot be read "
            f"({error.error_count()} problems): give the YAML of a study that runs"
        ) from None

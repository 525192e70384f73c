"""What a study is asked for: the settings of `unskew audit` and `unskew evaluate`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from unskew.evaluate.classifiers.options import ClassifierSettings
from unskew.evaluate.gate_schema import GateSettings
from unskew.evaluate.measuring_options import AgreementSettings, FeatureSettings
from unskew.evaluate.naming import check_names
from unskew.evaluate.schema_model import Margins
from unskew.settings import Settings

SamplerName = Literal[
    "base",
    "ddim",
    "dpm++_2m",
    "dpm++_2m_karras",
    "dpm++_2m_sde",
    "euler",
    "euler_a",
    "heun",
    "pndm",
    "unipc",
]
ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))}
"""Names that Windows gives to devices, so that no folder may bear them there."""
WORDS = "{prompt}"
"""What stands for the prompt in a rewrite."""
OF_DRAWING = ("adapter", "adapters", "rewrite", "negative_prompt")
OF_READING = tuple(
    f"{part}{name}" for part in ("", "inputs.") for name in ("classifiers", "features", "agreement")
)
"""Settings and inputs that change no picture: with `relabel` they may differ from before."""


class AdapterSettings(Settings):
    """One of several adapters that an arm has on at once."""

    adapter: Path
    """Folder with pytorch_lora_weights.safetensors, or the file itself."""
    weight: float = 1.0
    """Multiplies the adapter's own scale; 0 must change nothing."""


class ArmSettings(Settings):
    """One thing under test: the base, perhaps with adapters or other words, or a folder."""

    adapter: Path | None = None
    """Folder with pytorch_lora_weights.safetensors, or the file itself; none is the bare base."""
    weight: float = 1.0
    """Multiplies the adapter's own scale; 0 must change nothing."""
    adapters: tuple[AdapterSettings, ...] = ()
    """Several adapters on at once, in place of `adapter`."""
    rewrite: str | dict[str, str] | None = None
    """What is drawn in place of each prompt: a text in which {prompt} stands for it, or a mapping
    from a prompt's words or id to others. The noise stays that of the prompt as it was."""
    negative_prompt: str | None = None
    """Of this arm alone; null is the study's."""
    folder: Path | None = None
    """Pictures made elsewhere: then nothing is drawn for this arm. Read in place, never changed."""
    names: str = "{prompt_id}/{seed}"
    """How its pictures are named, with or without their ending: {prompt_id}, {subject}, {suite},
    {seed} or {seed:04}. Not used where there is a metadata file."""
    metadata: Path | None = None
    """A .jsonl or .csv file inside the folder with a row a picture: file_name, seed, and prompt_id
    or prompt. Null is metadata.jsonl or metadata.csv where there is one."""

    @field_validator("names")
    @classmethod
    def _check_names(cls, names: str) -> str:
        return check_names(names)

    @model_validator(mode="after")
    def _check_one_way(self) -> Self:
        if self.adapter is not None and self.adapters:
            raise ValueError("give adapter, or several as adapters, not both")
        drawn = [name for name in OF_DRAWING if getattr(self, name) not in (None, ())]
        if self.folder is not None and drawn:
            raise ValueError(
                f"an arm with a folder is not drawn, so it may have no {' or '.join(drawn)}"
            )
        if self.folder is None and self.metadata is not None:
            raise ValueError("metadata is for an arm with a folder")
        if isinstance(self.rewrite, str) and WORDS not in self.rewrite:
            raise ValueError(f"rewrite must hold {WORDS}, else every prompt becomes the same")
        return self

    def worn(self) -> tuple[AdapterSettings, ...]:
        """The adapters that are on in this arm."""
        if self.adapter is None:
            return self.adapters
        return (AdapterSettings(adapter=self.adapter, weight=self.weight),)

    def rewritten(self, prompt_id: str, text: str) -> str:
        """The words that are drawn for a prompt in this arm."""
        if isinstance(self.rewrite, str):
            return self.rewrite.replace(WORDS, text)
        new = self.rewrite or {}
        return new.get(prompt_id, new.get(text, text))


class SuiteSettings(Settings):
    """How much of a suite is drawn."""

    seeds: Annotated[int, Field(ge=2)] = 20
    """Pictures a prompt; an unbiased imbalance needs at least 2."""
    first_seed: Annotated[int, Field(ge=0)] = 0
    """The seeds are this one and those after it; other than 0 for pictures made elsewhere."""
    prompts: Annotated[int, Field(ge=0)] = 0
    """How many of its prompts, evenly spaced; 0 is all."""


class StudySettings(Settings):
    """What is compared with what, on which prompts, and how it is judged."""

    base: str = "emoji-world"
    """A diffusers folder; "emoji-world" for the embedded base; a hub's "org/name"; or a single
    .safetensors file with the whole model, which needs base_config. Not read where every arm is a
    folder."""
    base_revision: str | None = None
    """Commit, tag or branch of a base on the hub; null is its main branch."""
    base_config: Path | None = None
    """Of a single-file base: a diffusers folder that says how it is put together."""
    cache: Path = Path("runs/cache")
    """Where a single-file base is unpacked, once."""
    arms: dict[str, ArmSettings]
    """Name -> arm; the first is the baseline that the others are compared with."""
    prompts: Path | tuple[Path, ...] = Path("prompts/emoji.yaml")
    """A prompt file, or several; one that does not exist is looked up in Unskew's configs."""
    suites: dict[str, SuiteSettings]
    """Suite name -> how much of it is drawn."""
    targets: dict[str, dict[str, float]] = {}
    """Wanted shares: "attribute" or "attribute@suite" -> value -> share. One for a suite replaces
    what its prompt file says; one for an attribute holds where that says nothing."""
    primaries: tuple[str, ...] = ()
    """The declared primary comparisons, "attribute@suite"; Holm's correction runs over these."""
    intersections: tuple[tuple[str, ...], ...] = ()
    """Attributes that are also judged together, as all combinations of their values, such as
    [[presentation, skin_tone]]; each is then called by its names with + between them."""
    classifiers: dict[str, ClassifierSettings]
    """Name -> a reader of attributes; each attribute that is measured has exactly one."""
    features: FeatureSettings = FeatureSettings()
    """What drift of control pictures is measured in."""
    agreement: AgreementSettings = AgreementSettings()
    """Whether, and by what, it is measured how near pictures are to their prompts."""
    sampler: SamplerName = "base"
    """How noise becomes a picture; base is the base's own. Every drawn arm has the same."""
    steps: Annotated[int, Field(ge=1)] = 12
    """Denoising steps a picture."""
    guidance: Annotated[float, Field(ge=1)] = 2.0
    """Classifier-free guidance scale; 1 switches it off."""
    negative_prompt: str = ""
    """What guidance leads away from."""
    resolution_px: Annotated[int, Field(ge=8)] = 64
    """Side of the square pictures."""
    batch: Annotated[int, Field(ge=1)] = 64
    """Cells drawn together; part of what makes a picture."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of drawing; auto takes what this device computes fast and safely."""
    broken: Literal["stop", "unreadable"] = "stop"
    """Pictures made elsewhere that cannot be opened, or are too large: end at once and name them,
    or count them as unreadable."""
    relabel: bool = False
    """Read the pictures of this folder with other classifiers, features or model of agreement than
    before; nothing is redrawn."""
    margins: Margins = Margins()
    """How small a change counts as none; set before the study, stored with the results."""
    gate: GateSettings = GateSettings()
    """What must hold for exit code 0. A list of comparisons, "attribute@suite", asks that each be
    improved."""
    out: Path = Path("runs/emoji-study")
    """The study's folder; the same command again draws only what is missing."""
    attribution: tuple[str, ...] = ()
    """Lines of attribution that the report ends with."""

    @field_validator("gate", mode="before")
    @classmethod
    def _improved(cls, gate: object) -> object:
        if isinstance(gate, list | tuple):
            return {"comparisons": {str(entry): {"improved": True} for entry in gate}}
        return gate

    @field_validator("arms")
    @classmethod
    def _check_arms(cls, arms: dict[str, ArmSettings]) -> dict[str, ArmSettings]:
        for name in arms:
            if not ARM_NAME.fullmatch(name) or name.lower() in RESERVED:
                raise ValueError(
                    f"{name[:80]!r} cannot name an arm, for it names a folder: up to 64 letters "
                    "a-z, digits, - and _, a letter or digit first, and no device of Windows"
                )
        folded = [name.lower() for name in arms]
        twice = [name for name in arms if folded.count(name.lower()) > 1]
        if twice:
            raise ValueError(f"{' and '.join(twice)} differ in case only, which some disks ignore")
        return arms

    @property
    def drawn(self) -> dict[str, ArmSettings]:
        """The arms that are drawn here."""
        return {name: arm for name, arm in self.arms.items() if arm.folder is None}

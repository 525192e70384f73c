"""Arms that are drawn: what the base wears, and which words are drawn for a prompt."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from unskew.adapters import adapter_file, load_adapter, weigh
from unskew.errors import UserError
from unskew.evaluate.options import ArmSettings
from unskew.families import Text, family_of
from unskew.pipelines import check_parts
from unskew.prompts import Prompt
from unskew.runs import sha256_file

SHOWN = 5
"""Prompts that a warning names."""
SHOWN_CHARACTERS = 60


def check_arm(name: str, arm: ArmSettings, prompts: Sequence[Prompt]) -> dict[str, str]:
    """sha256 of the adapters that a drawn arm wears, by what a manifest calls them.

    Raises UserError for an adapter that is missing, and for rewrites of prompts that nobody draws.
    """
    inputs = {}
    for number, adapter in enumerate(arm.worn()):
        setting = f"arms.{name}.adapter" if arm.adapter else f"arms.{name}.adapters.{number}"
        file = adapter_file(adapter.adapter)
        if not file.is_file():
            raise UserError(
                f"{setting}: {adapter.adapter} holds no adapter: train one first "
                "(`unskew train`), or give another folder"
            )
        inputs[f"adapter {name}" + (f" {number}" if arm.adapters else "")] = sha256_file(file)
    if isinstance(arm.rewrite, dict):
        known = {key for prompt in prompts for key in (prompt.id, prompt.text)}
        unknown = [key for key in arm.rewrite if key not in known]
        if unknown:
            raise UserError(
                f"arms.{name}.rewrite: no prompt that is drawn has the words or id "
                f"{unknown[0][:SHOWN_CHARACTERS]!r} ({len(unknown)} of {len(arm.rewrite)} have "
                "none): give them as the prompt file does"
            )
    return inputs


def arm_facts(name: str, arm: ArmSettings, inputs: Mapping[str, str]) -> dict[str, Any]:
    """What the results say of a drawn arm."""
    hashes = [sha for key, sha in inputs.items() if key.split(" ")[:2] == ["adapter", name]]
    facts: dict[str, Any] = {}
    if arm.worn():
        facts["adapters"] = [
            {"adapter": str(worn.adapter), "weight": worn.weight, "sha256": sha}
            for worn, sha in zip(arm.worn(), hashes, strict=True)
        ]
    if arm.rewrite is not None:
        facts["rewrite"] = arm.rewrite
    if arm.negative_prompt is not None:
        facts["negative_prompt"] = arm.negative_prompt
    return facts


class Wardrobe:
    """A loaded base and the adapters that arms wear on it: each is read once, then only weighed.

    Between two arms they are switched off, which leaves the base's own bits.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self._names: dict[tuple[Path, int], str] = {}
        self._heard: dict[str, Text] = {}

    @contextmanager
    def wearing(self, arm: ArmSettings) -> Iterator[dict[str, Text]]:
        """The base with an arm's adapters on, each at its weight.

        Yields what captions became in its text encoders: the same for all arms that leave these
        as they are.
        """
        weights = {}
        paths = [worn.adapter for worn in arm.worn()]
        for number, worn in enumerate(arm.worn()):
            twice = paths[:number].count(worn.adapter)  # one file may be on several times
            weights[self._name(worn.adapter, twice)] = worn.weight
        try:
            if weights:
                self.pipe.enable_lora()
                weigh(self.pipe, weights)
            yield {} if self._hears(weights) else self._heard
        finally:
            if weights:
                self.pipe.disable_lora()

    def _name(self, adapter: Path, twice: int) -> str:
        if (adapter, twice) not in self._names:
            name = f"adapter-{len(self._names)}"
            with warnings.catch_warnings():  # peft's, that there will be several: they are meant
                warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
                load_adapter(self.pipe, adapter, name)
            self._names[adapter, twice] = name
        return self._names[adapter, twice]

    def _hears(self, names: Collection[str]) -> bool:
        """Whether any of these adapters changes a text encoder."""
        encoders = [getattr(self.pipe, part) for part in family_of(self.pipe).ENCODERS]
        return any(name in getattr(e, "peft_config", {}) for e in encoders for name in names)


def cut_prompts(
    base: Path, arms: Mapping[str, ArmSettings], prompts: Sequence[Prompt], negative: str
) -> list[str]:
    """Warnings, one an arm, of prompts that are longer than the base's text encoder reads.

    The rest of such a prompt is never heard: what it asks for cannot come, in any arm.
    """
    tokenizers = [
        CLIPTokenizer.from_pretrained(base / part, local_files_only=True)
        for part in check_parts(base).TOKENIZERS
    ]
    limit = min(tokenizer.model_max_length for tokenizer in tokenizers)

    def tokens(text: str) -> int:
        return max(len(t(text, verbose=False).input_ids) for t in tokenizers)

    told: dict[str, list[str]] = {}
    for name, arm in arms.items():
        words = {prompt.id: arm.rewritten(prompt.id, prompt.text) for prompt in prompts}
        words["the negative prompt"] = (
            negative if arm.negative_prompt is None else (arm.negative_prompt)
        )
        cut = [f"{key} ({n} tokens)" for key, text in words.items() if (n := tokens(text)) > limit]
        if cut:
            more = f" and {len(cut) - SHOWN} more" if len(cut) > SHOWN else ""
            said = (
                f"{len(cut)} prompts are longer than the {limit} tokens that the base's text "
                f"encoder reads, and are cut there: {', '.join(cut[:SHOWN])}{more}"
            )
            told.setdefault(said, []).append(name)
    return [f"warning: arms {', '.join(names)}: {said}" for said, names in told.items()]

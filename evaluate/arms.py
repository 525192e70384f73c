"""Arms that are drawn: what the base wears, and which words are drawn for a prompt."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from unskew.adapters import adapter_file, load_adapter, weigh
from unskew.errors import UserError
from unskew.evaluate.options import ArmSettings
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


@contextmanager
def wearing(pipe: Any, name: str, arm: ArmSettings) -> Iterator[None]:
    """The base with an arm's adapters on, each at its weight; the bare base again afterwards."""
    weights: dict[str, float] = {}
    try:
        for number, worn in enumerate(arm.worn()):
            key = f"{name}-{number}"
            with warnings.catch_warnings():  # peft's, that there will be several: they are meant
                warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
                load_adapter(pipe, worn.adapter, key, worn.weight)
            weights[key] = worn.weight
        if len(weights) > 1:
            weigh(pipe, weights)
        yield
    finally:
        if weights:
            pipe.unload_lora_weights()


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

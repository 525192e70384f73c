"""The files of a trained adapter: diffusers' own, and Kohya's for ComfyUI and A1111."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from unskew.adapters import adapter_weights, save_adapter
from unskew.kohya import (
    KOHYA_FILE,
    MODEL_VERSIONS,
    LoraScale,
    kohya_metadata,
    kohya_weights,
    save_kohya,
)
from unskew.train.options import TrainSettings
from unskew.train.training import Training

LOCAL = {
    *("base", "base_revision", "base_config", "dataset", "out", "cache"),
    *("cache_only", "resume", "tracker", "log_every"),
}
"""Settings that say where things lie on this machine, or change nothing of the adapter."""
LOCAL_OF_VALIDATION = {"prompts", "exemplars"}
"""Likewise of validation's, all of which changes nothing where it is off."""


def write_adapter(training: Training, folder: Path, inputs: Mapping[str, str]) -> tuple[Path, ...]:
    """Write both files into `folder`; those that diffusers can load back.

    `inputs` are the manifest's hashes of base and dataset, which go into the headers with the
    settings and Unskew's version. Of DoRA diffusers reads its own file only. Same run, same bytes.
    """
    settings = training.settings
    facts = describe(settings, inputs)
    own = save_adapter(folder, training.models, facts)
    lora = settings.lora
    weights = adapter_weights(training.models)
    parts = dict.fromkeys(key.split(".")[0] for key in weights)
    scales = dict.fromkeys(parts, LoraScale(lora.rank, lora.alpha, lora.use_rslora))
    metadata = kohya_metadata(
        scales,
        version=MODEL_VERSIONS.get(training.pipe.unet.config.cross_attention_dim),
        title=f"unskew {', '.join(settings.attributes)}",
        resolution=(settings.resolution_px, settings.resolution_px),
        prediction_type=training.schedule.config.prediction_type,
    )
    kohya = save_kohya(
        folder / KOHYA_FILE,
        kohya_weights(weights, scales, training.family.NAME),
        {**facts, **metadata},
    )
    return (own,) if lora.use_dora else (own, kohya)


def describe(settings: TrainSettings, inputs: Mapping[str, str]) -> dict[str, str]:
    """Header entries that say what an adapter was made of and how, without any local path."""
    looked_at = LOCAL_OF_VALIDATION if settings.validation.every else True
    left_out = {**dict.fromkeys(LOCAL, True), "validation": looked_at}
    return {
        "unskew_version": version("unskew"),
        "unskew_attributes": ",".join(settings.attributes),
        "unskew_base_sha256": inputs["base"],
        "unskew_dataset_sha256": inputs["dataset"],
        "unskew_settings": json.dumps(
            settings.model_dump(mode="json", exclude=left_out), sort_keys=True
        ),
    }

"""Samplers by name: which of diffusers' schedulers turns noise into a picture."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

from unskew.errors import UserError
from unskew.evaluate.options import SamplerName as SamplerName

KARRAS = {"use_karras_sigmas": True}
SAMPLERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "dpm++_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm++_2m_karras": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", **KARRAS}),
    "dpm++_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
"""Name -> diffusers' class, and what it is told beside what the base's own scheduler says."""
TOLD = ("prediction_type", "rescale_betas_zero_snr", "trained_betas")
"""What a base's scheduler says of how the base was trained; who is deaf to it draws noise."""


def use_sampler(pipe: Any, name: SamplerName) -> None:
    """Give the pipeline this sampler, told of betas, prediction and spacing as the base's own.

    Raises UserError where the base was trained in a way that the sampler cannot follow.
    """
    if name == "base":
        return
    kind, options = SAMPLERS[name]
    scheduler = getattr(diffusers, kind)
    knows = inspect.signature(scheduler.__init__).parameters
    deaf = [key for key in TOLD if pipe.scheduler.config.get(key) and key not in knows]
    if deaf:
        able = [n for n in SAMPLERS if not _deaf(n, deaf)]
        raise UserError(
            f"sampler {name} cannot draw from this base, whose scheduler has {', '.join(deaf)} "
            f"(which {', '.join(able) or 'only base'} can follow): give one of these, or base"
        )
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **options)


def _deaf(name: str, keys: list[str]) -> bool:
    knows = inspect.signature(getattr(diffusers, SAMPLERS[name][0]).__init__).parameters
    return any(key not in knows for key in keys)

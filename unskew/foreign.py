"""LoRA files of others: each module as strong as the file says, whatever its rank and alpha.

diffusers reads Kohya's files for one alpha and one rank. Where these differ between modules it
loses alphas, or sets the strength of one rank for another, so here alpha / rank goes into the
weights, and the configuration says of each module that its scale is 1. Where they do not differ
the weights stay as they are, for in half precision another order of rounding is another picture.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unskew.errors import UserError

_DOWN = ("lora_A.weight", "lora.down.weight", "lora_linear_layer.down.weight")
_OLD_NAMES = re.compile(r"self_attn\.to_(q|k|v|out)_lora\.")


def with_alphas(
    weights: Mapping[str, Tensor], alphas: Mapping[str, float] | None
) -> tuple[dict[str, Tensor], float | None]:
    """The weights by diffusers' names, and the one alpha of a file in which all modules have it.

    Elsewhere None, and alpha / rank is taken into the upper halves, in fp32. Raises UserError for
    an alpha without weights.
    """
    alphas = alphas or {}
    ranks = {t.shape[0] for key, t in weights.items() if key.endswith(_DOWN)}
    downs = sum(key.endswith(_DOWN) for key in weights)
    if len(set(map(float, alphas.values()))) == len(ranks) == 1 and len(alphas) == downs:
        [alpha] = set(map(float, alphas.values()))
        return {new_name(key): tensor for key, tensor in weights.items()}, alpha
    scaled = dict(weights)
    for key, alpha in alphas.items():
        name = key.removesuffix(".alpha")
        down = name if name in weights else f"{name}.lora.down.weight"
        up = down.replace("down.weight", "up.weight")
        if down not in weights or up not in weights:
            raise UserError(f"its alpha {key} belongs to no weights: the file is not whole")
        scaled[up] = weights[up].float() * (float(alpha) / weights[down].shape[0])
    return {new_name(key): tensor for key, tensor in scaled.items()}, None


def new_name(key: str) -> str:
    """The name that diffusers writes today for what it makes of a text encoder's in Kohya's file.

    By its own older name it cannot tell the format of a file that leaves out to_out.
    """
    if not key.startswith("text_encoder"):
        return key
    return _OLD_NAMES.sub(r"self_attn.\1_proj.lora_linear_layer.", key)


def scale_of_one(
    part: str, weights: Mapping[str, Tensor], alpha: float | None = None
) -> dict[str, Any]:
    """The LoRA configuration, as a file of ours has it: of one alpha, or of each module's rank.

    `weights` are those of one part by peft's names, without the part's.
    """
    ranks = {
        key.removesuffix(".lora_A.weight"): tensor.shape[0]
        for key, tensor in weights.items()
        if key.endswith(".lora_A.weight")
    }
    if not ranks:
        return {}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    other = {module: rank for module, rank in ranks.items() if rank != usual}
    config = {
        "r": usual,
        "lora_alpha": usual if alpha is None else alpha,
        "rank_pattern": other,
        "alpha_pattern": other if alpha is None else {},
        "target_modules": sorted(ranks),
        "use_dora": any("lora_magnitude_vector" in key for key in weights),
    }
    return {f"{part}.{name}": value for name, value in config.items()}

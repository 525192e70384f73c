"""Make Emoji World's base model from scratch, measure it with the oracle, and write its card.

    python scripts/make_emoji_world.py                      # all of it; hours on 2 cores
    python scripts/make_emoji_world.py --diffusion-steps 20 --vae-steps 20 --out runs/tiny-base
    python scripts/make_emoji_world.py --assemble           # a base from the newest checkpoint

The same command again goes on from its last checkpoint in `runs/emoji-world`. Seeds are fixed.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
import tyro

from unskew.data.emoji_world.art import drawings
from unskew.data.emoji_world.base_parts import build_scheduler, build_tokenizer
from unskew.data.emoji_world.base_training import (
    BaseSettings,
    load_ema,
    train_diffusion,
    train_vae,
)
from unskew.data.emoji_world.world import BASE_DIR, load_world
from unskew.errors import UserError
from unskew.runs import write_json_atomic
from unskew.scripts.measure_emoji_world import measure, write_card
from unskew.settings import run_program


@dataclass(frozen=True)
class Arguments:
    """Make Emoji World's base model from scratch, and measure it."""

    work: Path = Path("runs/emoji-world")
    """Checkpoints; the same folder again goes on where it stopped."""
    out: Path = BASE_DIR
    """Where the finished diffusers folder goes."""
    vae: Path | None = None
    """A finished autoencoder's folder to take over, such as `data/emoji_world/base/vae`."""
    assemble: bool = False
    """Do not train the diffusion model further: build and measure from its newest checkpoint."""
    measure_seeds: int = 64
    """Pictures a subject for the neutral shares; the other figures take a quarter of it."""
    base: BaseSettings = field(default_factory=BaseSettings)


def main(argv: Sequence[str]) -> int:
    """Train (or go on), save as a Stable Diffusion folder, measure, write the card."""
    arguments = tyro.cli(Arguments, args=list(argv), config=(tyro.conf.OmitArgPrefixes,))
    if arguments.vae and not (arguments.vae / "config.json").is_file():
        raise UserError(f"vae: {arguments.vae} has no config.json: give an autoencoder's folder")
    from diffusers import AutoencoderKL, StableDiffusionPipeline  # slow, and not for --help

    world = load_world()
    art = list(drawings(world))
    work, settings = arguments.work, arguments.base
    tokenizer = build_tokenizer(world, work / "tokenizer")
    if arguments.vae:
        vae = AutoencoderKL.from_pretrained(arguments.vae, torch_dtype=torch.float32).eval()
    else:
        vae = train_vae(np.stack([d.image for d in art]), settings, work)
    vae.half().float()  # the UNet learns the latents of the weights that are shipped
    if arguments.assemble:
        steps, text_encoder, unet = load_ema(tokenizer, settings, work)
    else:
        steps = settings.diffusion_steps + settings.settle_steps
        text_encoder, unet = train_diffusion(world, art, vae, tokenizer, settings, work)
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(dtype=torch.float16)
    pipe.save_pretrained(arguments.out, safe_serialization=True)
    for name in ("vocab.json", "merges.txt"):  # CLIP's own files, for loaders that want them
        shutil.copyfile(work / "tokenizer" / name, arguments.out / "tokenizer" / name)
    figures = measure(arguments.out, arguments.measure_seeds)
    trained = {f.name: getattr(settings, f.name) for f in fields(settings)}
    write_json_atomic(
        arguments.out / "figures.json", {**figures, "settings": {**trained, "steps_done": steps}}
    )
    write_card(arguments.out)
    print(json.dumps(figures["summary"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

"""Training Emoji World's base from scratch: tokenizer, autoencoder, then text model and UNet.

Every stage writes checkpoints into a work folder and goes on from the newest one. What a step
draws is a function of (seed, step), so a stopped run ends in the same place.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from unskew.data.emoji_world.art import Drawing
from unskew.data.emoji_world.base_parts import build_scheduler, build_text_and_unet, build_vae
from unskew.data.emoji_world.world import Control, Scene, Subject, World, describe
from unskew.errors import UserError

# Shape legend: b batch, c latent channels, h w latent height and width, l tokens, d text width


@dataclass(frozen=True)
class BaseSettings:
    """How the base is trained; the defaults made the weights that are shipped."""

    seed: int = 7
    vae_steps: int = 1400
    vae_batch: int = 32
    diffusion_steps: int = 3000
    batch: int = 64
    learning_rate: float = 1e-3
    decay_share: float = 0.25
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    ema_decay: float = 0.998
    high_noise_share: float = 0.5
    """Share of examples drawn from the timesteps over 700; the rest from all of them."""
    explicit_share: float = 0.7
    """Share of person and scene captions that name a value, drawn uniformly over the values."""
    last_explicit_share: float = 0.3
    """The same while the learning rate falls: explicit words are followed by then, and the planted
    rates need neutral captions, or the leading value is drawn too often."""
    settle_steps: int = 600
    """Steps after that, from the averaged weights, which learn the planted rates; 0 for none."""
    settle_learning_rate: float = 5e-4
    settle_explicit_share: float = 0.15
    settle_high_noise_share: float = 0.8
    """Of the same timesteps over 700, where a picture's values are decided."""
    caption_dropout: float = 0.1
    checkpoint_every: int = 250


def train_vae(art: NDArray[np.uint8], settings: BaseSettings, work: Path) -> AutoencoderKL:
    """Fit the autoencoder to the world's pictures: L1 + MSE, a touch of KL."""
    vae = build_vae(settings.seed)
    images_bchw = to_minus_one_to_one(art)
    steps = settings.vae_steps

    def loss(x: Tensor, generator: torch.Generator) -> Tensor:
        posterior = vae.encode(x).latent_dist
        z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        kl = posterior.kl().mean() / x[0].numel()
        value: Tensor = _distance(vae.decode(z).sample, x) + 2e-3 * kl
        return value

    _fit_pictures(
        vae, list(vae.parameters()), images_bchw, loss, steps, 2e-3, settings, work / "vae"
    )
    vae.register_to_config(scaling_factor=float(1 / _means(vae, images_bchw).std()))
    return vae.eval()


def to_minus_one_to_one(art: NDArray[np.uint8]) -> Tensor:
    """(n, h, w, 3) uint8 to (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(art).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _distance(predicted: Tensor, wanted: Tensor) -> Tensor:
    error = predicted.float() - wanted
    return error.abs().mean() + error.square().mean()


def _means(vae: AutoencoderKL, images_bchw: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([vae.encode(part).latent_dist.mean for part in images_bchw.split(64)])


def _fit_pictures(
    vae: AutoencoderKL,
    parameters: list[torch.nn.Parameter],
    images_bchw: Tensor,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    steps: int,
    peak_rate: float,
    settings: BaseSettings,
    folder: Path,
) -> None:
    vae.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(parameters, lr=1.0, weight_decay=1e-4)

    def step(number: int) -> float:
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + number)
        rows = torch.randint(len(images_bchw), (settings.vae_batch,), generator=generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(images_bchw[rows].to(memory_format=torch.channels_last), generator)
        _update(optimizer, parameters, value, peak_rate * _warm_cosine(number, steps))
        return float(value.detach())

    _run_steps(
        folder, steps, settings.checkpoint_every, {"model": vae, "optimizer": optimizer}, step
    )


class CaptionedDeck:
    """Draws (drawing, caption) pairs at the world's planted rates."""

    def __init__(self, world: World, art: list[Drawing], settings: BaseSettings) -> None:
        self.world, self.settings = world, settings
        self.rows: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for row, drawing in enumerate(art):
            key = (drawing.thing.id, tuple(drawing.values.values()))
            self.rows.setdefault(key, []).append(row)

    def draw(self, rng: np.random.Generator, explicit_share: float) -> tuple[int, str]:
        """One example: the row of a drawing, and a caption ("" when it is dropped).

        `explicit_share` of the captions of people and scenes name a value.
        """
        world = self.world
        kind = rng.random()
        things: tuple[Subject | Scene | Control, ...] = (
            world.controls if kind < 0.12 else world.scenes if kind < 0.20 else world.subjects
        )
        thing = things[rng.integers(len(things))]
        attributes = world.attributes_of(thing)
        named = self._named(rng, attributes, explicit_share)
        values = []
        for attribute in attributes:
            shares = None if attribute in named else thing.shares[attribute]  # type: ignore[union-attr]
            values.append(str(rng.choice(list(world.values[attribute]), p=shares)))
        rows = self.rows[thing.id, tuple(values)]
        row = rows[rng.integers(len(rows))]
        if rng.random() < self.settings.caption_dropout:
            return row, ""
        templates = (*world.plain_templates, *world.contextual_templates)
        spelt = {a: v for a, v in zip(attributes, values, strict=True) if a in named}
        phrase = describe(thing, spelt, world.values)
        return row, templates[rng.integers(len(templates))].format(x=phrase)

    def _named(
        self, rng: np.random.Generator, attributes: tuple[str, ...], explicit_share: float
    ) -> set[str]:
        """Which attributes the caption names: none, or any non-empty subset of them."""
        if not attributes or rng.random() >= explicit_share:
            return set()
        subset = rng.integers(1, 2 ** len(attributes))
        return {a for bit, a in enumerate(attributes) if subset >> bit & 1}


def train_diffusion(
    world: World,
    art: list[Drawing],
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    settings: BaseSettings,
    work: Path,
) -> tuple[CLIPTextModel, UNet2DConditionModel]:
    """Train text model and UNet together, then settle them; returns their moving averages."""
    text_encoder, unet = build_text_and_unet(tokenizer, settings.seed)
    unet.to(memory_format=torch.channels_last)
    parts = to_minus_one_to_one(np.stack([d.image for d in art])).split(64)
    with torch.no_grad():
        posteriors = [vae.encode(part).latent_dist for part in parts]
    mean_nchw = torch.cat([p.mean for p in posteriors]) * vae.config.scaling_factor
    std_nchw = torch.cat([p.std for p in posteriors]) * vae.config.scaling_factor
    deck = CaptionedDeck(world, art, settings)
    for stage in _stages(settings):
        _fit_stage(stage, text_encoder, unet, tokenizer, deck, mean_nchw, std_nchw, settings, work)
    return text_encoder.eval(), unet.eval()


@dataclass(frozen=True)
class _Stage:
    """A stretch of training with an optimizer and averages of its own."""

    name: str
    steps: int
    first: int
    """Steps of the stages before it: no step draws what another one drew."""
    learning_rate: float
    decay_share: float
    warm_up: int
    explicit_share: float
    last_explicit_share: float
    high_noise_share: float
    ema_decay: float


def _stages(settings: BaseSettings) -> tuple[_Stage, ...]:
    learning = _Stage(
        name="diffusion",
        steps=settings.diffusion_steps,
        first=0,
        learning_rate=settings.learning_rate,
        decay_share=settings.decay_share,
        warm_up=200,
        explicit_share=settings.explicit_share,
        last_explicit_share=settings.last_explicit_share,
        high_noise_share=settings.high_noise_share,
        ema_decay=settings.ema_decay,
    )
    settling = _Stage(
        name="settle",
        steps=settings.settle_steps,
        first=settings.diffusion_steps,
        learning_rate=settings.settle_learning_rate,
        decay_share=1.0,
        warm_up=20,
        explicit_share=settings.settle_explicit_share,
        last_explicit_share=settings.settle_explicit_share,
        high_noise_share=settings.settle_high_noise_share,
        ema_decay=0.99,
    )
    return (learning, settling) if settling.steps else (learning,)


def _fit_stage(
    stage: _Stage,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    tokenizer: CLIPTokenizer,
    deck: CaptionedDeck,
    mean_nchw: Tensor,
    std_nchw: Tensor,
    settings: BaseSettings,
    work: Path,
) -> None:
    """Run one stage and leave its moving averages in the two models."""
    both = torch.nn.ModuleDict({"text_encoder": text_encoder, "unet": unet})
    parameters = list(both.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1.0, weight_decay=1e-2, betas=(0.9, 0.99))
    ema = EMAModel(parameters, decay=stage.ema_decay, use_ema_warmup=False, foreach=True)
    noise_schedule = build_scheduler()

    def step(number: int) -> float:
        rng = np.random.default_rng([settings.seed, stage.first + number])
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + stage.first + number)
        falling = number >= (1 - stage.decay_share) * stage.steps
        explicit = stage.last_explicit_share if falling else stage.explicit_share
        drawn = (deck.draw(rng, explicit) for _ in range(settings.batch))
        rows, captions = zip(*drawn, strict=True)
        index = torch.tensor(rows)
        tokens_bl = tokenizer(
            list(captions), padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        shape = (settings.batch, *mean_nchw.shape[1:])
        latents = mean_nchw[index] + std_nchw[index] * torch.randn(shape, generator=generator)
        noise = torch.randn(shape, generator=generator)
        t_b = torch.randint(1000, (settings.batch,), generator=generator)
        high = torch.rand(settings.batch, generator=generator) < stage.high_noise_share
        t_b = torch.where(high, 700 + t_b * 300 // 1000, t_b)
        noisy = noise_schedule.add_noise(latents, noise, t_b)
        target = noise_schedule.get_velocity(latents, noise, t_b)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states_bld = text_encoder(tokens_bl).last_hidden_state
            predicted = unet(noisy.to(memory_format=torch.channels_last), t_b, states_bld).sample
        loss = F.mse_loss(predicted.float(), target)
        share = _warm_flat_fall(number, stage.steps, stage.decay_share, stage.warm_up)
        _update(optimizer, parameters, loss, stage.learning_rate * share)
        ema.step(parameters)
        return float(loss.detach())

    state = {"model": both, "optimizer": optimizer, "ema": ema}
    _run_steps(work / stage.name, stage.steps, settings.checkpoint_every, state, step)
    ema.copy_to(parameters)


def load_ema(
    tokenizer: CLIPTokenizer, settings: BaseSettings, work: Path
) -> tuple[int, CLIPTextModel, UNet2DConditionModel]:
    """Steps done, text model and UNet from the averages in the newest checkpoint.

    Raises UserError when there is no checkpoint.
    """
    text_encoder, unet = build_text_and_unet(tokenizer, settings.seed)
    both = torch.nn.ModuleDict({"text_encoder": text_encoder, "unet": unet})
    files = [(work / stage.name / "checkpoint.pt", stage.first) for stage in _stages(settings)]
    there = [(file, first) for file, first in files if file.exists()]
    if not there:
        raise UserError(
            f"work: no checkpoint in {files[0][0].parent}: train without assemble first"
        )
    file, before = there[-1]
    saved = torch.load(file, weights_only=True)
    with torch.no_grad():
        for parameter, average in zip(
            both.parameters(), saved["ema"]["shadow_params"], strict=True
        ):
            parameter.copy_(average)
    return before + int(saved["step"]), text_encoder.eval(), unet.eval()


def _update(
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    loss: Tensor,
    rate: float,
) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def _warm_cosine(step: int, steps: int, warm_up: int = 100) -> float:
    return min(1.0, (step + 1) / warm_up) * (
        0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))
    )


def _warm_flat_fall(step: int, steps: int, fall_share: float, warm_up: int) -> float:
    fall = (steps - step) / max(1, fall_share * steps)
    return min(1.0, (step + 1) / warm_up, fall)


def _run_steps(
    folder: Path,
    steps: int,
    checkpoint_every: int,
    state: dict[str, Any],
    step: Callable[[int], float],
) -> None:
    """Run `step` for 0..steps-1, going on from the folder's checkpoint and keeping one."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "checkpoint.pt"
    first = 0
    if file.exists():
        saved = torch.load(file, weights_only=True)
        first = saved.pop("step")
        for name, part in state.items():
            part.load_state_dict(saved[name])
    started, losses = time.perf_counter(), []
    for number in range(first, steps):
        losses.append(step(number))
        done = number + 1
        if done % 50 == 0:
            seconds = (time.perf_counter() - started) / (done - first)
            line = {
                "step": done,
                "of": steps,
                "loss": round(sum(losses[-50:]) / len(losses[-50:]), 5),
                "seconds_per_step": round(seconds, 3),
                "eta_minutes": round(seconds * (steps - done) / 60, 1),
            }
            print(f"{folder.name}: {json.dumps(line)}", flush=True)
        if done % checkpoint_every == 0 or done == steps:
            temporary = file.with_suffix(".tmp")
            torch.save({"step": done, **{n: p.state_dict() for n, p in state.items()}}, temporary)
            temporary.replace(file)

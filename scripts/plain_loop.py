"""The common way to train a LoRA, to be measured against: everything is done in every step.

What diffusers' `train_text_to_image_lora.py` and `train_text_to_image_lora_sdxl.py` (0.42) do for a
step with their defaults, without logging, checkpoints and validation: decode and resize pictures in
the training process, encode pictures and captions, noise at a uniform timestep, peft's LoRA as peft
has it, the picture as the target, torch's AdamW, and the loss read back. Rows come in any order,
without regard to what they show. Unlike there, the LoRA's weights are fp32 in bf16 too, as ours
are, and the modules and the schedule of the rate are the caller's, so that both train the same.

Shape legend: b pictures, c latent channels, h w height and width, l tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from peft import LoraConfig
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import Parameter
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from unskew.errors import UserError
from unskew.pipelines import check_base

Section = Callable[[str], AbstractContextManager[None]]
"""A part of a step by its name: "data", "encode", "forward", "backward" or "optimizer"."""
Example = Mapping[str, Any]


def no_section(name: str) -> AbstractContextManager[None]:
    """Nothing is done about parts of a step."""
    return nullcontext()


@dataclass(frozen=True)
class PlainSettings:
    """What a plain loop is given; the rest is as the example scripts have it."""

    base: Path
    resolution_px: int
    batch: int
    dtype: torch.dtype
    """Precision of the frozen parts and of autocast, fp32 or bf16."""
    target_modules: tuple[str, ...]
    """Full names of the UNet's modules that get a LoRA."""
    rank: int
    alpha: float
    learning_rate: float
    weight_decay: float
    clip_norm: float
    seed: int
    workers: int
    """Processes that read pictures; 0, the scripts' default, reads them in the loop."""


@dataclass(frozen=True)
class PlainLoop:
    """A plain loop's parts."""

    settings: PlainSettings
    device: torch.device
    vae: Any
    unet: Any
    encoders: tuple[Any, ...]
    schedule: Any
    parameters: Mapping[str, Parameter]
    """The LoRA's weights by peft's names in the UNet."""
    optimizer: torch.optim.Optimizer
    batches: Iterator[Example]


class Pictures(Dataset[Example]):
    """Rows of (picture, caption), decoded, resized and tokenized whenever they are asked for."""

    def __init__(
        self, rows: Sequence[tuple[Path, str]], resolution_px: int, tokenizers: Sequence[Any]
    ) -> None:
        self.rows, self.side_px, self.tokenizers = rows, resolution_px, tokenizers

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Example:
        file, caption = self.rows[number]
        with Image.open(file) as raw:
            picture = raw.convert("RGB")
        size = (self.side_px, self.side_px)
        framed = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
        pixels_hwc = torch.from_numpy(np.asarray(framed, dtype=np.float32))
        tokens = [
            tokenizer(
                caption,
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids[0]
            for tokenizer in self.tokenizers
        ]
        pixels_chw = pixels_hwc.permute(2, 0, 1).contiguous() / 127.5 - 1
        return {"pixels": pixels_chw, "tokens": tokens, "original_px": picture.size[::-1]}


def load_plain(
    settings: PlainSettings, rows: Sequence[tuple[Path, str]], device: torch.device
) -> PlainLoop:
    """All of the base, and a fresh LoRA on its UNet. Raises UserError for fewer rows than a batch.

    `rows` are each picture's file and caption.
    """
    if len(rows) < settings.batch:
        raise UserError(
            f"the dataset has {len(rows)} rows, fewer than a batch of {settings.batch}: set "
            "batch.size to that or less"
        )
    base, dtype, family = settings.base, settings.dtype, check_base(settings.base)
    classes = (CLIPTextModel, CLIPTextModelWithProjection)
    # SDXL's VAE overflows in half precision: its script leaves it in fp32
    vae_dtype = torch.float32 if family.NAME == "sdxl" else dtype
    parts = [
        _frozen(AutoencoderKL, base / "vae", vae_dtype, device),
        _frozen(UNet2DConditionModel, base / "unet", dtype, device),
        *(
            _frozen(kind, base / name, dtype, device)
            for kind, name in zip(classes, family.ENCODERS, strict=False)
        ),
    ]
    vae, unet, *encoders = parts
    tokenizers = [
        CLIPTokenizer.from_pretrained(base / name, local_files_only=True)
        for name in family.TOKENIZERS
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        unet.add_adapter(
            LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,  # type: ignore[arg-type]
                init_lora_weights="gaussian",
                target_modules=list(settings.target_modules),
            )
        )
    parameters = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
    unet.train()
    return PlainLoop(
        settings=settings,
        device=device,
        vae=vae,
        unet=unet,
        encoders=tuple(encoders),
        schedule=DDIMScheduler.from_pretrained(base / "scheduler", local_files_only=True),
        parameters=parameters,
        optimizer=torch.optim.AdamW(
            list(parameters.values()),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        ),
        batches=_epochs(Pictures(rows, settings.resolution_px, tokenizers), settings),
    )


def plain_step(loop: PlainLoop, rate: float, section: Section = no_section) -> float:
    """One optimizer step at this learning rate; the batch's loss before it."""
    settings = loop.settings
    with section("data"):
        batch = next(loop.batches)
        pixels_bchw = batch["pixels"].to(loop.device)
        tokens = [tokens_bl.to(loop.device) for tokens_bl in batch["tokens"]]
    with section("encode"):
        latents_bchw, told = encode(loop, pixels_bchw, tokens, batch["original_px"])
    with section("forward"):
        loss = loss_of(loop, latents_bchw, told)
        shown = loss.item()
    with section("backward"):
        loss.backward()
    with section("optimizer"):
        torch.nn.utils.clip_grad_norm_(list(loop.parameters.values()), settings.clip_norm)
        for group in loop.optimizer.param_groups:
            group["lr"] = rate
        loop.optimizer.step()
        loop.optimizer.zero_grad()
    return shown


@torch.no_grad()
def encode(
    loop: PlainLoop,
    pixels_bchw: Tensor,
    tokens: Sequence[Tensor],
    original_px: Sequence[tuple[int, int]],
) -> tuple[Tensor, dict[str, Any]]:
    """(b, c, h, w) latents of the pictures, and what the UNet is told of captions and sizes."""
    dtype = loop.settings.dtype
    posterior = loop.vae.encode(pixels_bchw.to(loop.vae.dtype)).latent_dist
    latents_bchw = (posterior.sample() * loop.vae.config.scaling_factor).to(dtype)
    if len(loop.encoders) == 1:
        return latents_bchw, {"encoder_hidden_states": loop.encoders[0](tokens[0])[0]}
    answers = [
        encoder(tokens_bl, output_hidden_states=True)
        for encoder, tokens_bl in zip(loop.encoders, tokens, strict=True)
    ]
    side = loop.settings.resolution_px
    sizes = [[*original, 0, 0, side, side] for original in original_px]
    return latents_bchw, {
        "encoder_hidden_states": torch.cat([a.hidden_states[-2] for a in answers], dim=-1),
        "added_cond_kwargs": {
            "text_embeds": answers[1].text_embeds,
            "time_ids": torch.tensor(sizes).to(loop.device, dtype=dtype),
        },
    }


def loss_of(loop: PlainLoop, latents_bchw: Tensor, told: Mapping[str, Any]) -> Tensor:
    """Mean squared error of the UNet's prediction at fresh noise and uniform timesteps."""
    schedule = loop.schedule
    noise_bchw = torch.randn_like(latents_bchw)
    steps = schedule.config.num_train_timesteps
    timesteps_b = torch.randint(0, steps, (len(latents_bchw),), device=loop.device)
    noisy_bchw = schedule.add_noise(latents_bchw, noise_bchw, timesteps_b)
    target_bchw = noise_bchw
    if schedule.config.prediction_type == "v_prediction":
        target_bchw = schedule.get_velocity(latents_bchw, noise_bchw, timesteps_b)
    half = loop.settings.dtype == torch.bfloat16
    with torch.autocast(loop.device.type, torch.bfloat16, enabled=half):
        predicted_bchw = loop.unet(noisy_bchw, timesteps_b, **told).sample
    return F.mse_loss(predicted_bchw.float(), target_bchw.float())


def _frozen(kind: Any, folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    model = kind.from_pretrained(
        folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True
    )
    return model.requires_grad_(False).to(device)


def _epochs(pictures: Pictures, settings: PlainSettings) -> Iterator[Example]:
    """Shuffled batches without end. A last one that is not full is left out: it would cost less."""
    loader = DataLoader(
        pictures,
        batch_size=settings.batch,
        shuffle=True,
        drop_last=True,
        collate_fn=_collate,
        num_workers=settings.workers,
        generator=torch.Generator().manual_seed(settings.seed),
    )
    while True:
        yield from loader


def _collate(examples: Sequence[Example]) -> Example:
    return {
        "pixels": torch.stack([example["pixels"] for example in examples]),
        "tokens": [
            torch.stack(some) for some in zip(*(e["tokens"] for e in examples), strict=True)
        ],
        "original_px": [example["original_px"] for example in examples],
    }

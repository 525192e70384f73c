"""What Emoji World's base is made of: its tokenizer, its models, untrained, and its schedule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from unskew.data.emoji_world.art import RESOLUTION_PX
from unskew.data.emoji_world.world import Control, Scene, Subject, World, describe

LATENT_CHANNELS = 8
TEXT_WIDTH = 128
TOKENS = 24


def build_tokenizer(world: World, folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer whose vocabulary is learnt on the world's captions, or the folder's own."""
    if (folder / "vocab.json").exists():  # what a half-trained text model has learnt stays its own
        kept: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=TOKENS)
        return kept
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""),
                behavior="removed",
                invert=True,
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        initial_alphabet=alphabet,
        # The word-ending letters are listed, because the trainer numbers them in hash order
        special_tokens=["<|startoftext|>", "<|endoftext|>", *(f"{c}</w>" for c in alphabet)],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(sorted(set(every_caption(world))), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    bpe.model.save(str(folder))
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TOKENS
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def every_caption(world: World) -> Iterator[str]:
    """Every caption the base can see, each once."""
    for thing in world.things:
        for named in _named_sets(world, thing):
            phrase = describe(thing, named, world.values)
            for template in (*world.plain_templates, *world.contextual_templates):
                yield template.format(x=phrase)


def _named_sets(world: World, thing: Subject | Scene | Control) -> Iterator[dict[str, str]]:
    sets: list[dict[str, str]] = [{}]
    for attribute in world.attributes_of(thing):
        sets += [{**s, attribute: value} for s in sets for value in world.values[attribute]]
    yield from sets


def build_vae(seed: int) -> AutoencoderKL:
    """A fresh autoencoder: 64 px to (8, 8, 8) latents."""
    torch.manual_seed(seed)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 64, 96),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=RESOLUTION_PX,
    )


def build_text_and_unet(
    tokenizer: CLIPTokenizer, seed: int
) -> tuple[CLIPTextModel, UNet2DConditionModel]:
    """Fresh text model (3 layers) and UNet (two levels, cross-attention on both)."""
    torch.manual_seed(seed + 1)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=RESOLUTION_PX // 8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(128, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,  # the number of heads: diffusers keeps the old name
        norm_num_groups=16,
    )
    return text_encoder, unet


def build_scheduler() -> DDIMScheduler:
    """DDIM, v-prediction, zero terminal SNR with trailing timesteps (Lin et al. 2024).

    At any other schedule the mean colour of a small latent is still readable in the "pure" noise,
    so the noise and not the caption decides presentation and tone.
    """
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )

"""Kohya's file says to those who read it by Kohya's rules what was trained, as strong as it was."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Module
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from unskew.adapters import TARGET_PRESETS
from unskew.errors import UserError
from unskew.kohya import (
    KOHYA_FILE,
    MODEL_VERSIONS,
    Base,
    LoraScale,
    kohya_metadata,
    kohya_weights,
    save_kohya,
)
from unskew.pipelines import load_base

ORACLES = Path(__file__).parents[1] / "oracles"
reader = SimpleNamespace(**runpy.run_path(str(ORACLES / "kohya_reader.py")))

RANK, ALPHA = 3, 7.0
UNET_ENDS = TARGET_PRESETS["with_convolutions"]
TEXT_ENDS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "text_projection")
DESCRIPTION: dict[str, Any] = {
    "version": "sd_v1",
    "title": "doctors",
    "resolution": (512, 768),
    "prediction_type": "epsilon",
}
Models = dict[str, Module]


def bare(base: Base, tiny_base: Path) -> Models:
    """The models of a base, always of the same random weights."""
    if base == "sd":
        pipe = load_base(tiny_base, torch.device("cpu"), torch.float32)
        return {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2),
            attention_head_dim=(2, 4),
            cross_attention_dim=32,
            use_linear_projection=True,
            norm_num_groups=4,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + 12,
        )
        text = CLIPTextConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=24,
            projection_dim=12,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=24,
            bos_token_id=37,
            eos_token_id=38,
            pad_token_id=39,
        )
        encoders = {
            "text_encoder": CLIPTextModel(text),
            "text_encoder_2": CLIPTextModelWithProjection(text),
        }
    return {"unet": unet.eval(), **{name: encoder.eval() for name, encoder in encoders.items()}}


def trained(base: Base, tiny_base: Path, **kind: bool) -> tuple[Models, dict[str, Tensor]]:
    """The same models with a LoRA attached that does something, and the LoRA's weights."""
    models = bare(base, tiny_base)
    weights: dict[str, Tensor] = {}
    torch.manual_seed(6)
    for component, model in models.items():
        ends = UNET_ENDS if component == "unet" else TEXT_ENDS
        names = [name for name, _ in model.named_modules() if name.endswith(ends)]
        names = [name for name in names if hasattr(model.get_submodule(name), "weight")]
        model.add_adapter(
            LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=names, **kind), "default"
        )
        for name, parameter in model.named_parameters():
            if "lora_magnitude_vector" in name:
                parameter.data *= 1 + 0.3 * torch.rand_like(parameter)
            elif "lora_" in name:
                parameter.data = 0.2 * torch.randn_like(parameter)
        layers = get_peft_model_state_dict(model, adapter_name="default")
        weights |= {f"{component}.{name}": tensor for name, tensor in layers.items()}
    return models, weights


def scales(models: Mapping[str, object], rslora: bool = False) -> dict[str, LoraScale]:
    return dict.fromkeys(models, LoraScale(RANK, ALPHA, rslora))


def outputs(models: Models) -> list[Tensor]:
    """What the UNet predicts and the text encoders say."""
    generator = torch.Generator().manual_seed(1)
    config: Any = models["unet"].config
    latents = torch.randn(2, config.in_channels, 8, 8, generator=generator)
    states = torch.randn(2, 24, config.cross_attention_dim, generator=generator)
    added = {
        "text_embeds": torch.randn(2, 12, generator=generator),
        "time_ids": torch.tensor([[8.0, 8.0, 0.0, 0.0, 8.0, 8.0]] * 2),
    }
    tokens = torch.randint(30, (2, 24), generator=generator)
    tokens[:, -1] = 38
    with torch.inference_mode():
        found = [
            models["unet"](latents, torch.tensor([1, 900]), states, added_cond_kwargs=added).sample,
            models["text_encoder"](tokens).last_hidden_state,
        ]
        if "text_encoder_2" in models:
            found.append(models["text_encoder_2"](tokens).text_embeds)
    return found


def written(folder: Path, base: Base, weights: dict[str, Tensor], rslora: bool = False) -> Path:
    components = scales({key.split(".")[0]: None for key in weights}, rslora)
    return save_kohya(folder / KOHYA_FILE, kohya_weights(weights, components, base), {})


def read(file: Path, base: Base, tiny_base: Path) -> Models:
    models = bare(base, tiny_base)
    return dict(zip(models, reader.merged(file, *models.values()), strict=True))


def far_apart(ones: list[Tensor], others: list[Tensor]) -> bool:
    return all(float((a - b).abs().max()) > 1e-2 for a, b in zip(ones, others, strict=True))


@pytest.mark.parametrize("kind", ["plain", "rslora", "dora", "rslora dora"])
@pytest.mark.parametrize("base", ["sd", "sdxl"])
def test_a_reader_gets_what_was_trained(
    tiny_base: Path, tmp_path: Path, base: Base, kind: str
) -> None:
    """Merged by Kohya's rules, alpha != rank, UNet and text encoders answer as with peft."""
    options = {f"use_{word}": True for word in kind.split() if word != "plain"}
    models, weights = trained(base, tiny_base, **options)
    file = written(tmp_path, base, weights, rslora="rslora" in kind)
    expected = outputs(models)
    torch.testing.assert_close(outputs(read(file, base, tiny_base)), expected, rtol=1e-4, atol=2e-5)
    assert far_apart(expected, outputs(bare(base, tiny_base)))


def test_every_kind_of_layer_is_there(tiny_base: Path, tmp_path: Path) -> None:
    """The files above hold linear layers, convolutions of 1x1 and 3x3, and a text projection."""
    kernels: dict[Base, set[tuple[int, ...]]] = {}
    for base in ("sd", "sdxl"):
        tensors = load_file(written(tmp_path, base, trained(base, tiny_base)[1]))
        downs = {key: tensor for key, tensor in tensors.items() if "lora_down" in key}
        kernels[base] = {tuple(tensor.shape[2:]) for tensor in downs.values()}
    assert kernels["sd"] == kernels["sdxl"] == {(), (1, 1), (3, 3)}
    assert "lora_te2_text_projection.lora_down.weight" in downs


@pytest.mark.parametrize("base", ["sd", "sdxl"])
def test_alpha_for_rank_is_another_strength(tiny_base: Path, tmp_path: Path, base: Base) -> None:
    """Who takes alpha = rank reads something else, so the tests here would see a wrong alpha."""
    models, weights = trained(base, tiny_base)
    file = written(tmp_path, base, weights)
    tensors = load_file(file)
    assert {t.item() for key, t in tensors.items() if key.endswith(".alpha")} == {ALPHA}
    wrong = {k: torch.tensor(float(RANK)) if "alpha" in k else t for k, t in tensors.items()}
    save_file(wrong, file)
    assert far_apart(outputs(read(file, base, tiny_base)), outputs(models))


@pytest.mark.parametrize("change", ["no alpha", "no place", "flat text encoder"])
def test_the_reader_is_strict(tiny_base: Path, tmp_path: Path, change: str) -> None:
    """The oracle refuses what a lenient one would skip: a file it reads has all in place."""
    file = written(tmp_path, "sd", trained("sd", tiny_base)[1])
    tensors = load_file(file)
    if change == "no alpha":
        del tensors[next(key for key in tensors if key.endswith(".alpha"))]
    else:
        old, new = ("_to_q", "_to_x") if change == "no place" else ("_text_model_", "_")
        tensors = {key.replace(old, new): tensor for key, tensor in tensors.items()}
    save_file(tensors, file)
    with pytest.raises(KeyError, match=r"lora_\w+ has"):
        read(file, "sd", tiny_base)


@pytest.mark.parametrize("base", ["sd", "sdxl"])
def test_diffusers_reads_the_file(tiny_base: Path, tmp_path: Path, base: Base) -> None:
    """A plain pipeline that loads it answers as the trained models: UNet and text encoders."""
    models, weights = trained(base, tiny_base)
    written(tmp_path, base, weights)
    loaded = bare(base, tiny_base)
    rest = dict.fromkeys(("vae", "tokenizer", "scheduler"))
    if base == "sd":
        pipe = StableDiffusionPipeline(
            **loaded, **rest, safety_checker=None, feature_extractor=None
        )
    else:
        pipe = StableDiffusionXLPipeline(**loaded, **rest, tokenizer_2=None)
    pipe.load_lora_weights(str(tmp_path), weight_name=KOHYA_FILE, local_files_only=True)
    torch.testing.assert_close(outputs(loaded), outputs(models), rtol=1e-4, atol=2e-5)


def small(*modules: str) -> dict[str, Tensor]:
    """A LoRA of these modules, all linear, 5 in and 4 out."""
    halves = {"lora_A.weight": torch.ones(RANK, 5), "lora_B.weight": torch.ones(4, RANK)}
    return {f"{m}.{half}": tensor.clone() for m in modules for half, tensor in halves.items()}


UNET_QUERY = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
QUERY_NAME = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
FC1 = "encoder.layers.10.mlp.fc1"
FC1_NAME = "text_model_encoder_layers_10_mlp_fc1"


@pytest.mark.parametrize(
    ("base", "module", "name"),
    [
        ("sd", UNET_QUERY, QUERY_NAME),
        ("sdxl", UNET_QUERY, QUERY_NAME),
        ("sd", f"text_encoder.{FC1}", f"lora_te_{FC1_NAME}"),
        ("sd", f"text_encoder.text_model.{FC1}", f"lora_te_{FC1_NAME}"),
        ("sdxl", f"text_encoder.{FC1}", f"lora_te1_{FC1_NAME}"),
        ("sdxl", f"text_encoder_2.text_model.{FC1}", f"lora_te2_{FC1_NAME}"),
        ("sdxl", "text_encoder_2.text_projection", "lora_te2_text_projection"),
    ],
)
def test_names_are_those_that_readers_know(base: Base, module: str, name: str) -> None:
    """lora_te_ for the one encoder, lora_te1_ and lora_te2_ for two; text_model exactly once."""
    found = kohya_weights(small(module), scales({module.split(".")[0]: None}), base)
    parts = ("lora_down.weight", "lora_up.weight", "alpha")
    assert set(found) == {f"{name}.{part}" for part in parts}


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    """Two files of one adapter are equal, whatever order its weights and metadata come in."""
    weights = small(UNET_QUERY, "text_encoder.encoder.layers.0.mlp.fc1")
    metadata = kohya_metadata(scales({"unet": None}), **DESCRIPTION)
    files = []
    for number, step in enumerate((1, -1, 1, -1)):
        found = kohya_weights(
            dict(list(weights.items())[::step]), scales({"text_encoder": 0, "unet": 0}), "sd"
        )
        ordered = dict(list(metadata.items())[::step])
        files.append(save_kohya(tmp_path / str(number) / KOHYA_FILE, found, ordered))
    assert len({file.read_bytes() for file in files}) == 1


def test_metadata_names_the_true_alpha(tmp_path: Path) -> None:
    """The header's rank and alpha are those by which the tensors are scaled, rsLoRA's too."""
    weights = small(UNET_QUERY)
    for scale in (LoraScale(RANK, ALPHA), LoraScale(RANK, ALPHA, rslora=True)):
        tensors = kohya_weights(weights, {"unet": scale}, "sd")
        file = save_kohya(
            tmp_path / KOHYA_FILE, tensors, kohya_metadata({"unet": scale}, **DESCRIPTION)
        )
        with safetensors.safe_open(file, "pt") as opened:
            header = opened.metadata()
        alpha = next(t for key, t in tensors.items() if key.endswith(".alpha"))
        assert header["ss_network_dim"] == str(RANK)
        assert float(header["ss_network_alpha"]) == pytest.approx(alpha.item())
    assert alpha.item() == pytest.approx(ALPHA * RANK**0.5)
    mixed = {"unet": LoraScale(RANK, ALPHA), "text_encoder": LoraScale(RANK, 1)}
    assert kohya_metadata(mixed, **DESCRIPTION)["ss_network_alpha"] == "Dynamic"


@pytest.mark.parametrize(
    ("width", "prediction_type", "version", "v2", "architecture"),
    [
        (768, "epsilon", "sd_v1", "False", "stable-diffusion-v1/lora"),
        (1024, "epsilon", "sd_v2", "True", "stable-diffusion-v2-512/lora"),
        (1024, "v_prediction", "sd_v2_v", "True", "stable-diffusion-v2-768-v/lora"),
        (2048, "epsilon", "sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base/lora"),
        (2048, "v_prediction", "sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base/lora"),
        (16, "epsilon", None, None, None),
    ],
)
def test_metadata_says_what_the_base_is(
    width: int, prediction_type: str, version: str, v2: str, architecture: str
) -> None:
    """By the names of sd-scripts and ModelSpec; of a base that they have no name for, nothing."""
    description = {**DESCRIPTION, "version": MODEL_VERSIONS.get(width)}
    description["prediction_type"] = prediction_type
    found = kohya_metadata(scales({"unet": None}), **description)
    assert found.get("ss_base_model_version") == version
    assert found.get("ss_v2") == v2
    assert found.get("modelspec.architecture") == architecture
    assert found["modelspec.prediction_type"] == prediction_type.removesuffix("_prediction")
    assert found["modelspec.resolution"] == "512x768"
    assert found["modelspec.title"] == "doctors"


def test_metadata_has_a_date_only_when_given() -> None:
    """Without one nothing in the header comes from the clock."""
    assert "modelspec.date" not in kohya_metadata(scales({"unet": None}), **DESCRIPTION)
    dated = kohya_metadata(scales({"unet": None}), **DESCRIPTION, date="2026-11-25")
    assert dated["modelspec.date"] == "2026-11-25"


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ({"unet.a.lora_B.bias": torch.ones(4)}, r"no place for the weight 'unet.a.lora_B.bias'"),
        (small("text_encoder_2.text_projection"), r"base 'sd' .* modules of \['unet'\]"),
        (small("transformer.a"), r"no place for the weight 'transformer.a"),
        ({}, "no weights"),
        ({"unet.a.lora_A.weight": torch.ones(RANK, 5)}, r"unet.a has .* wants lora_A.weight"),
        (small("unet.a") | {"unet.a.lora_A.weight": torch.ones(RANK, 5, 1)}, "unet.a has"),
        (small("unet.a") | {"unet.a.lora_A.weight": torch.ones(2, 5)}, "rank 2 in lora_A and 3"),
        (small("unet.a") | {"unet.a.lora_magnitude_vector": torch.ones(5)}, "5 DoRA magnitudes"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(weights: dict[str, Tensor], match: str) -> None:
    """Nothing of an adapter is left out or bent in silence."""
    with pytest.raises(UserError, match=match):
        kohya_weights(weights, scales({"unet": None}), "sd")


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_is_positive(alpha: float) -> None:
    """Kohya's readers take an alpha of 0 for the rank, which would be full strength."""
    with pytest.raises(UserError, match="alpha must be > 0"):
        kohya_weights(small("unet.a"), {"unet": LoraScale(RANK, alpha)}, "sd")

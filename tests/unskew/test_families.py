"""What every stage takes from a family is what the family's own pipeline does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unskew.adapters import attach, load_adapter, save_adapter
from unskew.families import FAMILIES, Text, family_of, stack_texts
from unskew.pipelines import base_sha256, check_base, load_base, load_unet

BASES = ("tiny_base", "tiny_sd15_like_base", "tiny_sdxl_base")
PROMPTS = ["a mechanic", "a red apple"]
TIME_IDS = torch.tensor([[16.0, 24.0, 0.0, 4.0, 16.0, 16.0]] * 2)


@pytest.fixture(params=BASES)
def base(request: pytest.FixtureRequest) -> Path:
    """The folder of each tiny base in turn."""
    folder: Path = request.getfixturevalue(request.param)
    return folder


def load(base: Path) -> Any:
    return load_base(base, torch.device("cpu"), torch.float32)


def draw(pipe: Any, guidance: float, **asked: Any) -> Tensor:
    """Two pictures' latents from always the same noise."""
    noise = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        latents: Tensor = pipe(
            **asked,
            latents=noise,
            num_inference_steps=2,
            guidance_scale=guidance,
            height=16,
            width=16,
            output_type="latent",
        ).images
    return latents


def encoded(pipe: Any, captions: list[str]) -> list[Text]:
    with torch.inference_mode():
        return family_of(pipe).encode(pipe, captions)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_embeddings_draw_what_the_words_draw(base: Path, guidance: float) -> None:
    """A picture from `encode` and `asked` is bitwise the pipeline's own from the prompt."""
    pipe = load(base)
    empty = stack_texts(encoded(pipe, ["", ""])) if guidance > 1 else None
    asked = family_of(pipe).asked(stack_texts(encoded(pipe, PROMPTS)), empty)
    by_words = draw(pipe, guidance, prompt=PROMPTS)
    assert torch.equal(draw(pipe, guidance, **asked), by_words)
    assert not torch.equal(*by_words)


def test_a_caption_is_the_same_alone_and_among_others(base: Path) -> None:
    """Caches hold captions one by one; order and company change nothing but rounding."""
    pipe = load(base)
    together, [alone] = encoded(pipe, ["", *PROMPTS]), encoded(pipe, [PROMPTS[1]])
    assert set(alone) == set(family_of(pipe).TEXT_PARTS)
    for part, tensor in alone.items():
        torch.testing.assert_close(together[2][part], tensor)


def test_no_caption_is_zeros_only_where_the_base_says_so(tiny_sdxl_base: Path) -> None:
    """SDXL's empty prompt is zeros, unless it was trained otherwise; then it is what "" says."""
    pipe = load(tiny_sdxl_base)
    [zeros] = encoded(pipe, [""])
    assert not any(tensor.any() for tensor in zeros.values())
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    said = stack_texts(encoded(pipe, ["", ""]))
    assert all(tensor.any() for tensor in said.values())
    asked = family_of(pipe).asked(stack_texts(encoded(pipe, PROMPTS)), said)
    assert torch.equal(draw(pipe, 3.0, **asked), draw(pipe, 3.0, prompt=PROMPTS))


def test_the_unet_takes_what_it_is_told(base: Path) -> None:
    """`told` fits the UNet; SDXL's answer depends on the sizes, Stable Diffusion's does not."""
    pipe = load(base)
    family, texts = family_of(pipe), stack_texts(encoded(pipe, PROMPTS))
    noise = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    times = torch.tensor([1, 900])
    with torch.inference_mode():
        predicted = pipe.unet(noise, times, **family.told(texts, TIME_IDS)).sample
        other = pipe.unet(noise, times, **family.told(texts, 2 * TIME_IDS)).sample
    assert predicted.shape == noise.shape and predicted.isfinite().all()
    assert torch.equal(predicted, other) == (family.NAME == "sd")


def test_the_family_is_known_from_folder_and_pipeline(base: Path) -> None:
    """Both ways lead to the same family, which has a place among all of them."""
    family = check_base(base)
    assert family in FAMILIES.values()
    assert family_of(load(base)) is family
    assert (family.NAME == "sdxl") == ("sdxl" in base.parent.name)


def test_parts_can_be_left_out(base: Path) -> None:
    """Without the UNet it encodes as before, and the UNet alone is the pipeline's own."""
    whole = load(base)
    rest = load_base(base, torch.device("cpu"), torch.float32, without=("unet",))
    assert rest.unet is None
    for ours, theirs in zip(encoded(rest, PROMPTS), encoded(whole, PROMPTS), strict=True):
        assert all(torch.equal(ours[part], theirs[part]) for part in theirs)
    alone = load_unet(base, torch.device("cpu"), torch.float32).state_dict()
    assert all(torch.equal(alone[key], t) for key, t in whole.unet.state_dict().items())


def test_gradients_reach_every_layer_that_is_heard(base: Path) -> None:
    """Each LoRA weight of the text encoders has a gradient, even where captions are left out.

    Several processes wait for each other's gradients; one that never comes would be waited for.
    """
    pipe = load(base)
    family = family_of(pipe)
    models = {name: getattr(pipe, name) for name in family.ENCODERS}
    parameters = attach(
        models, rank=2, alpha=2, target_modules="all_linear", leave_out=family.idle(pipe)
    )
    for parameter in parameters.values():
        torch.nn.init.normal_(parameter)
    for captions in (PROMPTS, ["", ""]):
        texts = family.encode(pipe, captions)
        sum(tensor.pow(3).sum() for text in texts for tensor in text.values()).backward()
        assert all(parameter.grad is not None for parameter in parameters.values())
        if captions == PROMPTS:
            assert all(parameter.grad.any() for parameter in parameters.values())
        for parameter in parameters.values():
            parameter.grad = None


def test_what_is_idle_changes_nothing(tiny_sdxl_base: Path) -> None:
    """SDXL's first encoder's last layer may be anything: neither states nor pooled hear it."""
    pipe = load(tiny_sdxl_base)
    before = encoded(pipe, PROMPTS)
    [idle] = family_of(pipe).idle(pipe)
    for parameter in pipe.text_encoder.get_submodule(idle.partition(".")[2]).parameters():
        parameter.data.normal_()
    for ours, theirs in zip(encoded(pipe, PROMPTS), before, strict=True):
        assert all(torch.equal(ours[part], theirs[part]) for part in theirs)


def test_an_adapter_of_every_part_comes_off_again(base: Path, tmp_path: Path) -> None:
    """UNet and encoders are changed while it is on, and the bare base's bits when it is off."""
    pipe = load(base)
    family = family_of(pipe)
    models = {name: getattr(pipe, name) for name in ("unet", *family.ENCODERS)}
    for parameter in attach(models, rank=2, alpha=4, target_modules="attention").values():
        torch.nn.init.normal_(parameter, std=0.3)
    save_adapter(tmp_path, models, {})
    plain = load(base)
    words, picture = encoded(plain, PROMPTS), draw(plain, 2.0, prompt=PROMPTS)
    load_adapter(plain, tmp_path, "a", 1.0)
    for ours, bare in zip(encoded(plain, PROMPTS), words, strict=True):
        assert not any(torch.equal(ours[part], bare[part]) for part in bare)
    assert not torch.equal(draw(plain, 2.0, prompt=PROMPTS), picture)
    plain.unload_lora_weights()
    for ours, bare in zip(encoded(plain, PROMPTS), words, strict=True):
        assert all(torch.equal(ours[part], bare[part]) for part in bare)
    assert torch.equal(draw(plain, 2.0, prompt=PROMPTS), picture)


def test_the_hash_knows_what_no_caption_is(tiny_sdxl_base: Path, tmp_path: Path) -> None:
    """Two SDXL bases that differ in their empty prompt alone draw differently: two hashes."""
    copy = tmp_path / "copy"
    pipe = load(tiny_sdxl_base)
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    pipe.save_pretrained(copy)
    same = tmp_path / "same"
    load(tiny_sdxl_base).save_pretrained(same)
    assert base_sha256(copy) != base_sha256(same)

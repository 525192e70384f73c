"""An adapter is found wherever it lies: diffusers', PEFT's and Kohya's, here and on the hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from peft import LoraConfig, get_peft_model

from unskew.adapter_sources import resolve_adapter
from unskew.adapters import WEIGHTS_FILE, load_adapter
from unskew.errors import UserError
from unskew.pipelines import load_base


def unet_of(base: Path) -> Any:
    return load_base(base, torch.device("cpu"), torch.float32)


def noise_seen(unet: Any) -> torch.Tensor:
    """What a UNet answers to a fixed question."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 8, 8, 8, generator=generator)
    states = torch.randn(1, 24, 16, generator=generator)
    with torch.inference_mode():
        answer: torch.Tensor = unet(latents, 500, states, return_dict=False)[0]
    return answer


def test_a_folder_of_pefts_does_what_peft_did(tiny_base: Path, tmp_path: Path) -> None:
    """Alpha is not rank, so that a lost configuration would show; converted once."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=7, target_modules=["to_q", "to_v"], init_lora_weights=False)
    bare = unet_of(tiny_base).unet
    before = noise_seen(bare)
    model = get_peft_model(bare, config)
    expected = noise_seen(model)
    model.save_pretrained(tmp_path / "theirs", safe_serialization=True)
    made = resolve_adapter(str(tmp_path / "theirs"), cache=tmp_path / "cache")
    pipe = unet_of(tiny_base)
    load_adapter(pipe, made, "theirs")
    assert torch.allclose(noise_seen(pipe.unet), expected, atol=1e-5)
    assert not torch.allclose(before, expected, atol=1e-3)
    stamp = (made / WEIGHTS_FILE).stat().st_mtime_ns
    assert resolve_adapter(str(tmp_path / "theirs"), cache=tmp_path / "cache") == made
    assert (made / WEIGHTS_FILE).stat().st_mtime_ns == stamp


def test_a_folder_with_one_file_is_that_file_and_with_several_asks(tmp_path: Path) -> None:
    """`file` chooses; it may not lead out of the folder."""
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(b"")
    one = tmp_path / "one"
    one.mkdir()
    (one / "style.safetensors").write_bytes(b"")
    assert resolve_adapter(str(one), cache=tmp_path) == one / "style.safetensors"
    with pytest.raises(UserError, match=r"holds 2 .*a.safetensors, b.safetensors"):
        resolve_adapter(str(tmp_path), cache=tmp_path)
    found = resolve_adapter(str(tmp_path), file="b.safetensors", cache=tmp_path)
    assert found == tmp_path / "b.safetensors"
    with pytest.raises(UserError, match="outside"):
        resolve_adapter(str(one), file="../a.safetensors", cache=tmp_path)
    with pytest.raises(UserError, match="holds no adapter"):
        resolve_adapter(str(tmp_path / "nowhere"), cache=tmp_path)


def test_the_hub_is_asked_for_the_revision_and_for_these_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What exists here is never looked for there; what is missing there is named."""
    asked: list[tuple[str, str | None, list[str]]] = []
    there = tmp_path / "there"
    there.mkdir()
    (there / "style.safetensors").write_bytes(b"")

    def snapshot(
        name: str,
        *,
        revision: str | None,
        allow_patterns: list[str],
        ignore_patterns: list[str],
    ) -> str:
        assert not ignore_patterns
        asked.append((name, revision, allow_patterns))
        return str(there)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unskew.hub.snapshot_download", snapshot)
    found = resolve_adapter(
        "org/style", revision="v1", file="style.safetensors", cache=tmp_path / "cache"
    )
    assert found == there / "style.safetensors"
    assert asked == [("org/style", "v1", ["style.safetensors"])]
    with pytest.raises(UserError, match=r"on the hub has neither .* give `file`"):
        resolve_adapter("org/style", cache=tmp_path / "cache")
    shutil.copytree(there, tmp_path / "org" / "style")
    resolve_adapter("org/style", cache=tmp_path / "cache")
    assert len(asked) == 2

    def refuse(*given: Any, **options: Any) -> str:
        asked_for = httpx2.Request("GET", "http://localhost/org/gone")
        raise RepositoryNotFoundError("no", response=httpx2.Response(404, request=asked_for))

    monkeypatch.setattr("unskew.hub.snapshot_download", refuse)
    with pytest.raises(UserError, match="not found on the hub"):
        resolve_adapter("org/gone", cache=tmp_path / "cache")

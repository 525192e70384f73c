"""A base is found where it is said to be, fetched whole, or unpacked once; else it says why not."""

from __future__ import annotations

import fnmatch
import runpy
import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file, save_file

from unskew.bases import base_facts, resolve_base
from unskew.errors import UserError
from unskew.families import family_of
from unskew.pipelines import base_sha256, check_base, load_base, load_unet

ORACLES = Path(__file__).parents[1] / "oracles"
save_original = runpy.run_path(str(ORACLES / "original_checkpoint.py"))["save_original"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CPU, FULL = torch.device("cpu"), torch.float32


class Hub:
    """A hub of one repository, which hands out what the patterns ask for, as the real one does."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.repository, self.folder = repository, folder / "snapshots" / COMMIT
        self.asked: list[str | None] = []

    def snapshot_download(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        allow_patterns: list[str],
        ignore_patterns: list[str] | None = None,
    ) -> str:
        """The snapshot's folder, with what matches copied into it."""
        self.asked.append(revision)
        for file in (f for f in self.repository.rglob("*") if f.is_file()):
            name = file.relative_to(self.repository).as_posix()
            wanted = any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns)
            if wanted and not any(fnmatch.fnmatch(name, p) for p in ignore_patterns or ()):
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, self.folder / name)
        return str(self.folder)


@pytest.fixture
def hub(tiny_sdxl_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """SDXL's repository in small: full and half weights side by side, and other people's files."""
    repository = Path(shutil.copytree(tiny_sdxl_base, tmp_path / "repository"))
    for file in list(repository.rglob("*.safetensors")):
        half = {key: tensor.half() for key, tensor in load_file(file).items()}
        save_file(half, file.with_suffix(".fp16.safetensors"), {"format": "pt"})
        file.with_suffix(".bin").write_bytes(b"pickle")
    for name in ("unet/x.non_ema.safetensors", "sd_xl.safetensors", "vae_1_0/a.safetensors"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_bytes(b"not wanted")
    hub = Hub(repository, tmp_path / "hub")
    monkeypatch.setattr("unskew.hub.snapshot_download", hub.snapshot_download)
    return hub


def test_a_hub_id_is_fetched_without_what_nobody_reads(hub: Hub, tiny_sdxl_base: Path) -> None:
    """Full weights, configuration and tokenizers come, nothing else, and it is the same base."""
    folder = resolve_base("org/name", revision="main")
    assert hub.asked == ["main"]
    ours, theirs = (
        {f.relative_to(top).as_posix() for f in top.rglob("*") if f.is_file()}
        for top in (folder, tiny_sdxl_base)
    )
    assert ours == theirs
    assert base_sha256(folder) == base_sha256(tiny_sdxl_base)
    assert base_facts(folder) == {"base_commit": COMMIT}
    assert base_facts(tiny_sdxl_base) == {}


def test_half_weights_are_taken_where_there_are_no_others(hub: Hub, tiny_sdxl_base: Path) -> None:
    """A repository of the fp16 variant alone is fetched and loaded: full weights, rounded."""
    for file in hub.repository.rglob("*.safetensors"):
        if ".fp16." not in file.name:
            file.unlink()
    folder = resolve_base("org/name")
    check_base(folder)
    half = {
        k: t.half().float() for k, t in load_unet(tiny_sdxl_base, CPU, FULL).state_dict().items()
    }
    for unet in (load_base(folder, CPU, FULL).unet, load_unet(folder, CPU, FULL)):
        assert all(torch.equal(t, half[key]) for key, t in unet.state_dict().items())


def refusal(kind: type[Exception]) -> Exception:
    response = httpx2.Response(404, request=httpx2.Request("GET", "http://localhost/org/name"))
    return kind("no", response=response)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refusal(GatedRepoError), "gated.*accept its terms"),
        (refusal(RepositoryNotFoundError), "not here and not found on the hub"),
        (refusal(RevisionNotFoundError), "no revision v9.*leave the revision out"),
        (OfflineModeIsEnabled("offline"), "could not be fetched.*where there is a connection"),
        (LocalEntryNotFoundError("not cached"), "could not be fetched.*diffusers folder"),
    ],
)
def test_a_hub_that_refuses_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    """Gated, not found, no such revision and offline have a message and a next step each."""

    def refuse(*words: object, **named: object) -> str:
        raise error

    monkeypatch.setattr("unskew.hub.snapshot_download", refuse)
    with pytest.raises(UserError, match=f"base org/name.*{message}"):
        resolve_base("org/name", revision="v9")


def test_what_is_here_is_never_looked_for_there(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative folder that looks like a hub id is the folder, and no other name is an id."""
    monkeypatch.setattr("unskew.hub.snapshot_download", None)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_base, tmp_path / "models" / "tiny")
    for name in ("models/tiny", "nowhere", "./models/none", "/nowhere/at/all", "a/b/c"):
        assert resolve_base(name) == Path(name)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("emoji-world", {"revision": "main"}, "base_revision main is for a base on the hub"),
        ("emoji-world", {"config": Path("c")}, "base_config c is for a base of one .safetensors"),
        ("org/name", {"config": Path("c")}, "base_config c is for a base of one .safetensors"),
        ("none.safetensors", {"config": Path("c")}, "none.safetensors does not exist"),
    ],
)
def test_settings_that_do_not_belong_to_the_base_are_refused(
    name: str, given: dict[str, Any], message: str
) -> None:
    """A revision or configuration that would be ignored in silence is an error."""
    with pytest.raises(UserError, match=message):
        resolve_base(name, **given)


@pytest.fixture(scope="session")
def original(
    tiny_sd15_like_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A single-file checkpoint of SD 1.5's four blocks, very narrow, and its diffusers folder."""
    pipe = load_base(tiny_sd15_like_base, CPU, FULL)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        pipe.unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 8, 16, 16),
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        pipe.vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(4, 4, 8, 8),
            layers_per_block=2,
            norm_num_groups=4,
        )
    folder = tmp_path_factory.mktemp("original")
    pipe.save_pretrained(folder / "diffusers")
    save_original(folder / "model.safetensors", pipe.unet, pipe.vae, pipe.text_encoder)
    return folder / "model.safetensors", folder / "diffusers"


@pytest.fixture
def config(original: tuple[Path, Path], tmp_path: Path) -> Path:
    """The diffusers folder without weights, as one would fetch it for base_config."""
    folder = Path(shutil.copytree(original[1], tmp_path / "config"))
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    return folder


def test_a_single_file_becomes_the_base_that_it_holds(
    original: tuple[Path, Path], config: Path, tmp_path: Path
) -> None:
    """Unpacked, UNet, VAE and text encoder have the bits of the pipeline it was made from."""
    file, diffusers = original
    folder = resolve_base(str(file), config=config, cache=tmp_path / "cache")
    check_base(folder)
    ours, theirs = load_base(folder, CPU, FULL), load_base(diffusers, CPU, FULL)
    assert type(ours.scheduler) is type(theirs.scheduler)
    for part in ("unet", "vae", *family_of(ours).ENCODERS):
        found, wanted = (getattr(p, part).state_dict() for p in (ours, theirs))
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], t) for key, t in wanted.items()), part


def test_a_single_file_is_unpacked_once(
    original: tuple[Path, Path], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found again by its content under any name; another configuration is another base."""
    file, cache = original[0], tmp_path / "cache"
    folder = resolve_base(str(file), config=config, cache=cache)
    assert [f.name for f in cache.rglob("*") if "unfinished" in f.name] == []
    renamed = Path(shutil.copy(file, tmp_path / "renamed.safetensors"))
    with monkeypatch.context() as patched:
        patched.setattr(StableDiffusionPipeline, "from_single_file", None)
        assert resolve_base(str(renamed), config=config, cache=cache) == folder
    with (config / "scheduler" / "scheduler_config.json").open("a") as opened:
        opened.write("\n")
    assert resolve_base(str(file), config=config, cache=cache) != folder


def test_half_a_file_stays_half(original: tuple[Path, Path], config: Path, tmp_path: Path) -> None:
    """An fp16 checkpoint takes no more room unpacked than it had."""
    half = tmp_path / "half.safetensors"
    full = load_file(original[0]).items()
    save_file({key: tensor.half() for key, tensor in full if tensor.is_floating_point()}, half)
    folder = resolve_base(str(half), config=config, cache=tmp_path / "cache")
    [weights] = (folder / "unet").glob("*.safetensors")
    assert {t.dtype for t in load_file(weights).values()} == {torch.float16}


def without_text(tensors: dict[str, Any]) -> dict[str, Any]:
    return {k: t for k, t in tensors.items() if ".final_layer_norm." not in k}


def without_unet(tensors: dict[str, Any]) -> dict[str, Any]:
    return {k: t for k, t in tensors.items() if not k.startswith("model.")}


def of_another_width(tensors: dict[str, Any]) -> dict[str, Any]:
    key = "model.diffusion_model.input_blocks.0.0.weight"
    return {**tensors, key: torch.cat([tensors[key]] * 2)}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_text, "lacks 2 weights of base_config .*first: text_encoder"),
        (without_unet, "no weights that begin with model.diffusion_model"),
        (of_another_width, "cannot be put together as base_config"),
    ],
)
def test_a_file_that_is_no_whole_base_is_refused(
    original: tuple[Path, Path], config: Path, tmp_path: Path, spoil: Any, message: str
) -> None:
    """Part of a model, or another one than the configuration says, leaves nothing in the cache."""
    file = tmp_path / "spoilt.safetensors"
    save_file(spoil(load_file(original[0])), file)
    with pytest.raises(UserError, match=message):
        resolve_base(str(file), config=config, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_a_single_file_needs_a_configuration(original: tuple[Path, Path], tmp_path: Path) -> None:
    """Without base_config, or with one that is none, it says why and what to give."""
    file = str(original[0])
    with pytest.raises(UserError, match=r"is a single file.*give base_config"):
        resolve_base(file, cache=tmp_path)
    with pytest.raises(UserError, match=r"base_config nowhere is no diffusers folder"):
        resolve_base(file, config=Path("nowhere"), cache=tmp_path)
    (tmp_path / "broken.safetensors").write_bytes(b"no header")
    with pytest.raises(UserError, match=r"broken.safetensors is no safetensors file"):
        resolve_base(
            str(tmp_path / "broken.safetensors"), config=original[1], cache=tmp_path / "cache"
        )

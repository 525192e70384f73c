"""Promises of the benchmark of training: that it runs, what it compares, and when it refuses.

How fast anything is, is no promise: a test's machine may be doing something else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from unskew.errors import UserError
from unskew.scripts import bench_bases
from unskew.scripts.bench_options import BenchSettings
from unskew.scripts.bench_train import main, train_settings
from unskew.settings import config_path, resolve

PARTS = {"data", "forward", "backward", "optimizer", "other"}
TINY_TRAINING: dict[str, Any] = {
    "resolution_px": 16,
    "dtype": "fp32",
    "lora": {"rank": 4, "alpha": 8.0, "target_modules": "attention"},
    "batch": {"size": 8, "accumulation": 1, "control_share": 0.25},
    "samples": {"every": 0},
}
TINY: dict[str, Any] = {
    "row": "tiny",
    "recipe": "emoji/train.yaml",
    "warmup": 1,
    "steps": 2,
    "repeats": 2,
    "memory": False,
}
TINY_UNET = {
    "sample_size": 8,
    "block_out_channels": (16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
}
TINY_UNETS = {
    "sd15": TINY_UNET
    | {
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        "cross_attention_dim": 16,
    },
    "sdxl": TINY_UNET
    | {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 64,
    },
}
TINY_VAE = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
TINY_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 16,
}
Bench = Callable[..., list[str]]


@pytest.fixture
def bench(tiny_base: Path, tiny_dataset: Path, tmp_path: Path) -> Bench:
    """A function from settings over TINY to the command line of a benchmark of the tiny base."""

    def arguments(*more: str, training: dict[str, Any] | None = None, **changed: Any) -> list[str]:
        given = {"base": str(tiny_base), "dataset": str(tiny_dataset)}
        values = {**TINY, "training": {**TINY_TRAINING, **given, **(training or {})}, **changed}
        file = tmp_path / "bench.yaml"
        file.write_text(yaml.safe_dump(values), "utf-8")
        return ["--config", str(file), *more]

    return arguments


def report_of(argv: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*argv, "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_it_measures_both_loops_and_writes_their_row(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Speed, FLOPs, utilisation and parts of a step of both are there; other rows stay."""
    page = tmp_path / "page.md"
    page.write_text("<!-- tiny -->\nNot measured.\n<!-- end of tiny -->\nrest\n", "utf-8")
    report = report_of(bench("--write", str(page)), capsys)
    ours, plain = report["loops"]["ours"], report["loops"]["plain"]
    for figures in (ours, plain):
        assert figures["images_per_second"]["min"] > 0
        assert figures["tflop_per_step"] > 0
        assert figures["utilisation"] > 0
        assert figures["memory_gib"] is None
    assert set(ours["seconds_per_step"]) == PARTS | {"target"}
    assert set(plain["seconds_per_step"]) == PARTS | {"encode"}
    assert min(*ours["seconds_per_step"].values(), *plain["seconds_per_step"].values()) > 0
    assert ours["encoding_s"] > 0 == plain["encoding_s"]
    assert report["ratio"]["min"] <= report["ratio"]["median"] <= report["ratio"]["max"]
    assert report["ratio"]["min"] > 0
    written = page.read_text("utf-8")
    assert "images/s" in written and report["machine"]["date"] in written
    assert "Not measured" not in written and written.endswith("<!-- end of tiny -->\nrest\n")


def test_a_dry_run_does_one_step_and_writes_nothing(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It goes the whole way, so what would fail fails in seconds."""
    report = report_of(bench("--dry-run", "--write", str(tmp_path / "none.md")), capsys)
    assert (report["repeats"], report["steps"]) == (1, 1)
    assert not (tmp_path / "none.md").exists()


@pytest.mark.parametrize("loop", ["ours", "plain"])
def test_a_loop_alone_has_its_peak_memory(
    bench: Bench, loop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without repeats it is loaded and warmed up only, and there is nothing to compare."""
    report = report_of(bench(loops=loop, repeats=0), capsys)
    assert report["loops"][loop]["memory_gib"] > 0
    assert report["loops"][loop]["images_per_second"] is None
    assert report["ratio"] is None


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both loops' peaks come from processes that hold nothing of the other."""
    report = report_of(bench(memory=True, repeats=0), capsys)
    assert all(report["loops"][loop]["memory_gib"] > 0 for loop in ("ours", "plain"))


def test_seconds_to_an_effect_are_read_off_drawn_pictures(
    bench: Bench, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both loops are read before the first step and after the last; encoding is of the time."""
    prompts = tmp_path / "prompts.yaml"
    block = {"suite": "validation", "role": "neutral", "attributes": ["presentation"]}
    prompts.write_text(yaml.safe_dump([block | {"prompts": [{"subject": "x", "text": "an x"}]}]))
    reach = {
        "seconds": 0.05,
        "readings": 1,
        "training_seeds": [0, 3],
        "prompts": str(prompts),
        "suite": "validation",
        "seeds": 2,
        "exemplars": str(tiny_dataset),
        "steps": 1,
        "guidance": 1.0,
        "resolution_px": 16,
        "batch": 2,
    }
    report = report_of(bench("--effect", reach=reach, repeats=1), capsys)
    assert list(report["effect"]["courses"]) == ["0", "3"]
    for course in report["effect"]["courses"].values():
        for loop in ("ours", "plain"):
            first, last = course[loop]
            assert first["steps"] == 0 < last["steps"]
            assert (first["seconds"] > 0) == (loop == "ours")
            assert first["seconds"] < last["seconds"]
            assert set(last["imbalance"]) == {"presentation"}
    for reached in report["effect"]["reached"]:
        assert reached["plain_s"] <= max(
            c["plain"][1]["seconds"] for c in report["effect"]["courses"].values()
        )


@pytest.mark.parametrize("size", ["sd15", "sdxl"])
def test_random_weights_need_nothing_given(
    bench: Bench,
    size: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Base and pictures of either family are made on the spot, and both loops train on them."""
    monkeypatch.setattr(bench_bases, "SD15_UNET", TINY_UNETS["sd15"])
    monkeypatch.setattr(bench_bases, "SDXL_UNET", TINY_UNETS["sdxl"])
    monkeypatch.setattr(bench_bases, "VAES", {size: TINY_VAE})
    monkeypatch.setattr(bench_bases, "CLIP_L", TINY_TEXT)
    monkeypatch.setattr(bench_bases, "CLIP_BIG_G", TINY_TEXT)
    attributes = {"attributes": ["presentation", "skin_tone"]}
    report = report_of(bench(weights=size, repeats=1, training=attributes), capsys)
    assert "unskew-bench" in report["training"]["base"]
    assert report["ratio"]["median"] > 0


def test_a_row_for_gpus_refuses_without_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is loaded, and the message says that it is not measured and what to run where."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    argv = bench(needs_gpu=True)
    with pytest.raises(UserError, match=r"not measured.*bench_train\.py --config .*bench\.yaml"):
        main(argv)


def test_a_missing_package_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An 8-bit optimizer without bitsandbytes ends in how to install it."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    argv = bench(loops="ours", training={"optimizer": {"kind": "adamw_8bit"}})
    with pytest.raises(UserError, match=r"pip install 'unskew\[bitsandbytes\]'"):
        main(argv)


@pytest.mark.parametrize(
    ("training", "problem"),
    [
        ({"batch": {"size": 8, "accumulation": 2}}, "batch.accumulation 2"),
        ({"lora": {"use_dora": True}}, "lora.use_dora True"),
        ({"lora": {"rnak": 4}}, "lora.rank"),
        ({"batch": {"size": 100, "accumulation": 1}}, "63 rows, fewer than a batch of 100"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    bench: Bench, training: dict[str, Any], problem: str
) -> None:
    """Settings that the plain loop has no counterpart of, or that training does not have."""
    argv = bench(loops="plain", training=training)
    with pytest.raises(UserError) as raised:
        main(argv)
    assert problem in str(raised.value)


@pytest.mark.parametrize("file", sorted(config_path("bench").glob("*.yaml")), ids=lambda f: f.name)
def test_every_shipped_row_is_good(file: Path) -> None:
    """Its settings and those of the training that it measures are ones, and the page has it."""
    settings = resolve(
        BenchSettings, [], default_config=file, prog="bench_train", description="A row."
    ).settings
    assert settings.row == file.stem
    page = Path(__file__).parents[2] / "docs" / "benchmarks.md"
    assert f"<!-- {settings.row} -->" in page.read_text("utf-8")
    train_settings(settings, {})

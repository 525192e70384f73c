"""Drawing: cells meet their noise, batches are fixed, a resumed study gets the same bits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from unskew.evaluate.generate import Cell, Sampler, draw, missing_batches, plan_batches
from unskew.pipelines import load_base
from unskew.prompts import Prompt, prompt_id

SAMPLER = Sampler(steps=2, guidance=2.0, resolution_px=16, batch=4)


def cells(count: int, texts: tuple[str, ...] = ("a mechanic", "a judge")) -> list[Cell]:
    """Cells of these prompts with seeds 0, 1, ..."""
    prompts = [Prompt(prompt_id(t), t, "s", "x", (), {"subject": "x"}) for t in texts]
    return [Cell(prompt, seed) for prompt in prompts for seed in range(count)]


def pictures(folder: Path) -> dict[str, bytes]:
    """Relative name -> bytes of every picture."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*.png")}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_every_batch_is_full_and_every_cell_is_in_one(count: int) -> None:
    """The last batch is padded with its own cells, never dropped and never short."""
    batches = plan_batches(cells(count), 4)
    assert {len(part) for part in batches} == {4}
    assert [c for part in batches for c in dict.fromkeys(part)] == cells(count)


def test_a_stopped_study_ends_with_the_pictures_of_an_undisturbed_one(
    tiny_base: Path, tmp_path: Path
) -> None:
    """Whole batches are taken up again, so every picture is bitwise the same."""
    pipe = load_base(tiny_base, torch.device("cpu"), torch.float32)
    batches = plan_batches(cells(3), SAMPLER.batch)
    assert sum(draw(pipe, batches, SAMPLER, tmp_path / "whole")) == 6
    for _ in draw(pipe, batches[:1], SAMPLER, tmp_path / "stopped"):
        pass
    next(iter((tmp_path / "stopped").rglob("*.png"))).unlink()
    missing = missing_batches(batches, tmp_path / "stopped")
    assert len(missing) == 2
    for _ in draw(pipe, missing, SAMPLER, tmp_path / "stopped"):
        pass
    assert pictures(tmp_path / "stopped") == pictures(tmp_path / "whole")


def test_rewritten_prompts_draw_from_the_noise_of_the_words_as_they_were(
    tiny_base: Path, tmp_path: Path
) -> None:
    """A rewrite that changes nothing changes no bit; one that changes words changes pictures."""
    pipe = load_base(tiny_base, torch.device("cpu"), torch.float32)
    batches = plan_batches(cells(2), SAMPLER.batch)
    for name, rewrite in (
        ("plain", str),
        ("same", lambda text: text),
        ("other", lambda text: f"{text} at a meetup"),
    ):
        for _ in draw(pipe, batches, SAMPLER, tmp_path / name, rewrite):
            pass
    assert pictures(tmp_path / "same") == pictures(tmp_path / "plain")
    assert pictures(tmp_path / "other") != pictures(tmp_path / "plain")
    shutil.rmtree(tmp_path / "same")

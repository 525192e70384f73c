"""Drawing: cells meet their noise, batches are fixed, a resumed study gets the same bits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from unskew.errors import UserError
from unskew.evaluate.generate import (
    Cell,
    Sampler,
    TextStates,
    draw,
    draw_batch,
    missing_batches,
    plan_batches,
)
from unskew.evaluate.samplers import SamplerName, use_sampler
from unskew.noise import cell_noise
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
        ("plain", None),
        ("same", lambda prompt: prompt.text),
        ("other", lambda prompt: f"{prompt.text} at a meetup"),
    ):
        words = {"words": rewrite} if rewrite else {}
        for _ in draw(pipe, batches, SAMPLER, tmp_path / name, **words):
            pass
    assert pictures(tmp_path / "same") == pictures(tmp_path / "plain")
    assert pictures(tmp_path / "other") != pictures(tmp_path / "plain")
    shutil.rmtree(tmp_path / "same")


def test_decoding_in_slices_draws_what_the_pipeline_draws(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen at a time or all at once, on the pipeline's own way: equal but for rounding."""
    pipe = load_base(tiny_base, torch.device("cpu"), torch.float32)
    [part] = plan_batches(cells(10), 20)
    states = TextStates(pipe, guided=True)([cell.prompt.text for cell in part])
    ours = draw_batch(pipe, part, SAMPLER, states).astype(int)
    assert "decode" not in vars(pipe.vae)
    monkeypatch.setattr("unskew.evaluate.generate.DECODED_TOGETHER", 100)
    whole = draw_batch(pipe, part, SAMPLER, states).astype(int)
    assert ours.shape == (20, 16, 16, 3)
    assert abs(ours - whole).max() <= 1 and (ours != whole).mean() < 0.01


@pytest.mark.parametrize("name", [n for n in get_args(SamplerName) if n != "base"])
def test_every_sampler_pairs_cells_whatever_the_batch(tiny_sd15_like_base: Path, name: str) -> None:
    """Stochastic ones too: a cell's own generator makes its noise, whoever is drawn beside it."""
    pipe = load_base(tiny_sd15_like_base, torch.device("cpu"), torch.float32)
    use_sampler(pipe, name)  # type: ignore[arg-type]
    drawn = []
    for part in (cells(2), cells(2)[::-1]):
        states = TextStates(pipe, guided=True)([cell.prompt.text for cell in part])
        drawn.append(draw_batch(pipe, part, SAMPLER, states).astype(int))
    assert abs(drawn[0] - drawn[1][::-1]).max() <= 1
    assert (drawn[0][0] != drawn[0][1]).any()


def test_noise_on_the_way_is_not_the_first_noise_again(tiny_sd15_like_base: Path) -> None:
    """A stochastic sampler goes on with the generator that made the noise."""
    pipe = load_base(tiny_sd15_like_base, torch.device("cpu"), torch.float32)
    use_sampler(pipe, "euler_a")
    added: list[torch.Tensor] = []
    step = pipe.scheduler.step

    def watched(*given: Any, generator: Any, **more: Any) -> Any:
        state = [g.get_state() for g in generator]
        added.append(torch.stack([torch.randn(8, 8, 8, generator=g) for g in generator]))
        for g, s in zip(generator, state, strict=True):
            g.set_state(s)
        return step(*given, generator=generator, **more)

    pipe.scheduler.step = watched
    part = cells(1)
    states = TextStates(pipe, guided=True)([cell.prompt.text for cell in part])
    draw_batch(pipe, part, SAMPLER, states)
    first = cell_noise([(cell.prompt.text, cell.seed) for cell in part], (8, 8, 8))
    assert len(added) == 2
    assert not any(torch.equal(noise, first) for noise in added)


def test_a_sampler_that_is_deaf_to_the_base_is_refused(tiny_base: Path) -> None:
    """Emoji World's base ends in pure noise; who does not know that would draw noise."""
    pipe = load_base(tiny_base, torch.device("cpu"), torch.float32)
    with pytest.raises(UserError, match=r"sampler pndm .*rescale_betas_zero_snr.*ddim"):
        use_sampler(pipe, "pndm")
    use_sampler(pipe, "ddim")
    assert pipe.scheduler.config.prediction_type == "v_prediction"

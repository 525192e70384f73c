"""The end of a step: nothing bad reaches the weights, whether it is looked at at once or later."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import Parameter

from unskew.adapters import WEIGHTS_FILE
from unskew.errors import UserError
from unskew.pipelines import choose_dtype
from unskew.runs import read_manifest, sha256_file
from unskew.settings import run_program
from unskew.train import lora, surroundings, training
from unskew.train.checkpoints import load_loss_scale
from unskew.train.inputs import Inputs
from unskew.train.numerics import MOST_SKIPPED, RowLosses, Stepper, can_defer
from unskew.train.optimizers import make_optimizer
from unskew.train.options import OptimizerSettings, TrainSettings
from unskew.train.rows import Row

Argv = Callable[..., list[str]]
Load = Callable[[list[str]], tuple[training.Training, Inputs]]
CPU = torch.device("cpu")
RATE = 0.01


def row(line: int) -> Row:
    return Row(line, Path(f"{line}.png"), "a cook", "neutral", "cook", {}, None, 1.0)


def settings(kind: str = "adamw") -> OptimizerSettings:
    plain = {"learning_rate": RATE, "warmup_steps": 0, "weight_decay": 0.01, "clip_norm": 1.0}
    return OptimizerSettings.model_validate({"kind": kind, **plain})


def stepper(*, fp16: bool = False, deferred: bool = False) -> Stepper:
    """Of two weights, with torch's fused AdamW."""
    generator = torch.Generator().manual_seed(0)
    weights = [Parameter(torch.randn(5, 3, generator=generator)) for _ in range(2)]
    optimizer = make_optimizer(weights, settings(), CPU)
    return Stepper(weights, optimizer, 1.0, CPU, fp16=fp16, deferred=deferred)


def step(some: Stepper, number: int, *, loss: float = 1.0, gradient: float = 1.0) -> None:
    """One step whose loss and gradient are times these factors, on rows 10 and 11."""
    sums = [(w * torch.sin(torch.arange(w.numel()).view_as(w) + number)) for w in some.parameters]
    own = torch.stack([s.sum() for s in sums])
    some.scaled(own.square().sum()).backward()
    some.parameters[0].grad *= gradient
    own = own.detach() * torch.tensor([1.0, loss])
    losses: RowLosses = [(row(10 + place), value) for place, value in enumerate(own)]
    some.step(number, RATE / (1 + number), own.mean(), losses)


def weights(some: Stepper) -> list[Tensor]:
    return [p.detach().clone() for p in some.parameters]


def same(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("fp16", [False, True])
def test_looking_later_gives_the_same_bits(fp16: bool) -> None:
    """Weights, what the optimizer remembers, and every step's figures, read every third step."""
    now, later = stepper(fp16=fp16), stepper(fp16=fp16, deferred=True)
    figures: list[list[Any]] = [[], []]
    for number in range(9):
        gradient = math.inf if fp16 and number == 4 else 1.0
        for some in (now, later):
            step(some, number, gradient=gradient)
        figures[0] += now.read(wait=False)
        assert not later.read(wait=False)
        figures[1] += later.read() if number % 3 == 2 else []
    assert same(weights(now), weights(later))
    for a, b in zip(now.parameters, later.parameters, strict=True):
        own, other = now.optimizer.state[a], later.optimizer.state[b]
        assert own.keys() == other.keys()
        assert all(torch.equal(own[key], other[key]) for key in own)
    names = ("loss", "gradient_norm", "learning_rate")
    assert [[r.metrics[n] for n in names] for r in figures[0]] == [
        [r.metrics[n] for n in names] for r in figures[1]
    ]
    assert [r.step for r in figures[1]] == list(range(9))


@pytest.mark.parametrize(("loss", "gradient"), [(math.nan, 1.0), (1.0, math.inf), (1.0, math.nan)])
def test_what_is_not_finite_is_found_later_and_changes_nothing(
    loss: float, gradient: float
) -> None:
    """A bad step 4 of 8 leaves the weights of before it, and is named when it is read."""
    whole, later = stepper(), stepper(deferred=True)
    for number in range(3):
        step(whole, number)
    for number in range(8):
        bad = number == 3
        step(later, number, loss=loss if bad else 1.0, gradient=gradient if bad else 1.0)
    assert same(weights(whole), weights(later))
    with pytest.raises(UserError, match=r"^step 4: loss .*no weight was changed by it") as error:
        later.read()
    rows = "over 1 rows (first: 11 (11.png" if math.isnan(loss) else "over 2 rows (first: 10 (10"
    assert rows in str(error.value)


def test_what_is_not_finite_is_found_at_once_where_nothing_is_deferred() -> None:
    """The step itself raises, before the weights are changed."""
    whole, now = stepper(), stepper()
    for some in (whole, now):
        step(some, 0)
    with pytest.raises(UserError, match=r"^step 2: loss nan"):
        step(now, 1, loss=math.nan)
    assert same(weights(whole), weights(now))


@pytest.mark.parametrize("deferred", [False, True])
def test_a_gradient_that_overflows_fp16_is_skipped(deferred: bool) -> None:
    """The weights stay, the scale is halved, the step is counted and said; then it goes on."""
    some = stepper(fp16=True, deferred=deferred)
    step(some, 0)
    before, state = weights(some), some.state()
    assert state is not None
    step(some, 1, gradient=math.inf)
    assert same(before, weights(some))
    first, second = some.read()
    assert first.word is None
    assert "step 2: a gradient overflowed fp16" in str(second.word)
    assert "1 skipped in all" in str(second.word)
    assert second.metrics["skipped_steps"] == 1
    now = some.state()
    assert now is not None and now["scale"] == state["scale"] / 2
    step(some, 2)
    assert not same(before, weights(some))


@pytest.mark.parametrize("deferred", [False, True])
def test_a_loss_that_is_not_finite_ends_fp16_too(deferred: bool) -> None:
    """No scale mends a loss: it is an error as in any precision, and the weights stay."""
    some = stepper(fp16=True, deferred=deferred)
    step(some, 0)
    before = weights(some)
    with pytest.raises(UserError, match=r"^step 2: loss nan"):
        step(some, 1, loss=math.nan)
        step(some, 2)
        some.read()
    assert same(before, weights(some))


@pytest.mark.parametrize("deferred", [False, True])
def test_skipping_does_not_go_on_for_ever(deferred: bool) -> None:
    """MOST_SKIPPED in a row are an error; one good step among them starts the count anew."""
    some = stepper(fp16=True, deferred=deferred)
    for number in range(MOST_SKIPPED):
        step(some, number, gradient=1.0 if number == 5 else math.inf)
    some.read()
    with pytest.raises(UserError, match=f"{MOST_SKIPPED} of them in a row: no scale helps"):
        for number in range(MOST_SKIPPED, 2 * MOST_SKIPPED):
            step(some, number, gradient=math.inf)
        some.read()


def test_fp16_goes_on_exactly_from_its_state() -> None:
    """Scale, how long it has been good, and what was skipped come back through JSON."""
    one, other = stepper(fp16=True), stepper(fp16=True)
    for number in range(4):
        step(one, number, gradient=math.inf if number == 1 else 1.0)
    other.restore(json.loads(json.dumps(one.state())))
    assert other.state() == one.state()
    other.restore(None)
    assert other.state() == one.state()
    assert stepper().state() is None


def test_only_a_gpu_with_fused_steps_defers() -> None:
    """Elsewhere there is nothing to wait for, or nothing that can leave a step out."""
    weights = [Parameter(torch.ones(1))]
    fused = make_optimizer(weights, settings(), CPU)
    assert not can_defer(fused, CPU)
    assert can_defer(fused, torch.device("cuda"))
    assert not can_defer(torch.optim.AdamW(weights), torch.device("cuda"))


def test_an_old_gpu_trains_in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no bf16, auto takes fp16, and says why."""
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 5))
    asked = TrainSettings.model_construct(dtype="auto")
    dtype, reason = surroundings.precision(asked, torch.device("cuda"))
    assert dtype == torch.float16 == choose_dtype(torch.device("cuda"))[0]
    assert reason == "fp16 (cuda, compute capability 7.5 has no bf16)"


def adapter(out: Path) -> str:
    return sha256_file(out / "adapter" / WEIGHTS_FILE)


def test_a_whole_run_that_looks_later_gives_the_same_bits(
    argv: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forced on a CPU: the adapter, and the logged figures, are those of looking at once."""
    now, later = tmp_path / "now", tmp_path / "later"
    assert run_program(lora.main, argv(now, "--log-every", "3")) == 0
    monkeypatch.setattr(training, "can_defer", lambda *_: True)
    assert run_program(lora.main, argv(later, "--log-every", "3")) == 0
    assert adapter(now) == adapter(later)
    lines = [(out / "metrics.jsonl").read_text().splitlines() for out in (now, later)]
    kept = [[{**json.loads(line), "seconds_per_step": 0} for line in some] for some in lines]
    assert kept[0] == kept[1]
    assert [line["step"] for line in kept[1]] == [3, 6]


def test_a_whole_run_that_looks_later_stops_at_the_next_look(
    argv: Argv,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A loss that is NaN in step 4 ends the run at step 6, by its own number; nothing is saved."""
    monkeypatch.setattr(training, "can_defer", lambda *_: True)
    real, calls = lora.row_losses, []

    def row_losses(*arguments: Tensor) -> Tensor:
        calls.append(1)
        losses = real(*arguments)
        return losses * float("nan") if len(calls) == 4 else losses

    monkeypatch.setattr(lora, "row_losses", row_losses)
    words = argv(tmp_path / "run", "--checkpoints.every", "3", "--log-every", "6")
    assert run_program(lora.main, words) == 2
    assert "step 4: loss nan" in capsys.readouterr().err
    assert len(calls) == 6
    assert read_manifest(tmp_path / "run")["status"] == "failed"
    assert [f.name for f in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000003"]


def test_a_run_in_fp16_keeps_the_lora_in_full_and_goes_on_exactly(
    argv: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gradient that overflows is skipped; from a checkpoint of after it, the same bits."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    real, calls = lora.row_losses, []

    def row_losses(*arguments: Tensor) -> Tensor:
        calls.append(1)
        losses = real(*arguments)
        if len(calls) == 2:
            losses.register_hook(lambda gradient: gradient * float("inf"))
        return losses

    monkeypatch.setattr(lora, "row_losses", row_losses)
    words = ("--dtype", "fp16", "--log-every", "1", "--samples.every", "6")
    assert run_program(lora.main, argv(whole, *words)) == 0
    assert "step 2: a gradient overflowed fp16" in capsys.readouterr().err
    checkpoint = whole / "checkpoints" / "step-000002"
    state = load_loss_scale(checkpoint)
    assert state is not None
    assert (state["skipped"], state["scale"]) == (1, 2.0**15)
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped_steps"] for line in lines] == [0, 1, 1, 1, 1, 1]
    assert ["gradient_norm" in line for line in lines] == [n != 1 for n in range(6)]
    weights = safetensors.torch.load_file(whole / "adapter" / WEIGHTS_FILE).values()
    assert {t.dtype for t in weights} == {torch.float32}
    assert any(not torch.equal(t, t.half().float()) for t in weights)
    assert run_program(lora.main, argv(resumed, *words, "--resume", str(checkpoint))) == 0
    assert adapter(resumed) == adapter(whole)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_step_on_a_gpu_waits_for_nothing(
    argv: Argv, load: Load, tmp_path: Path, dtype: str
) -> None:
    """After the first steps, in which what stays there is moved, no step reads off the GPU."""
    loaded, _ = load(argv(tmp_path / "run", "--dtype", dtype))
    assert loaded.stepper.deferred
    for step in range(3):
        lora.train_step(loaded, step)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(3, 6):
            lora.train_step(loaded, step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [reading.step for reading in loaded.stepper.read()] == list(range(6))


def test_a_rate_that_does_not_stay_is_an_error() -> None:
    """A hook that sets another rate than the step was to have ends the run, and both are named."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], lr=1.0)
    optimizer.register_step_pre_hook(lambda own, *_: own.param_groups[0].update(lr=0.5))
    stepper = Stepper([weight], optimizer, 1.0, CPU)
    weight.square().sum().backward()
    with pytest.raises(UserError, match=r"learning rate is 0\.5, but 0\.25 was asked for"):
        stepper.step(0, 0.25, torch.tensor(1.0), [])

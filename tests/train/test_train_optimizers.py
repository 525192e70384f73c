"""Optimizers: each follows its paper, and goes on exactly from a checkpoint."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch.nn import Parameter

from unskew.errors import UserError
from unskew.runs import sha256_file
from unskew.train.checkpoints import OPTIMIZER, SEAL, load_checkpoint, save_checkpoint
from unskew.train.optimizers import make_optimizer
from unskew.train.options import OptimizerSettings

CPU = torch.device("cpu")
Trainer = tuple[dict[str, Parameter], torch.optim.Optimizer]


def needs(module: str, kind: str) -> Any:
    """A kind that is tried where its package is installed."""
    missing = importlib.util.find_spec(module) is None
    return pytest.param(
        kind, marks=pytest.mark.skipif(missing, reason=f"{module} is not installed")
    )


PRODIGY, EIGHT_BIT = needs("pytorch_optimizer", "prodigy"), needs("bitsandbytes", "adamw_8bit")
KINDS = ["adamw", EIGHT_BIT, PRODIGY]


def settings(kind: str, **changes: object) -> OptimizerSettings:
    rate = 1.0 if kind == "prodigy" else 2e-3
    plain = {"learning_rate": rate, "warmup_steps": 2, "weight_decay": 0.01, "clip_norm": 1.0}
    return OptimizerSettings.model_validate({"kind": kind, **plain, **changes})


def trainer(kind: str, seed: int = 0, **changes: object) -> Trainer:
    """A LoRA of one large and one small module, whose second halves are 0 at first."""
    generator = torch.Generator().manual_seed(seed)
    parameters = {
        "large.lora_A": Parameter(torch.randn(16, 320, generator=generator)),
        "large.lora_B": Parameter(torch.zeros(320, 16)),
        "small.lora_A": Parameter(torch.randn(2, 3, generator=generator)),
        "small.lora_B": Parameter(torch.zeros(3, 2)),
    }
    return parameters, make_optimizer(list(parameters.values()), settings(kind, **changes), CPU)


def gradient(parameter: Parameter, number: int) -> torch.Tensor:
    """Of half the squared distance to a goal that moves a little with every step."""
    places = torch.arange(parameter.numel()).reshape(parameter.shape)
    return parameter.detach() - torch.sin(places) * (1 + number / 100)


def step(trained: Trainer, number: int, rate: float | None = None) -> None:
    parameters, optimizer = trained
    for parameter in parameters.values():
        parameter.grad = gradient(parameter, number)
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] if rate is None else rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def rate_of(kind: str, number: int) -> float:
    """What the loop sets: a warm-up, then a fall."""
    highest = settings(kind).learning_rate
    return highest * min(1.0, (number + 1) / 2) * math.cos(number / 10)


def memory_of(trained: Trainer) -> dict[str, Any]:
    """All that the optimizer holds, per weight and per group."""
    parameters, optimizer = trained
    held = {f"{n}/{e}": v for n, p in parameters.items() for e, v in optimizer.state[p].items()}
    for number, group in enumerate(optimizer.param_groups):
        held |= {f"{number}/{entry}": v for entry, v in group.items() if entry != "params"}
    return held


@pytest.mark.parametrize("kind", KINDS)
def test_going_on_is_exact(tmp_path: Path, kind: str) -> None:
    """Six steps equal three steps, a checkpoint, and three in another process's objects."""
    whole = trainer(kind)
    for number in range(6):
        step(whole, number, rate_of(kind, number))
        if number == 2:
            saved = save_checkpoint(tmp_path, 3, *whole, keep=1)
    other = trainer(kind, seed=1)
    assert load_checkpoint(saved, *other) == 3
    for number in range(3, 6):
        step(other, number, rate_of(kind, number))
    for name in whole[0]:
        assert torch.equal(whole[0][name], other[0][name])
        assert not torch.equal(whole[0][name], trainer(kind)[0][name])


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_an_optimizer_holds_comes_back_as_it_was(tmp_path: Path, kind: str) -> None:
    """Tensors with their type and bits, numbers as numbers, per weight and per group."""
    one = trainer(kind)
    for number in range(3):
        step(one, number)
    other = trainer(kind, seed=1)
    load_checkpoint(save_checkpoint(tmp_path, 3, *one, keep=1), *other)
    before, after = memory_of(one), memory_of(other)
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert type(after[key]) is type(value), key
        if isinstance(value, torch.Tensor):
            assert after[key].dtype == value.dtype, key
            assert torch.equal(after[key], value), key
        else:
            assert after[key] == value, key


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_does_not_bring_its_settings(tmp_path: Path, kind: str) -> None:
    """Rate and decay are what the run asks for, not what the checkpoint was made with."""
    one = trainer(kind)
    step(one, 0, 0.5)
    other = trainer(kind, learning_rate=0.25, weight_decay=0.125)
    load_checkpoint(save_checkpoint(tmp_path, 1, *one, keep=1), *other)
    (group,) = other[1].param_groups
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.125)


@pytest.mark.parametrize("kind", [EIGHT_BIT, PRODIGY])
def test_another_optimizers_checkpoint_is_refused(tmp_path: Path, kind: str) -> None:
    """What one optimizer remembers means nothing to another; nothing is changed."""
    saved = save_checkpoint(tmp_path, 1, *trainer("adamw"), keep=1)
    other = trainer(kind, seed=1)
    with pytest.raises(UserError, match=r"made with the optimizer AdamW, this run has \w+: set"):
        load_checkpoint(saved, *other)
    assert torch.equal(other[0]["large.lora_A"], trainer(kind, seed=1)[0]["large.lora_A"])


def test_a_checkpoint_of_tensors_alone_is_adamws(tmp_path: Path) -> None:
    """One without a header, as the first versions wrote it, goes on exactly."""
    whole = trainer("adamw")
    step(whole, 0)
    saved = save_checkpoint(tmp_path, 1, *whole, keep=1)
    tensors = safetensors.torch.load_file(saved / OPTIMIZER)
    safetensors.torch.save_file(tensors, saved / OPTIMIZER)
    seal = json.loads((saved / SEAL).read_text())
    seal["sha256"][OPTIMIZER] = sha256_file(saved / OPTIMIZER)
    (saved / SEAL).write_text(json.dumps(seal))
    other = trainer("adamw", seed=1)
    load_checkpoint(saved, *other)
    for trained in (whole, other):
        step(trained, 1)
    for name in whole[0]:
        assert torch.equal(whole[0][name], other[0][name])


def test_adamw_is_its_papers_algorithm() -> None:
    """Loshchilov and Hutter 2019, algorithm 2, in double precision."""
    trained = trainer("adamw", weight_decay=0.1)
    name = "small.lora_A"
    weights = trained[0][name].detach().double().numpy().copy()
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    for number in range(5):
        g = gradient(trained[0][name], number).double().numpy()
        step(trained, number, 0.01)
        weights -= 0.01 * 0.1 * weights
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        corrected = np.sqrt(second / (1 - 0.999 ** (number + 1)))
        weights -= 0.01 * first / (1 - 0.9 ** (number + 1)) / (corrected + 1e-8)
        np.testing.assert_allclose(trained[0][name].detach(), weights, rtol=1e-5)


def test_adamw_steps_are_fused_on_the_cpu() -> None:
    """One pass over the weights, where the device has it."""
    assert trainer("adamw")[1].param_groups[0]["fused"] is True


@pytest.mark.parametrize("kind", [PRODIGY])
def test_prodigy_is_its_papers_algorithm(kind: str) -> None:
    """Mishchenko and Defazio 2023 (arXiv:2306.06101), algorithm 4, with bias correction.

    In double precision: its first steps are of some 1e-6, the last bits of a weight in single.
    """
    doubles = {name: Parameter(p.detach().double()) for name, p in trainer(kind)[0].items()}
    chosen = settings(kind, weight_decay=0.1)
    trained = (doubles, make_optimizer(list(doubles.values()), chosen, CPU))
    start = flat([p.detach() for p in trained[0].values()])
    weights, first, second, s = start.copy(), 0 * start, 0 * start, 0 * start
    d = d_max = 1e-6
    numerator = 0.0
    for number in range(30):
        g = flat([gradient(p, number) for p in trained[0].values()])
        rate = 0.5 if number < 10 else 1.0
        step(trained, number, rate)
        correction = math.sqrt(1 - 0.999 ** (number + 1)) / (1 - 0.9 ** (number + 1))
        of_step = d * rate * correction
        numerator *= math.sqrt(0.999)
        numerator += d / 1e-6 * of_step * float(g @ (start - weights))
        first = 0.9 * first + 0.1 * d * g
        second = 0.999 * second + 0.001 * d * d * g * g
        s = math.sqrt(0.999) * s + d / 1e-6 * d * g  # safeguarded: without the rate
        found = numerator / float(np.abs(s).sum())
        d = max(d, found) if d == 1e-6 else d
        d_max = max(d_max, found)
        d = d_max
        weights -= 0.1 * of_step * weights
        weights -= of_step * first / (np.sqrt(second) + d * 1e-8)
    ours = flat([p.detach() for p in trained[0].values()])
    assert trained[1].param_groups[0]["d"] == pytest.approx(d, rel=1e-4)
    assert d > 1.5e-6
    way = np.linalg.norm(weights - start)
    assert np.linalg.norm(ours - weights) < 1e-4 * way


def flat(parts: list[torch.Tensor]) -> NDArray[np.float64]:
    return np.concatenate([part.double().numpy().ravel() for part in parts])


@pytest.mark.parametrize("kind", [EIGHT_BIT])
def test_eight_bits_go_where_adamw_goes(kind: str) -> None:
    """Over some steps weights move as with full memory, within a few hundredths of the way."""
    eight, full = trainer(kind), trainer("adamw")
    start = trainer("adamw")[0]
    for number in range(20):
        step(eight, number)
        step(full, number)
    for name in start:
        way = (full[0][name] - start[name]).norm()
        assert (eight[0][name] - full[0][name]).norm() < 0.05 * way
    assert eight[1].state[eight[0]["large.lora_A"]]["state1"].dtype == torch.uint8
    assert eight[1].state[eight[0]["small.lora_A"]]["state1"].dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [("adamw_8bit", "bitsandbytes", "bitsandbytes"), ("prodigy", "pytorch_optimizer", "prodigy")],
)
def test_a_missing_package_is_named_with_its_extra(
    kind: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who lacks an optional package reads how to get it, and what to do without."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"needs the package {module}.*unskew\[{extra}\].*adamw"):
        trainer(kind)


def test_eight_bits_are_refused_where_they_do_not_run() -> None:
    """A device without 8-bit steps is named before the first of them."""
    with pytest.raises(UserError, match=r"does not run on mps \(allowed: cpu, cuda, xpu\)"):
        make_optimizer([Parameter(torch.ones(1))], settings("adamw_8bit"), torch.device("mps"))


def test_the_kind_is_adamw_unless_given() -> None:
    """Settings of before name no kind and keep no average."""
    plain = {"learning_rate": 1e-3, "warmup_steps": 0, "weight_decay": 0.0, "clip_norm": 1.0}
    chosen = OptimizerSettings.model_validate(plain)
    assert (chosen.kind, chosen.average_decay) == ("adamw", 0.0)

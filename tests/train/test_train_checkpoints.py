"""A checkpoint is whole, or it is not there."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn import Parameter

from unskew.errors import UserError
from unskew.train import checkpoints
from unskew.train.checkpoints import (
    AVERAGE,
    LORA,
    OPTIMIZER,
    SEAL,
    check_checkpoint,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)


def trainer(seed: int, rank: int = 2) -> tuple[dict[str, Parameter], torch.optim.AdamW]:
    generator = torch.Generator().manual_seed(seed)
    parameters = {
        "one.lora_A": Parameter(torch.randn(rank, 3, generator=generator)),
        "one.lora_B": Parameter(torch.randn(3, rank, generator=generator)),
    }
    return parameters, torch.optim.AdamW(list(parameters.values()), lr=0.1)


def step(parameters: dict[str, Parameter], optimizer: torch.optim.Optimizer, number: int) -> None:
    for parameter in parameters.values():
        parameter.grad = torch.sin(parameter.detach() + number)
    optimizer.step()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Hoarder(torch.optim.Optimizer):
    """Remembers in every way that optimizers do: numbers, 8-bit codes, shared tables, groups."""

    def __init__(self, parameters: list[Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "factor": 1.0, "betas": (0.9, 0.99), "best": 1.0})
        self.table = torch.linspace(0, 1, 256)

    @torch.no_grad()
    def step(self, closure: object = None) -> None:
        """Move by what is remembered, so that whatever is lost shows in the weights."""
        (group,) = self.param_groups
        group["factor"] /= 3
        group["best"] = math.inf if group["factor"] < 0.2 else group["best"]
        group["total"] = group.get("total", torch.zeros(1)) + 1
        for parameter in group["params"]:
            state = self.state[parameter]
            if not state:
                state |= {"count": 0, "seen": False, "none": None, "table": self.table}
                state["codes"] = torch.zeros_like(parameter, dtype=torch.uint8)
            state["count"] += 1
            state["seen"] = True
            state["codes"] += parameter.grad.abs().mul(100).to(torch.uint8)
            way = state["table"][state["codes"].long()] + state["count"] + group["total"]
            parameter -= group["lr"] * group["factor"] * way


def hoarder(seed: int, **settings: float) -> tuple[dict[str, Parameter], Hoarder]:
    parameters, _ = trainer(seed)
    return parameters, Hoarder(list(parameters.values()), **{"lr": 0.1, **settings})


def test_whatever_an_optimizer_remembers_comes_back(tmp_path: Path) -> None:
    """Numbers, truths and nothings as such, tensors in their type, and what a group came to hold.

    Two tensors may be one in memory. What the optimizer was made with stays as it was made.
    """
    whole = hoarder(0)
    for number in range(4):
        step(*whole, number)
        if number == 1:
            saved = save_checkpoint(tmp_path, 2, *whole, keep=1)
            before = [dict(own) for own in whole[1].state.values()]
    other = hoarder(1, lr=0.3)
    load_checkpoint(saved, *other)
    (group,) = other[1].param_groups
    assert (group["lr"], group["best"], group["betas"]) == (0.3, math.inf, (0.9, 0.99))
    for own, kept in zip(other[1].state.values(), before, strict=True):
        assert own["codes"].dtype == torch.uint8
        assert {n: own[n] for n in ("count", "seen", "none")} == {
            "count": 2,
            "seen": True,
            "none": None,
        }
        assert torch.equal(own["table"], kept["table"])
    group["lr"] = 0.1
    for number in (2, 3):
        step(*other, number)
    for name in whole[0]:
        assert torch.equal(whole[0][name], other[0][name])


def test_going_on_is_exact(tmp_path: Path) -> None:
    """Four steps equal two steps, a checkpoint, and two steps in another process's objects."""
    whole = trainer(0)
    for number in range(4):
        step(*whole, number)
        if number == 1:
            saved = save_checkpoint(tmp_path, 2, *whole, keep=1)
    other = trainer(1)
    assert load_checkpoint(saved, *other) == 2
    for number in (2, 3):
        step(*other, number)
    for name in whole[0]:
        assert torch.equal(whole[0][name], other[0][name])


@pytest.mark.parametrize("name", [LORA, OPTIMIZER, SEAL])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is missing or changed: the one before is taken, and a warning says so."""
    training = trainer(0)
    for number in range(2):
        step(*training, number)
        newest = save_checkpoint(tmp_path, number + 1, *training, keep=2)
    content = (newest / name).read_bytes()
    if damage == "missing":
        (newest / name).unlink()
    else:
        (newest / name).write_bytes(content[:-9] if damage == "cut" else b"x" + content[1:])
    assert newest_checkpoint(tmp_path) == tmp_path / "step-000001"
    assert "step-000002" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"step-000002 is (not whole|damaged)"):
        load_checkpoint(newest, *training)


def test_a_kill_while_writing_leaves_nothing_behind_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the last rename there is no folder of the checkpoint's name; the old one stays."""
    training = trainer(0)
    save_checkpoint(tmp_path, 1, *training, keep=1)

    def killed(*paths: object) -> None:
        raise SystemExit

    monkeypatch.setattr(checkpoints, "write_json_atomic", killed)
    with pytest.raises(SystemExit):
        save_checkpoint(tmp_path, 2, *training, keep=1)
    assert newest_checkpoint(tmp_path) == tmp_path / "step-000001"
    assert names(tmp_path) == ["step-000001"]


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 5, 6, 9])
def test_the_newest_stay(tmp_path: Path, keep: int) -> None:
    """Exactly `keep` stay, all where there are fewer, after every checkpoint."""
    training = trainer(0)
    for number in range(1, 6):
        save_checkpoint(tmp_path, number, *training, keep=keep)
        newest = range(max(1, number - keep + 1), number + 1)
        assert names(tmp_path) == [f"step-{n:06d}" for n in newest]


def test_what_was_not_resumed_from_gives_way(tmp_path: Path) -> None:
    """Going on from an older one, a newer one is replaced and never counted among the newest."""
    training = trainer(0)
    for number in (1, 2, 3):
        save_checkpoint(tmp_path, number, *training, keep=3)
    (tmp_path / "step-000002" / LORA).write_bytes(b"broken")
    save_checkpoint(tmp_path, 2, *training, keep=2)
    assert names(tmp_path) == ["step-000001", "step-000002"]
    assert check_checkpoint(tmp_path / "step-000002") == 2


def test_another_lora_does_not_load(tmp_path: Path) -> None:
    """A checkpoint of another rank is refused, and nothing is changed."""
    saved = save_checkpoint(tmp_path, 1, *trainer(0), keep=1)
    other, optimizer = trainer(1, rank=3)
    before = other["one.lora_A"].detach().clone()
    with pytest.raises(UserError, match="of another LoRA"):
        load_checkpoint(saved, other, optimizer)
    assert torch.equal(other["one.lora_A"], before)


def test_another_optimizer_does_not_load(tmp_path: Path) -> None:
    """What one optimizer remembers means nothing to another; nothing is changed."""
    saved = save_checkpoint(tmp_path, 1, *trainer(0), keep=1)
    parameters, optimizer = hoarder(1)
    before = parameters["one.lora_A"].detach().clone()
    with pytest.raises(UserError, match="made with the optimizer AdamW, this run has Hoarder: set"):
        load_checkpoint(saved, parameters, optimizer)
    assert torch.equal(parameters["one.lora_A"], before)


def test_a_damaged_average_is_no_whole_checkpoint(tmp_path: Path) -> None:
    """The average's file is sealed like the others."""
    saved = save_checkpoint(tmp_path, 1, *trainer(0), 1, {"one.lora_A": torch.ones(3)})
    assert check_checkpoint(saved) == 1
    (saved / AVERAGE).write_bytes(b"x")
    with pytest.raises(UserError, match=r"damaged: \['average.safetensors'\]"):
        check_checkpoint(saved)


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    """An empty or missing folder has nothing to go on from."""
    assert newest_checkpoint(tmp_path / "nowhere") is None
    with pytest.raises(UserError, match="does not exist: resume is auto, never or its folder"):
        check_checkpoint(tmp_path / "nowhere")

"""A checkpoint is whole, or it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import Parameter

from unskew.errors import UserError
from unskew.train import checkpoints
from unskew.train.checkpoints import (
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


def step(parameters: dict[str, Parameter], optimizer: torch.optim.AdamW, number: int) -> None:
    for parameter in parameters.values():
        parameter.grad = torch.sin(parameter.detach() + number)
    optimizer.step()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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


def test_the_newest_stay(tmp_path: Path) -> None:
    """Exactly `keep` stay, deleted only after their successor is whole."""
    training = trainer(0)
    for number in range(1, 6):
        save_checkpoint(tmp_path, number, *training, keep=2)
    assert names(tmp_path) == ["step-000004", "step-000005"]


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


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    """An empty or missing folder has nothing to go on from."""
    assert newest_checkpoint(tmp_path / "nowhere") is None
    with pytest.raises(UserError, match="does not exist: resume is auto, never or its folder"):
        check_checkpoint(tmp_path / "nowhere")

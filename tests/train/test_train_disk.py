"""A disk that fills up or turns read-only ends a run in a sentence, and costs no checkpoint."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from safetensors import SafetensorError

from unskew.adapters import WEIGHTS_FILE
from unskew.runs import TEMPORARY, read_manifest
from unskew.settings import run_program
from unskew.train import lora
from unskew.train.checkpoints import LORA, OPTIMIZER, check_checkpoint

Argv = Callable[..., list[str]]
FULL, READ_ONLY = (OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EROFS))
TOLD = SafetensorError("Error while serializing: I/O error: No space left (os error 28)")
MEND = "What was saved before is whole: the same command goes on from there"


def adapter(out: Path) -> bytes:
    return (out / "adapter" / WEIGHTS_FILE).read_bytes()


def check_goes_on(words: list[str], out: Path, whole: Path) -> None:
    """The checkpoint of before is there and whole, nothing else is, and the end is the same."""
    assert [f.name for f in (out / "checkpoints").iterdir() if f.name[0] != "."] == ["step-000002"]
    assert check_checkpoint(out / "checkpoints" / "step-000002") == 2
    assert not (out / "adapter").exists()
    assert run_program(lora.main, words) == 0
    assert adapter(out) == adapter(whole)
    assert not list(out.rglob(f"{TEMPORARY}*"))


@pytest.mark.parametrize(
    ("error", "everywhere"),
    [(FULL, False), (TOLD, True), (READ_ONLY, True)],
    ids=["full for a while", "full for good", "read-only"],
)
def test_a_disk_that_refuses_a_checkpoint(
    argv: Argv,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    everywhere: bool,
) -> None:
    """What, where and what to do are said, even where not so much as the manifest is written."""
    out, whole = tmp_path / "run", tmp_path / "whole"
    assert run_program(lora.main, argv(whole)) == 0
    with monkeypatch.context() as patched:
        refuse_the_second(patched, OPTIMIZER, error, everywhere)
        assert run_program(lora.main, argv(out)) == 2
    said = capsys.readouterr().err
    assert f"error: {out}/checkpoints/step-000004 could not be written (" in said
    assert MEND in said and "Traceback" not in said
    assert read_manifest(out)["status"] == ("running" if everywhere else "failed")
    check_goes_on(argv(out), out, whole)


def refuse_the_second(
    patched: pytest.MonkeyPatch, name: str, error: Exception, everywhere: bool
) -> None:
    """Let the second file of this name fail half-way; `everywhere`, all that comes after it too."""
    save, fsync, files = safetensors.torch.save_file, os.fsync, []

    def save_file(tensors: Any, file: Path, *more: Any) -> None:
        if file.name == name:
            files.append(file)
        if len(files) == 2:
            file.write_bytes(b"half")
            raise error
        save(tensors, file, *more)

    def no_fsync(descriptor: int) -> None:
        if everywhere and len(files) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    patched.setattr(safetensors.torch, "save_file", save_file)
    patched.setattr(os, "fsync", no_fsync)


def test_metrics_that_cannot_be_written(
    argv: Argv, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only what is saved whole: a line that the disk has no room for ends the run alike."""
    real = lora.Journal.record

    def record(journal: Any, done: int, values: Any) -> None:
        if done == 4:
            raise FULL
        real(journal, done, values)

    out, whole = tmp_path / "run", tmp_path / "whole"
    assert run_program(lora.main, argv(whole)) == 0
    with monkeypatch.context() as patched:
        patched.setattr(lora.Journal, "record", record)
        assert run_program(lora.main, argv(out)) == 2
    assert MEND in capsys.readouterr().err
    check_goes_on(argv(out), out, whole)


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which nothing can be made: by its mode, or as root is told."""
    folder = tmp_path / "closed"
    folder.mkdir()
    mkdir = os.mkdir

    def refuse(path: Any, *more: Any) -> None:
        if Path(path).parent == folder:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        mkdir(path, *more)

    if os.geteuid():
        folder.chmod(0o500)
    else:
        monkeypatch.setattr(os, "mkdir", refuse)
    yield folder
    folder.chmod(0o700)


def test_a_read_only_place_is_told_of_before_training(
    argv: Argv, read_only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run's folder that cannot be made is named, with what to do."""
    assert run_program(lora.main, argv(read_only / "run")) == 2
    said = capsys.readouterr().err
    assert f"error: {read_only}/run could not be written (" in said
    assert "make it writable for this user, or give another folder" in said
    assert "Traceback" not in said and not list(read_only.iterdir())


@pytest.mark.slow
def test_a_system_that_refuses_bytes(argv: Argv, attempts: Any, tmp_path: Path) -> None:
    """With a real limit on files' sizes, between the weights' and the optimizer's, in a process."""
    out, whole = tmp_path / "run", tmp_path / "whole"
    assert run_program(lora.main, argv(whole)) == 0
    made = whole / "checkpoints" / "step-000006"
    limit = ((made / LORA).stat().st_size + (made / OPTIMIZER).stat().st_size) // 2
    assert attempts.run(argv(out), kill=("os.rename", "step-000004", 1)) == -signal.SIGKILL
    assert attempts.run(argv(out), largest=limit) == 2
    assert f"error: {out}/checkpoints/step-000004 could not be written (" in attempts.said()
    assert MEND in attempts.said() and "Traceback" not in attempts.said()
    check_goes_on(argv(out), out, whole)

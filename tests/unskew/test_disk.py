"""What a disk refuses is told as something to mend; other errors stay what they are."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from unskew.disk import TROUBLES, trouble
from unskew.runs import atomic_path
from unskew.settings import run_program


@pytest.mark.parametrize("number", TROUBLES)
def test_what_is_to_be_mended_is_told(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The file, why, and what to do, in one line and without a traceback; exit code 2."""

    def main(argv: object) -> int:
        raise OSError(number, "not this text", "some/file")

    assert run_program(main, []) == 2
    said = capsys.readouterr().err
    told = f"error: some/file could not be written ({os.strerror(number)}): {TROUBLES[number]}. "
    assert said.startswith(told) and said.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "x", "file"),
        PermissionError(errno.EPERM, "not of a file, such as a signal that may not be sent"),
        OSError("without a number"),
        SafetensorError("header too large"),
        ValueError("os error 28"),
    ],
)
def test_other_errors_are_no_trouble_of_a_disk(error: Exception) -> None:
    """A fault of ours keeps its traceback."""
    assert trouble(error) is None


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "of a write, which names no file"),
        SafetensorError("Error while serializing: I/O error: full (os error 28)"),
    ],
)
def test_what_was_to_be_written_is_named(tmp_path: Path, error: Exception) -> None:
    """Under the name that it was to have, and nothing is left of it."""
    with pytest.raises(OSError, match="No space") as raised, atomic_path(tmp_path / "a") as file:
        file.write_text("half")
        raise error
    assert trouble(raised.value) == trouble(OSError(errno.ENOSPC, "", str(tmp_path / "a")))
    assert not list(tmp_path.iterdir())


def test_a_file_that_may_not_be_read_keeps_its_name(tmp_path: Path) -> None:
    """It is not taken for the one that is being written."""
    with pytest.raises(PermissionError) as raised, atomic_path(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "x", "elsewhere")
    assert raised.value.filename == "elsewhere"

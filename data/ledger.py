"""A file of JSON lines that grows: a killed program goes on after its last whole line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

Line = dict[str, Any]


class Ledger:
    """Reads what a former attempt wrote for as long as it fits, then writes on from there.

    Use as a context: `fits` line after line, then `append`. Nothing that did not fit is left.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.path = file
        self._file: BinaryIO = file.open("a+b")
        self._file.seek(0)
        self._end = 0
        self._reading = True

    def next(self) -> Line | None:
        """The next line of the former attempt, to be accepted by `keep`; None at its end."""
        if not self._reading:
            return None
        self._file.seek(self._end)
        text = self._file.readline()
        line = _parsed(text)
        self._read = len(text)
        return line

    def keep(self) -> None:
        """The line that `next` gave stays."""
        self._end += self._read

    def append(self, line: Line) -> None:
        """Write a line after those that were kept; it outlives a killed program."""
        if self._reading:
            self._cut()
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._reading and error[0] is None:
            self._cut()
        self._file.close()

    def _cut(self) -> None:
        self._file.truncate(self._end)
        self._file.seek(self._end)
        self._reading = False


def read_lines(file: Path) -> Iterator[Line]:
    """The whole lines of a ledger, one by one."""
    with file.open("rb") as lines:
        for text in lines:
            line = _parsed(text)
            if line is None:
                return
            yield line


def _parsed(text: bytes) -> Line | None:
    """A whole line; None for the piece that a killed program left, and at the end."""
    if not text.endswith(b"\n"):
        return None
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None

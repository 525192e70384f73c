"""What a run says of itself stays true when it is stopped and goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from accelerate import Accelerator

from unskew.train.journal import Journal


def write(folder: Path, first: int, last: int) -> None:
    with Journal(Accelerator(cpu=True), folder, first, 10) as journal:
        for done in range(first + 1, last + 1):
            journal.step(done, {"loss": 1 / done}, log=True)


def test_metrics_have_each_step_once(tmp_path: Path) -> None:
    """Killed after step 7, in the middle of a line, and gone on from step 4: steps 1 to 10."""
    write(tmp_path, 0, 7)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')
    write(tmp_path, 4, 10)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 11))


def test_off_a_terminal_there_are_plain_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line a record, with the step, the whole, the loss and the time left; no bar."""
    write(tmp_path, 0, 5)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 5
    assert said[-1].startswith("step 5/10  loss 0.2000  ")
    assert said[-1].endswith(" min left")


def test_the_first_steps_do_not_count(tmp_path: Path) -> None:
    """The estimate leaves the warm-up out."""
    with Journal(Accelerator(cpu=True), tmp_path, 0, 10) as journal:
        for done in (1, 2, 3):
            journal.step(done, {"loss": 1.0}, log=False)
        assert journal.seconds_per_step == 0
        journal.step(4, {"loss": 1.0}, log=False)
        assert journal.seconds_per_step > 0

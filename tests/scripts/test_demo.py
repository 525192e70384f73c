"""Promises of the demo: stages in order, stopped whole, and gone on with."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from unskew.runs import Terminated
from unskew.scripts import demo
from unskew.scripts.demo import Stage, run_stage

SAVES_ON_SIGNAL = """
import signal, subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
if len(sys.argv) == 2:  # like a launcher that waits and hands no signal on
    subprocess.Popen([sys.executable, __file__, str(folder), "worker"]).wait()
else:
    try:
        for number in (signal.SIGINT, signal.SIGTERM):  # a background shell leaves SIGINT ignored
            signal.signal(number, signal.default_int_handler)
        (folder / "begun").touch()
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.5)
        (folder / "saved").touch()
"""


def stage(folder: Path, code: str) -> Stage:
    return Stage("a stage", folder, ("-c", code))


def test_stages_run_in_order_and_end_with_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each stage is announced before what it prints; times and the report's path come last."""
    plan = (stage(tmp_path / "a", "print('first')"), stage(tmp_path / "b", "print('second')"))
    monkeypatch.setattr(demo, "stages", lambda out, *, short: plan)
    assert demo.main([]) == 0
    said = capfd.readouterr().out
    places = [said.index(word) for word in ("[1/2]", "first", "[2/2]", "second", "in all")]
    assert places == sorted(places)
    assert said.endswith(f"report: {tmp_path / 'b' / 'report.html'}\n")


@pytest.mark.parametrize(("code", "expected"), [("sys.exit(2)", 2), ("sys.exit(1)", 70)])
def test_a_failed_stage_ends_the_demo(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    code: str,
    expected: int,
) -> None:
    """Later stages do not run on what is not there; 1, which launchers make of all, is a crash."""
    plan = (stage(tmp_path, f"import sys; {code}"), stage(tmp_path, "print('later')"))
    monkeypatch.setattr(demo, "stages", lambda out, *, short: plan)
    assert demo.main(["--short"]) == expected
    captured = capfd.readouterr()
    assert "later" not in captured.out
    assert "goes on from here" in captured.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_lets_the_stage_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """It reaches a process behind a launcher, and is not over before that one has saved."""
    program = tmp_path / "program.py"
    program.write_text(SAVES_ON_SIGNAL)
    error = Terminated if number == signal.SIGTERM else KeyboardInterrupt
    wait = subprocess.Popen.wait

    def wait_until_begun(child: subprocess.Popen[bytes]) -> int:
        while not (tmp_path / "begun").exists() and child.poll() is None:
            time.sleep(0.05)
        monkeypatch.setattr(subprocess.Popen, "wait", wait)
        raise error

    monkeypatch.setattr(subprocess.Popen, "wait", wait_until_begun)
    with pytest.raises(error):
        run_stage(Stage("a stage", tmp_path, (str(program), str(tmp_path))))
    assert (tmp_path / "saved").exists()


def test_the_real_stages_are_programs_here(tmp_path: Path) -> None:
    """Every stage writes into the asked folder, and training goes through accelerate."""
    plan = demo.stages(tmp_path, short=False)
    assert len({s.folder for s in plan}) == len(plan) == 3
    assert all(s.folder.parent == tmp_path and str(s.folder) in s.command for s in plan)
    launched = next(s.command for s in plan if "accelerate.commands.launch" in s.command)
    assert any(Path(word).name == "lora.py" and Path(word).is_file() for word in launched)


def test_the_short_demo_is_the_same_path(tmp_path: Path) -> None:
    """Short only adds words that make each program's work less."""
    for full, short in zip(
        demo.stages(tmp_path, short=False), demo.stages(tmp_path, short=True), strict=True
    ):
        assert short.command[: len(full.command)] == full.command

"""Killed at any moment, or dealt over processes, a study ends in the same pictures and results."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from unskew.evaluate import paired
from unskew.runs import TEMPORARY, open_run, read_manifest
from unskew.settings import run_program

StudyOn = Callable[..., Path]
PROGRAM = str(Path(paired.__file__))
PATIENCE_S = 300
"""Far over what any of these takes."""
MOMENTS = [
    ("manifest.json", 1),
    ("0.png", 1),
    ("2.png", 4),
    ("2.png", 2),
    ("", 24),
    (".parquet", 1),
    (".parquet", 2),
    ("readings.parquet", 1),
    ("results.json", 1),
    ("pairs.png", 1),
    ("report.html", 1),
    ("manifest.json", 2),
]
"""What a study is about to put in its place, and for the how manieth time, when it is killed."""


@pytest.fixture
def study(study_on: StudyOn, tiny_base: Path) -> Path:
    """A study's YAML: the tiny base against itself with an adapter that does something."""
    return study_on(tiny_base, "unet")


def words(study: Path, out: Path) -> list[str]:
    return ["--config", str(study), "--out", str(out)]


def start(
    study: Path,
    out: Path,
    kill: tuple[str, int] | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """A child that runs the program, and kills itself at a moment; its process number."""
    child = os.fork()
    if child:
        return child
    try:
        os.environ |= env or {}
        log = os.open(study.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if kill:
            sys.addaudithook(killer(*kill))
        os._exit(run_program(paired.main, words(study, out)))
    finally:
        os._exit(99)


def killer(end: str, count: int) -> Any:
    """A hook that kills the process before it renames a file of such a name again."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "os.rename" and Path(arguments[1]).name.endswith(end):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def end(child: int) -> int:
    """The exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def made(out: Path) -> dict[str, Any]:
    """Pictures, readings and results, and that nothing is left unfinished."""
    files = {
        file.relative_to(out).as_posix(): file.read_bytes()
        for name in ("images/**/*.png", "readings.parquet", "pairs.png")
        for file in out.glob(name)
    }
    assert not list(out.rglob(f"{TEMPORARY}*"))
    assert read_manifest(out)["status"] == "complete"
    return {**files, "results.json": results(out)}


def results(out: Path) -> dict[str, Any]:
    """What results.json says, but the folder that it was asked to be in."""
    found: dict[str, Any] = json.loads((out / "results.json").read_text("utf-8"))
    del found["settings"]["study"]["out"]
    return found


@pytest.mark.slow
def test_killed_before_anything_takes_its_place(study: Path, tmp_path: Path) -> None:
    """Before a picture, readings, results, report or manifest is renamed, one after the other."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert end(start(study, whole)) == 0
    for moment in MOMENTS:
        assert end(start(study, killed, moment)) == -signal.SIGKILL, moment
    assert end(start(study, killed)) == 0
    assert len(read_manifest(killed)["resumed"]) == len(MOMENTS) - 1
    assert made(killed) == made(whole)


@pytest.mark.slow
def test_killed_at_random_moments(study: Path, tmp_path: Path) -> None:
    """Some time after its next pictures, until it gets through."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert end(start(study, whole)) == 0
    delays = random.Random(0)
    for _ in range(6):
        child, before = start(study, killed), count(killed)
        patience = time.monotonic() + PATIENCE_S
        while count(killed) <= before and time.monotonic() < patience and alive(child):
            time.sleep(0.002)
        time.sleep(delays.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        assert end(child) in (0, -signal.SIGKILL)
    assert end(start(study, killed)) == 0
    assert made(killed) == made(whole)


def count(out: Path) -> int:
    return len(list(out.glob("images/*/*/*.png")))


def alive(child: int) -> bool:
    return psutil.Process(child).status() != psutil.STATUS_ZOMBIE


def test_two_programs_on_one_folder_end_in_a_sentence(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second names the first and leaves it alone; after a kill nothing is locked."""
    out = tmp_path / "study"
    child = start(study, out, ("results.json", 1))
    patience = time.monotonic() + PATIENCE_S
    while not (out / "manifest.json").exists():
        assert time.monotonic() < patience and alive(child)
        time.sleep(0.002)
    os.kill(child, signal.SIGSTOP)
    assert run_program(paired.main, words(study, out)) == 2
    assert f"{out} is in use by process {child}" in capsys.readouterr().err
    os.kill(child, signal.SIGCONT)
    assert end(child) == -signal.SIGKILL
    assert run_program(paired.main, words(study, out)) == 0


def start_two(study: Path, out: Path) -> list[int]:
    """Two children that run the program together, as a launcher would start them."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    shared |= {"LOCAL_WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    return [start(study, out, env=shared | rank) for rank in ranks]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def launch(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Two processes that run the program, in a process group of their own."""
    launcher = f"-m torch.distributed.run --nproc-per-node 2 --master-port {free_port()}".split()
    command = [sys.executable, *launcher, PROGRAM, *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)


def said_by(process: subprocess.Popen[bytes]) -> str:
    """What it said until it ended; aborted when it hangs."""
    try:
        return process.communicate(timeout=PATIENCE_S)[1].decode()
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


@pytest.mark.slow
def test_two_processes_make_what_one_makes(study: Path, tmp_path: Path) -> None:
    """The same bytes; one that is killed ends both, and the next two go on from there."""
    one, two = tmp_path / "one", tmp_path / "two"
    assert run_program(paired.main, words(study, one)) == 0
    first, second = start_two(study, two)
    patience = time.monotonic() + PATIENCE_S
    while count(two) == 0:
        assert time.monotonic() < patience and alive(first) and alive(second)
        time.sleep(0.002)
    os.kill(second, signal.SIGKILL)
    assert end(second) == -signal.SIGKILL
    assert end(first) != 0
    assert read_manifest(two)["status"] != "complete"
    process = launch(words(study, two))
    print(said := said_by(process))
    assert process.returncode == 0
    assert said.count("2 arms x 15 pictures") == 1
    assert made(two) == made(one)


def test_an_error_of_the_first_process_ends_both(
    study: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody waits for a process that stopped: here for a folder that another one holds."""
    out = tmp_path / "study"
    held = {"program": "x", "settings": {}, "passed": [], "inputs": {}}
    with open_run(out, **held) as run:  # type: ignore[arg-type]
        assert [end(child) != 0 for child in start_two(study, out)] == [True, True]
        run.finish("complete")
    said = capfd.readouterr().err + (study.parent / "log").read_text("utf-8")
    assert f"{out} is in use by process {os.getpid()}" in said
    assert "the first process ended" in said


@pytest.mark.slow
def test_accelerate_launch_says_how_many_it_started(study: Path, tmp_path: Path) -> None:
    """On a CPU it starts one whatever it was told: the same results, and a warning."""
    one, launched = tmp_path / "one", tmp_path / "launched"
    assert run_program(paired.main, words(study, one)) == 0
    command = "-m accelerate.commands.launch --quiet --num_processes 2 --num_machines 1 --cpu"
    more = "--mixed_precision no --dynamo_backend no"
    process = subprocess.Popen(
        [sys.executable, *command.split(), *more.split(), PROGRAM, *words(study, launched)],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    print(said := said_by(process))
    assert process.returncode == 0
    assert "warning: accelerate launch starts one process" in said
    assert made(launched) == made(one)

"""Promises of run folders: whole or not at all, one process at a time, the same job or none."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unskew.errors import UserError
from unskew.runs import (
    Run,
    Terminated,
    atomic_path,
    git_state,
    open_run,
    read_manifest,
    sha256_file,
    sha256_folder,
    sigterm_raises,
    write_json_atomic,
    write_text_atomic,
)

SETTINGS: Mapping[str, Any] = {"lora": {"rank": 8}, "out": Path("a")}

HOLDER = """
import sys, time
from pathlib import Path
from unskew.runs import open_run
folder = Path(sys.argv[1])
with open_run(folder, program="p", settings={"lora": {"rank": 8}, "out": Path("a")},
              passed=[], inputs={"base": "ab"}) as run:
    (folder / ".unfinished-1-image.png").write_bytes(b"half")
    print("open", run.resumed, flush=True)
    time.sleep(60)
"""


def begin(folder: Path, settings: Mapping[str, Any] = SETTINGS, base: str = "ab") -> Run:
    return open_run(folder, program="p", settings=settings, passed=[], inputs={"base": base})


def status(folder: Path) -> str:
    return str(read_manifest(folder)["status"])


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@pytest.fixture
def held(tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    """Another live process that holds an open run in a folder."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open False\n"
    return process, folder


def end(process: subprocess.Popen[str], number: signal.Signals) -> int:
    process.send_signal(number)
    process.communicate(timeout=20)
    return process.returncode


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    """An exception while writing leaves the old file as it was and nothing beside it."""
    file = tmp_path / "deep" / "a.txt"
    write_text_atomic(file, "old")

    def break_off() -> None:
        with atomic_path(file) as temporary:
            temporary.write_text("ne")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        break_off()
    assert file.read_text() == "old"
    assert names(file.parent) == {"a.txt"}


def test_the_temporary_path_keeps_the_suffix(tmp_path: Path) -> None:
    """Writers that choose a format by suffix write the right one."""
    with atomic_path(tmp_path / "a.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
        temporary.touch()


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    """A checkpoint folder has its final name only when everything is in it."""
    with atomic_path(tmp_path / "step-1") as temporary:
        (temporary / "deep").mkdir(parents=True)
        (temporary / "deep" / "a").write_text("1")
        assert not (tmp_path / "step-1").exists()
    assert (tmp_path / "step-1" / "deep" / "a").read_text() == "1"


def test_json_that_is_no_json_is_refused(tmp_path: Path) -> None:
    """NaN never reaches a file that other tools read."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_atomic(tmp_path / "a.json", {"loss": float("nan")})
    assert names(tmp_path) == set()


@given(
    files=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.binary(max_size=9), min_size=1)
)
def test_a_folders_hash_is_its_content(
    files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Equal for equal files however written; different when a name or a byte differs."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for name, content in files.items():
        (one / name).write_bytes(content)
    for name, content in reversed(files.items()):
        (two / name).write_bytes(content)
    (two / ".lock").touch()
    (two / "manifest.json").touch()
    assert sha256_folder(one) == sha256_folder(two)
    name = next(iter(files))
    (two / name).write_bytes(files[name] + b"x")
    assert sha256_folder(one) != sha256_folder(two)
    (two / name).write_bytes(files[name])
    (two / name).rename(two / f"{name}x")
    assert sha256_folder(one) != sha256_folder(two)


def test_a_files_hash_is_sha256(tmp_path: Path) -> None:
    """The hash is the one that sha256sum prints."""
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_a_run_says_what_it_was_asked(tmp_path: Path) -> None:
    """The manifest holds settings, inputs, facts and versions, and says complete only when told."""
    with open_run(
        tmp_path, program="p", settings=SETTINGS, passed=["out"], inputs={"base": "ab"}
    ) as run:
        assert status(tmp_path) == "running"
        assert (run.resumed, run.was_complete) == (False, False)
        run.finish("complete", {"device": "cpu"})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["settings"] == {"lora": {"rank": 8}, "out": "a"}
    assert (manifest["passed"], manifest["inputs"]) == (["out"], {"base": "ab"})
    assert manifest["facts"] == {"device": "cpu"}
    assert manifest["versions"]["torch"]
    assert manifest["schema_version"] == 1


def test_the_same_again_goes_on_and_then_has_nothing_to_do(tmp_path: Path) -> None:
    """Equal settings continue an unfinished run, and find a finished one finished."""
    begin(tmp_path).release()
    again = begin(tmp_path)
    assert (again.resumed, again.was_complete) == (True, False)
    again.finish("complete")
    with begin(tmp_path) as third:
        assert (third.resumed, third.was_complete) == (True, True)
    assert status(tmp_path) == "complete"


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    """Every dotted path that differs is shown, old and new, and the run stays as it was."""
    begin(tmp_path).release()
    (tmp_path / "made").touch()
    before = (tmp_path / "manifest.json").read_text()
    with pytest.raises(UserError) as error:
        begin(tmp_path, {"lora": {"rank": 4, "alpha": 1.0}, "out": "a"}, base="cd")
    lines = str(error.value).splitlines()
    assert "  lora.rank: 8 -> 4" in lines
    assert "  lora.alpha: (not set) -> 1.0" in lines
    assert '  inputs.base: "ab" -> "cd"' in lines
    assert not any("out" in line for line in lines[1:-1])
    assert (tmp_path / "manifest.json").read_text() == before


def test_an_attempt_that_made_nothing_binds_no_one(tmp_path: Path) -> None:
    """After a failed start the settings may be mended in the same folder."""
    with pytest.raises(ZeroDivisionError), begin(tmp_path):
        raise ZeroDivisionError
    with begin(tmp_path, {"lora": {"rank": 4}}) as run:
        assert not run.resumed


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    """A folder with files but no manifest is not taken over."""
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="give another folder"):
        begin(tmp_path)
    assert names(tmp_path) - {".lock"} == {"thesis.txt"}


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 99}'])
def test_an_unreadable_manifest_is_an_error(tmp_path: Path, content: str) -> None:
    """A broken or newer manifest is never taken for a fresh folder."""
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        begin(tmp_path)


@pytest.mark.parametrize(
    ("error", "expected"), [(KeyboardInterrupt, "interrupted"), (ValueError, "failed")]
)
def test_a_broken_off_run_says_so(
    tmp_path: Path, error: type[BaseException], expected: str
) -> None:
    """An exception passes through and its kind is written."""
    with pytest.raises(error), begin(tmp_path):
        raise error
    assert status(tmp_path) == expected


def test_a_run_is_never_complete_by_accident(tmp_path: Path) -> None:
    """Leaving the block without finish("complete") is a failure."""
    with begin(tmp_path):
        pass
    assert status(tmp_path) == "failed"


def test_an_error_after_the_end_undoes_nothing(tmp_path: Path) -> None:
    """What was finished stays finished."""
    with pytest.raises(ValueError, match="later"), begin(tmp_path) as run:
        run.finish("complete")
        raise ValueError("later")
    assert status(tmp_path) == "complete"


def test_two_processes_never_share_a_folder(held: tuple[subprocess.Popen[str], Path]) -> None:
    """While one lives the other is refused by name; SIGTERM ends it as interrupted."""
    process, folder = held
    with pytest.raises(UserError, match=f"in use by process {process.pid}"):
        begin(folder)
    end(process, signal.SIGTERM)
    assert status(folder) == "interrupted"
    begin(folder).release()


def test_a_killed_run_is_taken_over(held: tuple[subprocess.Popen[str], Path]) -> None:
    """After SIGKILL the lock is stale, the status still running, half-written files are swept."""
    process, folder = held
    assert end(process, signal.SIGKILL) == -signal.SIGKILL
    assert status(folder) == "running"
    with begin(folder) as run:
        assert (run.resumed, run.was_complete) == (True, False)
        assert names(folder) == {".lock", "manifest.json"}
        run.finish("complete")


def test_sigterm_interrupts_as_ctrl_c_does(tmp_path: Path) -> None:
    """Inside the block SIGTERM raises; after it the program's own handling is back."""
    with pytest.raises(Terminated), sigterm_raises():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_commit_is_of_the_code_and_not_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the program is started does not matter."""
    here = git_state()
    monkeypatch.chdir(tmp_path)
    assert git_state() == here
    assert set(here) == {"commit", "dirty"}

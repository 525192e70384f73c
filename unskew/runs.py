"""Run folders: what a program was asked, what it made, and proof that it finished.

Whatever says that something is done is written under a temporary name, fsynced and renamed, so a
program killed at any point leaves either nothing or the whole of it. The same settings again go
on where the run stopped; other settings in the same folder are an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO, Literal, Self

from unskew.disk import of_the_disk
from unskew.errors import UserError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
LOCK = ".lock"
TEMPORARY = ".unfinished-"
PACKAGES = ("unskew", "accelerate", "diffusers", "numpy", "peft", "scipy", "torch", "transformers")
NOTHING: Mapping[str, Any] = {}
MISSING = "(not set)"

Status = Literal["running", "complete", "failed", "interrupted"]


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. A KeyboardInterrupt, so whatever saves on Ctrl-C saves on this too."""


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Inside, SIGTERM raises Terminated, unless the program already handles it in its own way."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated("terminated")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, of the same suffix; write a file or make a folder there.

    Leaving the block in peace fsyncs it and renames it to `path`, replacing a file (a folder must
    not exist yet). Leaving it by an exception removes it. What the system says of a disk that is
    full, or may not be written to, comes out as an OSError that names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    _remove(temporary)
    try:
        yield temporary
        for part in (*temporary.rglob("*"), temporary):
            _fsync(part)
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the same disk's; a next attempt sweeps it away
            _remove(temporary)
        file, number = getattr(error, "filename", None), of_the_disk(error)
        if number is not None and (file is None or Path(file).is_relative_to(temporary)):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    _fsync(path.parent)


def write_text_atomic(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json_atomic(path: Path, obj: object) -> None:
    """Write readable JSON whole or not at all. NaN and infinity, which are no JSON, raise."""
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    write_text_atomic(path, text + "\n")


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(path: Path) -> str:
    """Hexadecimal sha256 of a folder's content: sorted relative names and each file's sha256.

    Hidden files (locks, unfinished writes) and run manifests (they hold the time) are left out,
    so that the same content made twice has the same hash.
    """
    digest = hashlib.sha256()
    names = (f.relative_to(path) for f in path.rglob("*") if f.is_file())
    for name in sorted(names, key=lambda name: name.as_posix()):
        if name.name != MANIFEST and not any(part.startswith(".") for part in name.parts):
            digest.update(f"{name.as_posix()}\0{sha256_file(path / name)}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Run:
    """An open run folder, locked by this process until `finish` or the end of its `with` block.

    As a context manager: SIGTERM and Ctrl-C write status "interrupted", any other exception, or
    leaving a run that was not complete without `finish`, writes "failed".
    """

    folder: Path
    manifest_path: Path
    resumed: bool
    """An earlier attempt with the same settings and inputs had begun here."""
    was_complete: bool
    """It had also finished: there is nothing left to do."""
    _lock: BinaryIO
    _exit: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)

    def finish(
        self,
        status: Literal["complete", "failed", "interrupted"],
        facts: Mapping[str, Any] = NOTHING,
    ) -> None:
        """Write how it ended, with further facts for the manifest, and let the folder go."""
        manifest = read_manifest(self.folder)
        manifest |= {"status": status, "ended": _now(), "facts": {**manifest["facts"], **facts}}
        write_json_atomic(self.manifest_path, manifest)
        self.release()

    def release(self) -> None:
        """Let another process have the folder; done by `finish` and at the end of `with`."""
        self._lock.close()

    def __enter__(self) -> Self:
        self._exit.enter_context(sigterm_raises())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._exit, contextlib.closing(self._lock):
            if self._lock.closed:  # finished
                return
            if isinstance(error, KeyboardInterrupt):
                self.finish("interrupted")
            elif error is not None:
                with contextlib.suppress(OSError):  # why it ended matters, not that it is untold
                    self.finish("failed", {"error": f"{type(error).__name__}: {error}"})
            elif not self.was_complete:
                self.finish("failed", {"error": "the program ended without completing the run"})


def open_run(
    folder: Path,
    *,
    program: str,
    settings: Mapping[str, Any],
    passed: Sequence[str],
    inputs: Mapping[str, str],
    facts: Mapping[str, Any] | Callable[[Mapping[str, Any] | None], Mapping[str, Any]] = NOTHING,
    may_change: Sequence[str] = (),
) -> Run:
    """Begin a run in `folder`, or go on with the one that is there.

    `settings` are the resolved ones, `passed` the dotted names given on the command line,
    `inputs` name -> sha256 of what is read, `facts` what was chosen and why, or what makes that of
    the facts of the attempt before (None where there was none). Settings and inputs
    must be those of the attempt before, if it made anything; versions and facts may differ, and
    so may what is named in `may_change` (dotted, with all inside it, and inputs "NAME of ..."): a
    run that was complete is then begun again.
    Raises UserError when they differ, when the folder holds something else, or when another
    process is at work in it.
    """
    asked = {"program": program, "settings": settings, "inputs": inputs}
    asked = json.loads(json.dumps(asked, default=str))
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock_folder(folder)
    try:
        earlier = _earlier_attempt(folder, asked, may_change)
        manifest_path = folder / MANIFEST
        complete = earlier is not None and earlier["status"] == "complete"
        complete = complete and not _differences(earlier or {}, asked)
        if not complete:
            _sweep(folder)
            told = facts(earlier and earlier["facts"]) if callable(facts) else facts
            write_json_atomic(manifest_path, _manifest(asked, passed, told, earlier))
    except BaseException:
        lock.close()
        raise
    return Run(folder, manifest_path, earlier is not None, complete, lock)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder while adding to it. Raises UserError when another program does."""
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} is no run folder: it has no {MANIFEST}")
    with held(folder):
        yield


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder of one's own, made where there is none. Raises UserError as `locked`."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(_lock_folder(folder)):
        yield


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder. Raises UserError when it is missing or of another version."""
    file = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(file.read_text("utf-8"))
        version = manifest.get("schema_version")
    except FileNotFoundError:
        raise UserError(f"{folder} is no run folder: it has no {MANIFEST}") from None
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error}): delete the folder") from None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{file} has schema_version {version}, this version reads {SCHEMA_VERSION}: "
            "give another folder"
        )
    return manifest


def git_state() -> dict[str, Any]:
    """{"commit", "dirty"} of the checkout that this code runs from; None each outside of one."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ("git", "-C", str(here.parent), *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # not a checkout that only surrounds us
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": git("status", "--porcelain", "-uno") != "",
        }
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _manifest(
    asked: dict[str, Any],
    passed: Sequence[str],
    facts: Mapping[str, Any],
    earlier: dict[str, Any] | None,
) -> dict[str, Any]:
    git = git_state()
    if earlier and earlier["git"].get("dirty"):  # a part of it was made by code that is nowhere
        git["dirty"] = True
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        **asked,
        "passed": list(passed),
        "facts": dict(facts),
        "git": git,
        "versions": _versions(),
        "started": earlier["started"] if earlier else _now(),
        "resumed": [*earlier["resumed"], _now()] if earlier else [],
    }


def _versions() -> dict[str, str]:
    versions = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _earlier_attempt(
    folder: Path, asked: dict[str, Any], may_change: Sequence[str]
) -> dict[str, Any] | None:
    """The manifest to go on from; None where nothing has been made yet."""
    visible = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    if MANIFEST not in visible:
        if visible:
            raise UserError(
                f"{folder} holds files but no {MANIFEST}, so no run began there: "
                "give another folder"
            )
        return None
    manifest = read_manifest(folder)
    free = tuple(f"{name}{end}" for name in may_change for end in (".", " "))
    found = _differences(manifest, asked)
    lines = [f"  {path}: {change}" for path, change in found if not f"{path}.".startswith(free)]
    if not lines:
        return manifest
    if visible == {MANIFEST} and manifest["status"] != "complete":
        return None
    raise UserError(
        f"{folder} was made with other settings or inputs (there -> now):\n"
        + "\n".join(lines)
        + "\nGive another folder, ask for the same again, or delete this one."
    )


def _differences(manifest: dict[str, Any], asked: dict[str, Any]) -> list[tuple[str, str]]:
    """(dotted path, "there -> now") of all in which a manifest is not what is asked."""
    old, new = (_flat({name: said.get(name) for name in asked}) for said in (manifest, asked))
    pairs = [(p, old.get(p, MISSING), new.get(p, MISSING)) for p in {**old, **new}]
    return [(path, f"{there} -> {now}") for path, there, now in pairs if there != now]


def _flat(value: object, prefix: str = "") -> dict[str, str]:
    """Dotted path -> JSON text of every leaf; `settings.` is left out, as the user writes it."""
    if isinstance(value, dict) and value:
        parts: dict[str, str] = {}
        for key, part in value.items():
            inner = f"{prefix}.{key}" if prefix else "" if key == "settings" else key
            parts |= _flat(part, inner)
        return parts
    return {prefix: json.dumps(value, ensure_ascii=False)}


def _lock_folder(folder: Path) -> BinaryIO:
    """Lock the folder for this process; the kernel frees it when the process dies in any way."""
    lock = (folder / LOCK).open("a+b", buffering=0)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        pid = lock.read(32).decode("ascii", "replace") or "unknown"
        lock.close()
        raise UserError(
            f"{folder} is in use by process {pid}: wait for it, stop it, or give another folder"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()).encode())
    return lock


def _sweep(folder: Path) -> None:
    """Remove what a killed attempt left half-written; the lock is held, so no one is writing."""
    for leftover in list(folder.rglob(f"{TEMPORARY}*")):
        _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

"""Tensors kept on disk under keys, many to a file, found again by their key in any later run.

A file is written whole or not at all. One that cannot be read is named, and its entries are made
anew. What a stop, an error or a full disk leaves is whole: the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from unskew.errors import UserError
from unskew.runs import atomic_path

SHARD = 256
"""Entries in one file: what a kill can cost. A stop (Ctrl-C, SIGTERM, an error) costs nothing."""
SUFFIX = ".safetensors"
T = TypeVar("T")
Make = Callable[[Iterable[T]], Generator[Tensor, None, None]]
"""From things to their tensors, one each, in their order."""


@dataclass(frozen=True)
class Kept:
    """What was asked for, and what it took."""

    tensors: Mapping[str, Tensor]
    """Key -> tensor on the CPU; empty where they were only to be put on disk."""
    made: int
    found: int


def through_cache(
    wanted: Mapping[str, T], make: Make[T], folder: Path | None, *, keep: bool = True
) -> Kept:
    """All of `wanted` (key -> what to make it from): read from `folder`, or made and put there.

    A folder of None keeps nothing on disk, keep=False nothing in memory. A folder that cannot be
    written to does no harm while nothing is missing. Raises UserError when it cannot be read or
    written, before anything is made where that can be known.
    """
    found, tensors = _read(folder, wanted, keep) if folder else (set[str](), {})
    missing = {key: thing for key, thing in wanted.items() if key not in found}
    if folder and missing:
        _check_writable(folder)
    for shard in _made(missing, make, folder):
        if keep:
            tensors |= shard
    return Kept(tensors, len(missing), len(found))


def key_of(*parts: str) -> str:
    """A name that is a function of these texts, in their order, alone."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _made(
    missing: Mapping[str, T], make: Make[T], folder: Path | None
) -> Iterator[dict[str, Tensor]]:
    """Shard after shard, each on disk by the time it comes out."""
    shard: dict[str, Tensor] = {}
    left = len(missing)
    quiet = not sys.stderr.isatty() or not missing
    with (
        tqdm(total=left, desc="encoding", disable=quiet) as bar,
        contextlib.closing(make(missing.values())) as making,  # ends its threads, whatever happens
    ):
        try:
            for key, tensor in zip(missing, making, strict=True):
                shard[key] = tensor.contiguous()
                bar.update()
                if len(shard) == SHARD:
                    full, shard = shard, {}
                    _write(folder, full, left)
                    left -= len(full)
                    yield full
        except BaseException:
            with contextlib.suppress(UserError):  # what is made is paid for; why it ended matters
                _write(folder, shard, left)
            raise
    _write(folder, shard, left)
    yield shard


def _write(folder: Path | None, shard: Mapping[str, Tensor], left: int) -> None:
    """Put a shard on disk; `left` entries, these among them, are still to be written in all."""
    if folder is None or not shard:
        return
    try:
        with atomic_path(folder / f"{key_of(*shard)}{SUFFIX}") as temporary:
            safetensors.torch.save_file(dict(shard), temporary)
    except (OSError, SafetensorError) as error:  # a full disk is the one or the other
        size = sum(tensor.nbytes for tensor in shard.values()) / len(shard)
        raise UserError(
            f"cache {folder}: {len(shard)} entries could not be written ({error}). Make room for "
            f"the {left} that are left ({left * size / 2**20:,.1f} MiB) or give another folder as "
            "cache; what was written before them is whole and will be found again"
        ) from error


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"cache {folder}: cannot be written to ({error}), and lacks entries that this run "
            "needs: make it writable, or give another folder as cache"
        ) from error


def _read(
    folder: Path, wanted: Mapping[str, object], keep: bool
) -> tuple[set[str], dict[str, Tensor]]:
    """Which of `wanted` are there, and their tensors if they are to be kept."""
    found: set[str] = set()
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob(f"[!.]*{SUFFIX}")):  # hidden: another run is writing it now
        try:
            with safe_open(file, "pt") as entries:
                here = [key for key in entries.keys() if key in wanted]  # noqa: SIM118
                if keep:
                    tensors |= {key: entries.get_tensor(key) for key in here}
                found.update(here)
        except SafetensorError as error:
            print(f"{file} cannot be read ({error}); its entries are made anew", file=sys.stderr)
            with contextlib.suppress(OSError):  # where it cannot be removed it stays unused
                file.unlink()
        except FileNotFoundError:
            continue  # another run has just removed it for being broken
        except OSError as error:
            raise UserError(
                f"cache {file}: cannot be read ({error}): make it readable, delete it, or give "
                "another folder as cache"
            ) from error
    return found, tensors

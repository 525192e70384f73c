"""What is on disk is whole, is found again, and a disk that fails is told of."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from unskew.errors import UserError
from unskew.train import shards
from unskew.train.shards import key_of, through_cache

FULL = "Error while serializing: I/O error: No space left on device (os error 28)"
WANTED = {f"key {n}": n for n in range(5)}


def make(numbers: Iterable[int]) -> Generator[Tensor, None, None]:
    yield from (torch.full((2, 3), float(n)) for n in numbers)


def make_none(numbers: Iterable[int]) -> Generator[Tensor, None, None]:
    assert not list(numbers), "all was there"
    yield from ()


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two entries a file."""
    monkeypatch.setattr(shards, "SHARD", 2)


@pytest.fixture(params=[OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), SafetensorError(FULL)])
def full_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that holds one shard and half of the second, and says so in either way."""
    real, written = safetensors.torch.save_file, []

    def save_file(tensors: dict[str, Tensor], file: Path) -> None:
        if written:
            file.write_bytes(b"half")
            raise request.param
        written.append(file)
        real(tensors, file)

    monkeypatch.setattr(safetensors.torch, "save_file", save_file)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_all_of_it_is_found_again(tmp_path: Path) -> None:
    """In the same bits, without making anything; what is new is made and added."""
    first = through_cache(WANTED, make, tmp_path / "c")
    assert (first.made, first.found, len(names(tmp_path / "c"))) == (5, 0, 3)
    again = through_cache(WANTED, make_none, tmp_path / "c")
    assert (again.made, again.found) == (0, 5)
    assert all(torch.equal(again.tensors[k], first.tensors[k]) for k in WANTED)
    more = through_cache({**WANTED, "new": 9}, make, tmp_path / "c")
    assert (more.made, more.found) == (1, 5)
    assert torch.equal(more.tensors["new"], torch.full((2, 3), 9.0))


def test_filling_holds_nothing_in_memory(tmp_path: Path) -> None:
    """All is on disk afterwards, nothing is returned."""
    filled = through_cache(WANTED, make, tmp_path / "c", keep=False)
    assert (dict(filled.tensors), filled.made) == ({}, 5)
    assert through_cache(WANTED, make_none, tmp_path / "c", keep=False).found == 5


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_told_of_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """Folder, what is missing and what to do; what was written before it is found again."""
    with pytest.raises(
        UserError, match=r"(?s)cache .*c: .*No space left.*3 that are left .*another folder"
    ):
        through_cache(WANTED, make, tmp_path / "c")
    assert len(names(tmp_path / "c")) == 1
    assert through_cache({k: WANTED[k] for k in ("key 0", "key 1")}, make_none, tmp_path / "c")


def test_what_the_system_refuses_to_write_is_told_of(tmp_path: Path) -> None:
    """The real writer at a real limit, whatever kind of error it makes of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match=r"could not be written .*File too large"):
            through_cache({"key": 0}, lambda _: (torch.zeros(10**6) for _ in "1"), tmp_path / "c")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path / "c") == []


@pytest.mark.usefixtures("full_disk")
def test_a_stop_on_a_full_disk_is_a_stop(tmp_path: Path) -> None:
    """That what was made cannot be saved does not hide why the program ends."""

    def stopped(numbers: Iterable[int]) -> Generator[Tensor, None, None]:
        for n in numbers:
            if n == 3:
                raise KeyboardInterrupt
            yield torch.full((2, 3), float(n))

    with pytest.raises(KeyboardInterrupt):
        through_cache(WANTED, stopped, tmp_path / "c")
    assert len(names(tmp_path / "c")) == 1


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache with the first entries that cannot be written to: by its mode, or as root is told."""
    folder = tmp_path / "c"
    through_cache({k: WANTED[k] for k in ("key 0", "key 1")}, make, folder)
    mode = folder.stat().st_mode
    if os.geteuid():
        folder.chmod(0o500)
    else:

        def refuse(*args: object, **kwargs: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))

        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
        monkeypatch.setattr(shards, "atomic_path", refuse)
        monkeypatch.setattr(Path, "unlink", refuse)
    yield folder
    folder.chmod(mode)


def test_a_read_only_cache_is_told_of_before_anything_is_made(read_only: Path) -> None:
    """An hour of encoding is not spent on what cannot be kept."""
    made: list[int] = []

    def counting(numbers: Iterable[int]) -> Generator[Tensor, None, None]:
        for n in numbers:
            made.append(n)
            yield torch.zeros(1)

    with pytest.raises(UserError, match=r"cache .*c: cannot be written to .*make it writable"):
        through_cache(WANTED, counting, read_only)
    assert not made


def test_a_read_only_cache_that_lacks_nothing_will_do(read_only: Path) -> None:
    """Machines that only train may share one that they cannot change."""
    wanted = {k: WANTED[k] for k in ("key 0", "key 1")}
    assert through_cache(wanted, make_none, read_only).found == 2


def test_a_cache_that_is_a_file_is_told_of(tmp_path: Path) -> None:
    """The folder's name is taken by something else."""
    (tmp_path / "c").write_text("")
    with pytest.raises(UserError, match="cannot be written to"):
        through_cache(WANTED, make, tmp_path / "c")


@pytest.mark.parametrize("damage", ["cut", "emptied", "zeroed"])
def test_a_broken_shard_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    """It is named, and only its entries are made anew."""
    first = through_cache(WANTED, make, tmp_path / "c")
    file = tmp_path / "c" / names(tmp_path / "c")[0]
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[:-1], "emptied": b"", "zeroed": bytes(len(whole))}[damage])
    again = through_cache(WANTED, make, tmp_path / "c")
    assert again.made in (1, 2)
    assert all(torch.equal(again.tensors[k], first.tensors[k]) for k in WANTED)
    assert f"{file} cannot be read" in capsys.readouterr().err
    assert through_cache(WANTED, make_none, tmp_path / "c").found == 5


def test_what_another_run_is_writing_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs may share a cache: a file that is not finished is neither read nor removed."""
    through_cache(WANTED, make, tmp_path / "c")
    half = tmp_path / "c" / ".unfinished-1-x.safetensors"
    shutil.copy(tmp_path / "c" / names(tmp_path / "c")[0], half)
    half.write_bytes(half.read_bytes()[:20])
    assert through_cache(WANTED, make_none, tmp_path / "c").found == 5
    assert half.exists() and not capsys.readouterr().err


def test_a_key_is_of_its_parts_in_their_order() -> None:
    """Neither their sum nor their set."""
    keys = {key_of("ab", "c"), key_of("a", "bc"), key_of("bc", "a"), key_of("abc")}
    assert len(keys) == 4

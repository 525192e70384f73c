"""Promises of streams: shards and hub datasets give their pictures once, and go on when killed."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unskew.attributes import load_attribute
from unskew.data import gather_streams
from unskew.data.build_setup import Setup
from unskew.data.gather import Gathered
from unskew.data.gather_streams import gather_stream
from unskew.data.sources import HubSettings, ShardSettings
from unskew.errors import UserError


def png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def shard(file: Path, numbers: range) -> None:
    """A tar with a picture, its caption and its labels for each number."""
    with tarfile.open(file, "w") as tar:
        for n in numbers:
            label = json.dumps({"presentation": "woman", "subject": f"s{n}", "secret": 1}).encode()
            for ending, content in (
                ("png", png(n)),
                ("txt", f"picture {n}\n".encode()),
                ("json", label),
            ):
                info = tarfile.TarInfo(f"{n:04d}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def gathered(source: HubSettings | ShardSettings, out: Path) -> list[Gathered]:
    setup = Setup(out, {"presentation": load_attribute("presentation")})
    return list(gather_stream(0, source, setup))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `datasets` keeps what it prepares."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def test_shards_give_pictures_captions_and_labels(home: Path) -> None:
    """In the shards' order, bytes unchanged; columns that nobody asked for stay where they are."""
    shard(home / "a-0.tar", range(3))
    shard(home / "a-1.tar", range(3, 5))
    found = gathered(ShardSettings(kind="shards", shards=(str(home / "a-*.tar"),)), home / "out")
    assert [g.name for g in found] == [f"a-{n // 3}.tar/{n:04d}" for n in range(5)]
    for n, one in enumerate(found):
        assert one.file is not None and one.file.read_bytes() == png(n)
        assert one.fields == {"text": f"picture {n}", "subject": f"s{n}", "presentation": "woman"}


def test_a_stream_goes_on_after_what_it_has(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after some, the next attempt passes over those; one that was done reads nothing."""
    shard(home / "a.tar", range(6))
    source = ShardSettings(kind="shards", shards=(str(home / "a.tar"),))
    setup = Setup(home / "out", {"presentation": load_attribute("presentation")})
    stream = gather_stream(0, source, setup)
    first = [next(stream) for _ in range(3)]
    stream.close()  # type: ignore[attr-defined]
    skipped: list[int] = []
    real = gather_streams._of_shards

    def counting(source: ShardSettings, skip: int) -> object:
        skipped.append(skip)
        return real(source, skip)

    monkeypatch.setattr(gather_streams, "_of_shards", counting)
    found = gathered(source, home / "out")
    assert found[:3] == first and len(found) == 6 and skipped == [3]
    assert gathered(source, home / "out") == found and skipped == [3]


def test_a_hub_dataset_gives_its_split(home: Path) -> None:
    """A folder that `datasets` loads; class labels come as their names."""
    import datasets

    features = datasets.Features(
        image=datasets.Image(), presentation=datasets.ClassLabel(names=["woman", "man"])
    )
    rows = [{"image": {"bytes": png(n), "path": None}, "presentation": n % 2} for n in range(3)]
    (home / "set" / "data").mkdir(parents=True)
    table = datasets.Dataset.from_list(rows, features=features)
    table.to_parquet(home / "set" / "data" / "train-0.parquet")
    source = HubSettings(kind="hub", dataset=str(home / "set"))
    found = gathered(source, home / "out")
    assert [g.name for g in found] == [f"train/{n:07d}" for n in range(3)]
    assert [g.fields["presentation"] for g in found] == ["woman", "man", "woman"]
    assert [g.file.read_bytes() if g.file else b"" for g in found] == [png(n) for n in range(3)]
    with pytest.raises(UserError, match="has no column 'photo'"):
        gathered(source.model_copy(update={"picture": "photo"}), home / "other")


def test_what_cannot_be_had_is_an_error_of_the_user(home: Path) -> None:
    """No such shard, no such dataset: the message says what to check."""
    with pytest.raises(UserError, match="there is no"):
        gathered(ShardSettings(kind="shards", shards=(str(home / "no*.tar"),)), home / "out")
    with pytest.raises(UserError, match="cannot be read"):
        gathered(HubSettings(kind="hub", dataset=str(home / "nothing")), home / "out")


def test_another_dataset_in_the_same_place_is_read_anew(home: Path) -> None:
    """So is the same with another column; what the first one gave never comes under its name."""
    shard(home / "a.tar", range(3))
    shard(home / "b.tar", range(3, 6))
    first, second = (
        gathered(ShardSettings(kind="shards", shards=(str(home / name),)), home / "out")
        for name in ("a.tar", "b.tar")
    )
    assert [g.fields["subject"] for g in first] == ["s0", "s1", "s2"]
    assert [g.fields["subject"] for g in second] == ["s3", "s4", "s5"]
    more = {"kind": "shards", "shards": (str(home / "a.tar"),), "columns": {"source": "secret"}}
    assert gathered(ShardSettings.model_validate(more), home / "out")[0].fields["secret"] == 1


def test_pictures_that_a_dataset_only_names_are_read_where_they_are(home: Path) -> None:
    """An imagefolder's; but never another file of this machine, whatever a row says."""
    (home / "set").mkdir()
    (home / "set" / "0.png").write_bytes(png(0))
    line = json.dumps({"file_name": "0.png", "presentation": "woman"})
    (home / "set" / "metadata.jsonl").write_text(line + "\n", "utf-8")
    [found] = gathered(HubSettings(kind="hub", dataset=str(home / "set")), home / "out")
    assert found.file is not None and found.file.read_bytes() == png(0)
    (home / "secret.png").write_bytes(png(1))
    secret = home / "secret.png"
    hidden = f"{secret}::hf://datasets/org/name/a.png"
    for named in (str(secret), f"file://{secret}", hidden, f"zip://a::{secret}"):
        with pytest.raises(UserError, match="a file of this machine that is not its own"):
            gather_streams._bytes_at(named, str(home / "set"))


def test_a_folder_of_links_is_the_users_own(home: Path) -> None:
    """Where pictures lie on another disk and are only linked to; twice, nothing is read again."""
    (home / "set").mkdir()
    (home / "0.png").write_bytes(png(0))
    (home / "set" / "0.png").symlink_to(home / "0.png")
    source = HubSettings(kind="hub", dataset=str(home / "set"))
    [found] = gathered(source, home / "out")
    assert found.file is not None and found.file.read_bytes() == png(0)
    (home / "set" / "0.png").unlink()
    assert gathered(source, home / "out") == [found]


def test_remote_pictures_are_opened_where_they_are(home: Path) -> None:
    """As `datasets` names them when a folder of the hub is streamed."""
    import fsspec

    with fsspec.open("memory://pictures/a.png", "wb") as file:
        file.write(png(5))
    assert gather_streams._bytes_at("memory://pictures/a.png", "org/name") == png(5)

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

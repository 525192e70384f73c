"""Pictures of the Hugging Face hub's datasets and of WebDataset shards, laid down as they come.

Each picture becomes a file in the work folder, and a line in a ledger that says so: a build that
goes on passes over as many examples as the ledger has, and one that is done reads nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unskew.data.build_setup import Setup
from unskew.data.gather import Gathered, said
from unskew.data.ledger import Ledger, Line
from unskew.data.sources import HubSettings, ShardSettings, columns_read
from unskew.errors import UserError
from unskew.runs import atomic_path

PICTURE_KEYS = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm", "avif", "jp2")
"""Endings by which a shard's examples hold their picture; the first that is there is taken."""
END = "end"


@dataclass(frozen=True)
class Example:
    """One example of a stream."""

    name: str
    content: bytes | None
    """The picture file's bytes; None where there is none."""
    fields: Mapping[str, Any]


def gather_stream(
    number: int, source: HubSettings | ShardSettings, setup: Setup
) -> Iterator[Gathered]:
    """The source's pictures in its order. Raises UserError where it cannot be had."""
    columns = columns_read(source, tuple(setup.attributes))
    folder = setup.work / "gathered" / f"{number}-{_key(source, columns)}"
    with Ledger(folder / "examples.jsonl") as ledger:
        there = 0
        while (line := ledger.next()) is not None:
            ledger.keep()
            if END in line:
                return
            there += 1
            yield _from_line(line, folder)
        for example in _examples(source, there):
            line = _laid_down(example, folder, columns)
            ledger.append(line)
            yield _from_line(line, folder)
        ledger.append({END: True})


def _key(source: HubSettings | ShardSettings, columns: Sequence[str]) -> str:
    """Equal where the same is read: another dataset's ledger is no beginning of this one's."""
    asked = source.model_dump(mode="json", exclude={"license", "streaming"})
    said = json.dumps([asked, list(columns)], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _laid_down(example: Example, folder: Path, columns: Sequence[str]) -> Line:
    line: Line = {"name": example.name, "fields": said(example.fields, columns), "file": None}
    if example.content is None:
        return line
    digest = hashlib.sha256(example.content).hexdigest()
    file = f"{digest[:2]}/{digest}"
    if not (folder / file).is_file():
        with atomic_path(folder / file) as temporary:
            temporary.write_bytes(example.content)
    return {**line, "file": file}


def _from_line(line: Line, folder: Path) -> Gathered:
    if line["file"] is None:
        return Gathered(line["name"], None, line["fields"], "no picture: the example holds none")
    return Gathered(line["name"], folder / line["file"], line["fields"])


def _examples(source: HubSettings | ShardSettings, skip: int) -> Iterator[Example]:
    try:
        if isinstance(source, HubSettings):
            yield from _of_hub(source, skip)
        else:
            yield from _of_shards(source, skip)
    except UserError:
        raise
    except Exception as error:  # of the network, the hub and the decoders of tables, all kinds
        what = source.dataset if isinstance(source, HubSettings) else ", ".join(source.shards)
        raise UserError(
            f"{what} cannot be read ({type(error).__name__}: {error}): check its name, revision, "
            "split and your network; the same command goes on from what is there"
        ) from error


def _of_hub(source: HubSettings, skip: int) -> Iterator[Example]:
    from datasets import ClassLabel, Image, load_dataset

    data: Any = load_dataset(
        source.dataset,
        source.config,
        revision=source.revision,
        split=source.split,
        streaming=source.streaming,
    )
    features = data.features or {}
    if source.picture not in features:
        raise UserError(
            f"{source.dataset} has no column {source.picture!r} (it has: {', '.join(features)}): "
            "set picture to the column of the image"
        )
    data = data.cast_column(source.picture, Image(decode=False))
    names = {c: f for c, f in features.items() if isinstance(f, ClassLabel)}
    for number, row in enumerate(data.skip(skip), skip):
        picture = row.pop(source.picture)
        content = (picture or {}).get("bytes")
        if content is None and picture and picture.get("path"):
            content = _bytes_at(picture["path"], source.dataset)
        fields = {
            c: names[c].int2str(value) if c in names and value is not None else value
            for c, value in row.items()
        }
        yield Example(f"{source.split}/{number:07d}", content, fields)


def _bytes_at(address: str, dataset: str) -> bytes:
    """The bytes of a picture that a dataset names and does not hold.

    A row's words come from others: on this machine only what lies in the dataset's own folder, or
    was fetched by `datasets`, is read. Raises UserError for anything else.
    """
    from datasets.utils.file_utils import xopen

    for hop in address.split("::"):  # "zip://a.png::/cache/b.zip": a.png inside of b.zip
        if ("://" not in hop or hop.startswith(("file:", "local:"))) and not _is_ours(hop, dataset):
            raise UserError(
                f"{dataset} names {hop} for a picture, a file of this machine that is not its own: "
                "it is not read; look at the dataset, or leave it out"
            )
    content: bytes
    with xopen(address, "rb") as stream:
        content = stream.read()
    return content


def _is_ours(named: str, dataset: str) -> bool:
    """Whether a file here is one of a dataset's; links lead out of a folder of the user's only."""
    from datasets import config
    from huggingface_hub.constants import HF_HUB_CACHE

    file = Path(named.rpartition("://")[2])
    # not resolve, which follows links, nor absolute, which keeps ".."
    here, own = os.path.abspath(file), os.path.abspath(dataset)  # noqa: PTH100
    if Path(dataset).exists() and Path(here).is_relative_to(own):
        return True
    fetched = (
        HF_HUB_CACHE,
        config.HF_CACHE_HOME,
        config.HF_DATASETS_CACHE,
        config.DOWNLOADED_DATASETS_PATH,
        config.EXTRACTED_DATASETS_PATH,
    )
    return any(file.resolve().is_relative_to(Path(place).resolve()) for place in fetched)


def _of_shards(source: ShardSettings, skip: int) -> Iterator[Example]:
    from datasets import Image, load_dataset

    files = [str(file) for pattern in source.shards for file in _matching(pattern)]
    data: Any = load_dataset(
        "webdataset", data_files={"train": files}, split="train", streaming=True
    )
    keys = [key for key in PICTURE_KEYS if key in (data.features or {})]
    for key in keys:
        data = data.cast_column(key, Image(decode=False))
    for row in data.skip(skip):
        picture = next((row[key] for key in keys if row.get(key) is not None), None)
        content = picture["bytes"] if picture else None
        fields = dict(row["json"]) if isinstance(row.get("json"), Mapping) else {}
        if source.columns.caption not in fields and row.get("txt"):
            fields[source.columns.caption] = " ".join(str(row["txt"]).split())
        shard = Path(row["__url__"].rpartition("::")[2]).name
        yield Example(f"{shard}/{row['__key__']}", content, fields)


def _matching(pattern: str) -> list[Path]:
    path = Path(pattern)
    files = sorted(path.parent.glob(path.name))
    if not files:
        raise UserError(f"shards: there is no {pattern}: give paths of .tar files")
    return files

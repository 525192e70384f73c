"""Settings of where pictures come from, and what their metadata is called there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from unskew.settings import Settings


class LabelColumn(Settings):
    """Where an attribute's value stands."""

    column: str
    """Name of the column."""
    map: dict[str, str] = {}
    """A word of the column -> the attribute's value, upper and lower case alike; empty where the
    words are the values. Any other word is unknown, never guessed."""


class ColumnSettings(Settings):
    """What the columns are called. One that is not there says nothing."""

    caption: str = "text"
    """What the picture shows, in words; `.txt` files beside pictures are read as this."""
    subject: str = "subject"
    """What the picture is about: "mechanic"."""
    split: str = "split"
    """train, validation or held_out (test is held_out)."""
    source: str = "source"
    """Where the picture is from."""
    license: str = "license"
    """Under which it may be used."""
    labels: dict[str, LabelColumn] = {}
    """Attribute -> its column; one that is not named here has the column of its own name."""


class SourceSettings(Settings):
    """What all sources have."""

    columns: ColumnSettings = ColumnSettings()
    """What its columns are called."""
    subject: str | None = None
    """Subject of every picture whose metadata says none; null takes such pictures out."""
    subjects: dict[str, str] = {}
    """A word of the subject column -> subject, upper and lower case alike; others stay as they
    are."""
    source: str | None = None
    """Where its pictures are from, for the card, where no column says it; null is its name."""
    license: str = "unknown"
    """Under which its pictures may be used, where no column says it."""


class FolderSettings(SourceSettings):
    """Pictures in a folder of this machine; read in place, never changed."""

    kind: Literal["folder"]
    """A folder of this machine."""
    folder: Path
    """Its path. Files that lead out of it are not read."""
    layout: Literal["auto", "metadata", "captions", "classes"] = "auto"
    """metadata: a table names the pictures; captions: a .txt beside each; classes: each subfolder
    is a class, given as the column `class`. auto: a table where there is one, else captions where
    there is one, else classes. A .txt beside a picture is read in every layout."""
    picture: str = "file_name"
    """The table's column with the pictures' files, seen from the folder."""
    metadata: Path | None = None
    """The table inside it, CSV, JSONL or Parquet; null takes metadata.jsonl, .csv or .parquet."""


class HubSettings(SourceSettings):
    """A dataset of the Hugging Face hub, or any folder that `datasets` loads by itself."""

    kind: Literal["hub"]
    """A dataset by its name."""
    dataset: str
    """"org/name", or a folder."""
    config: str | None = None
    """Its configuration, where it has several."""
    revision: str | None = None
    """Commit, tag or branch; a commit makes the same build possible later."""
    split: str = "train"
    """Which of its splits; "train[:1000]" takes a part where it is not streamed."""
    streaming: bool = True
    """Whether pictures come one by one, rather than all onto the disk first."""
    picture: str = "image"
    """The column of the image."""


class ShardSettings(SourceSettings):
    """WebDataset shards: in these tar files an example is all files of one name."""

    kind: Literal["shards"]
    """Tar files of this machine."""
    shards: Annotated[tuple[str, ...], Field(min_length=1)]
    """Their paths; * stands for anything in a name."""


AnySource = Annotated[FolderSettings | HubSettings | ShardSettings, Field(discriminator="kind")]
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "held_out",
    "held_out": "held_out",
    "heldout": "held_out",
}
"""What metadata calls a split -> what it is."""


def name_of(source: FolderSettings | HubSettings | ShardSettings) -> str:
    """How pages, messages and the card call a source."""
    if source.source is not None:
        return source.source
    match source:
        case FolderSettings():
            return source.folder.resolve().name or str(source.folder)
        case HubSettings():
            at = f" at {source.revision}" if source.revision else ""
            return f"{source.dataset}{at}"
        case ShardSettings():
            return ", ".join(Path(shard).name for shard in source.shards)


def columns_read(source: SourceSettings, attributes: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that are kept of its metadata; no other one is read."""
    columns = source.columns
    labels = [columns.labels[a].column if a in columns.labels else a for a in attributes]
    own = (columns.caption, columns.subject, columns.split, columns.source, columns.license)
    return tuple(dict.fromkeys([*own, *labels]))

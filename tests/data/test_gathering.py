"""Promises of gathering: what a folder holds is found, whatever its layout, and no more is read."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from unskew.data.gather import Gathered
from unskew.data.gather_folder import gather_folder
from unskew.data.sources import ColumnSettings, FolderSettings, LabelColumn
from unskew.errors import UserError

ATTRIBUTES = ("presentation",)


def picture(file: Path, number: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def gathered(folder: Path, **more: object) -> list[Gathered]:
    source = FolderSettings(kind="folder", folder=folder, **more)  # type: ignore[arg-type]
    return list(gather_folder(source, ATTRIBUTES))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_every_kind_of_table_says_the_same(tmp_path: Path, ending: str) -> None:
    """CSV, JSONL and Parquet: names, texts and labels alike; what is empty is left out."""
    for number in range(3):
        picture(tmp_path / "in" / f"{number}.png", number)
    names = [f"in/{number}.png" for number in range(3)]
    rows = pd.DataFrame(
        {"file_name": names, "text": ["ä, b", None, "c"], "presentation": ["woman", "man", None]}
    )
    table = tmp_path / f"metadata.{ending}"
    match ending:
        case "csv":
            rows.to_csv(table, index=False)
        case "jsonl":
            table.write_text(rows.to_json(orient="records", lines=True), "utf-8")
        case _:
            rows.to_parquet(table)
    found = gathered(tmp_path)
    assert [(g.name, g.file) for g in found] == [(name, tmp_path / name) for name in names]
    assert [g.fields for g in found] == [
        {"text": "ä, b", "presentation": "woman"},
        {"presentation": "man"},
        {"text": "c"},
    ]


def test_captions_lie_beside_pictures(tmp_path: Path) -> None:
    """A .txt of the picture's name is its caption; a byte order mark and line ends are not."""
    picture(tmp_path / "a b.png")
    picture(tmp_path / "deep" / "c.jpg")
    (tmp_path / "a b.txt").write_text("\ufeffa mechanic,\n smiling\n", "utf-8")
    found = {g.name: g.fields for g in gathered(tmp_path)}
    assert found == {"a b.png": {"text": "a mechanic, smiling"}, "deep/c.jpg": {}}


def test_class_folders_are_a_column(tmp_path: Path) -> None:
    """The first folder's name stands in the column `class`; hidden files are none."""
    picture(tmp_path / "woman" / "x" / "1.png")
    picture(tmp_path / "man" / "2.png")
    picture(tmp_path / ".hidden" / "3.png")
    found = {g.name: g.fields for g in gathered(tmp_path)}
    assert found == {"man/2.png": {"class": "man"}, "woman/x/1.png": {"class": "woman"}}


def test_a_table_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    """Paths with .., absolute ones and links to elsewhere are told, and their files not opened."""
    outside = picture(tmp_path / "secret.png")
    folder = tmp_path / "photos"
    picture(folder / "fine.png")
    (folder / "link.png").symlink_to(outside)
    (folder / "round.png").symlink_to("round.png")
    names = [
        "fine.png",
        "../secret.png",
        str(outside),
        "link.png",
        "round.png",
        "gone.png",
        "",
        "\0",
    ]
    lines = "".join(json.dumps({"file_name": name}) + "\n" for name in names)
    (folder / "metadata.jsonl").write_text(lines, "utf-8")
    found = gathered(folder)
    assert [g.file for g in found] == [folder / "fine.png", *[None] * (len(names) - 1)]
    assert all("leads out" in (g.problem or "") for g in found[1:4])
    assert all(g.problem for g in found[1:])


def test_pictures_that_the_table_forgets_are_told(tmp_path: Path) -> None:
    """They are not used, and not passed over in silence either."""
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "metadata.csv").write_text("file_name\na.png\n", "utf-8")
    found = gathered(tmp_path)
    assert [(g.name, g.file is None) for g in found] == [("a.png", False), ("b.png", True)]
    assert "metadata.csv does not name it" in str(found[1].problem)


def test_names_that_stand_twice_stay_apart(tmp_path: Path) -> None:
    """Two rows of one picture are two, by different names."""
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,x\na.png,y\n", "utf-8")
    assert [g.name for g in gathered(tmp_path)] == ["a.png", "a.png (2)"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("picture\na.png\n", "has no file_name .it has: picture."),
        ("", "has no rows"),
        ('file_name\n"a\n', None),
    ],
)
def test_tables_that_name_no_pictures_are_errors(
    tmp_path: Path, table: str, says: str | None
) -> None:
    """The message names the table and the column; a half quoted CSV is read as far as it goes."""
    (tmp_path / "metadata.csv").write_text(table, "utf-8")
    if says is None:
        assert [g.file for g in gathered(tmp_path)] == [None]
        return
    with pytest.raises(UserError, match=says):
        gathered(tmp_path)


def test_only_named_columns_are_read(tmp_path: Path) -> None:
    """A label's column is read under the name that settings give it; others stay where they are."""
    picture(tmp_path / "a.png")
    row = {"pic": "a.png", "sex": "F", "address": "somewhere", "age": 3}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row), "utf-8")
    labels = {"presentation": LabelColumn(column="sex", map={"f": "woman"})}
    [found] = gathered(tmp_path, picture="pic", columns=ColumnSettings(labels=labels))
    assert found.fields == {"sex": "F"}

"""Promises of docs/data.md: its example folder is skewed, both ways balance it, sheets show it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unskew.data import own
from unskew.data.emoji_world import album
from unskew.data.emoji_world.art import Drawing
from unskew.data.picture_sheet import GAP_PX, LEFT_PX, PICTURE_PX, WORDS_PX, picture_sheet
from unskew.settings import run_program


@pytest.fixture(scope="module")
def folder(art: tuple[Drawing, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example folder, of exemplars as `unskew data` writes them."""
    exemplars = tmp_path_factory.mktemp("made") / "exemplars"
    (exemplars / "images").mkdir(parents=True)
    lines = []
    for drawing in art:
        Image.fromarray(drawing.image).save(exemplars / "images" / f"{drawing.name}.png")
        lines.append(json.dumps({"file_name": f"images/{drawing.name}.png"}))
    (exemplars / "metadata.jsonl").write_text("\n".join(lines), "utf-8")
    out = exemplars.with_name("album")
    words = ["--exemplars", str(exemplars), "--out", str(out)]
    assert run_program(album.main, words) == 0
    return out


def built(folder: Path, out: Path, *more: str) -> list[dict[str, Any]]:
    """The rows of the dataset that the page's command makes of it."""
    words = [
        "--config",
        "emoji/own.yaml",
        "--sources.0.folder",
        str(folder),
        "--out",
        str(out),
        *more,
    ]
    assert run_program(own.main, words) == 0
    return [json.loads(x) for x in (out / "metadata.jsonl").read_text("utf-8").splitlines()]


def test_two_in_three_of_the_album_are_men(folder: Path) -> None:
    """300 pictures, so that there is something to balance."""
    lines = (folder / "metadata.csv").read_text("utf-8").splitlines()[1:]
    assert len(lines) == len(list(folder.glob("*.png"))) == 300
    assert Counter(line.split(",")[3] for line in lines) == {"man": 200, "woman": 50, "person": 50}


def test_choosing_takes_as_many_of_each(folder: Path, tmp_path: Path) -> None:
    """50 subjects with one of each; neutral captions name no presentation."""
    rows = built(folder, tmp_path / "own")
    neutral = [row for row in rows if row["kind"] == "neutral"]
    assert Counter(row["presentation"] for row in neutral) == {"man": 50, "woman": 50, "person": 50}
    assert not any(" man" in row["text"] or "woman" in row["text"] for row in neutral)
    with Image.open(tmp_path / "own" / "contact-sheet.png") as sheet:
        assert sheet.width == LEFT_PX + 3 * (PICTURE_PX + GAP_PX)


def test_weighing_takes_all_and_lets_the_rare_count_more(folder: Path, tmp_path: Path) -> None:
    """A third of the weight each."""
    rows = built(folder, tmp_path / "weighed", "--balance.by", "weights")
    assert len({row["file_name"] for row in rows}) == 300
    sums: Counter[str] = Counter()
    for row in rows:
        sums[row["presentation"]] += row["weight"]
    assert {k: v / sum(sums.values()) for k, v in sums.items()} == pytest.approx(
        dict.fromkeys(("man", "woman", "person"), 1 / 3)
    )


def test_the_album_needs_the_art(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error says what to run first."""
    assert run_program(album.main, ["--exemplars", str(tmp_path / "none")]) == 2
    assert "run `unskew data` first" in capsys.readouterr().err


def test_a_sheet_has_a_picture_where_there_is_one(tmp_path: Path) -> None:
    """One of each combination in its place; white where none is; None without labels."""
    Image.new("RGB", (30, 30), "red").save(tmp_path / "a.png")
    Image.new("RGB", (30, 30), "blue").save(tmp_path / "b.png")
    row = {"kind": "neutral", "weight": 1.0}
    rows = [
        {**row, "file_name": "a.png", "subject": "cook", "hat": "cap"},
        {**row, "file_name": "b.png", "subject": "nurse", "hat": "none"},
        {**row, "file_name": "b.png", "subject": "apple", "hat": None},
    ]
    content = picture_sheet(rows, {"hat": ("cap", "none")}, tmp_path)
    assert content is not None
    file = tmp_path / "sheet.png"
    file.write_bytes(content)
    with Image.open(file) as sheet:
        seen = np.asarray(sheet)
    step, line, head = PICTURE_PX + GAP_PX, PICTURE_PX + WORDS_PX + GAP_PX, 2 * WORDS_PX
    places = [(y, x) for y in (head, head + line) for x in (LEFT_PX, LEFT_PX + step)]
    colours = [tuple(int(c) for c in seen[y + 5, x + 5]) for y, x in places]
    white = (255, 255, 255)
    assert colours == [(255, 0, 0), white, white, (0, 0, 255)]
    assert seen.shape == (head + 2 * line, LEFT_PX + 2 * step, 3)
    assert picture_sheet(rows[2:], {"hat": ("cap", "none")}, tmp_path) is None

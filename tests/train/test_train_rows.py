"""A dataset is found wrong before anything is spent on it, with the row and the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unskew.attributes import load_attribute
from unskew.errors import UserError
from unskew.settings import run_program
from unskew.train import lora
from unskew.train.rows import load_picture, load_rows

ATTRIBUTES = {id: load_attribute(id) for id in ("presentation", "skin_tone", "season")}
Change = Callable[[Path, list[dict[str, Any]]], list[dict[str, Any]] | None]


def change_rows(folder: Path, change: Change) -> None:
    file = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    rows = change(folder, rows) or rows
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def put(number: int, **fields: object) -> Change:
    return lambda folder, rows: rows[number].update(fields)


def remove_picture(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / rows[2]["file_name"]).unlink()


def break_picture(folder: Path, rows: list[dict[str, Any]]) -> None:
    file = folder / rows[2]["file_name"]
    file.write_bytes(file.read_bytes()[:100])


BAD: list[tuple[Change, str]] = [
    (put(4, presentation="men"), r"row 5: presentation is 'men' \(allowed: woman, man, person"),
    (put(0, text=""), "row 1: text must be a text, got ''"),
    (put(0, kind="neutrall"), r"row 1: kind must be one of .*'neutrall'"),
    (put(0, file_name="../../secret.png"), "row 1: file_name .* leads out of"),
    (put(0, weight=-1), "row 1: weight must be a number >= 0, got -1"),
    (put(0, presentation=None, skin_tone=None), "row 1: a neutral row needs a value"),
    (put(0, explicit_text=None), r"row 1 \(.*png\) has no explicit_text"),
    (remove_picture, "row 3: picture .* does not exist"),
    (break_picture, "row 3: picture .* cannot be read"),
    (lambda folder, rows: [r for r in rows if r["kind"] != "neutral"], "no neutral rows"),
    (
        lambda folder, rows: [r for r in rows if r["presentation"] != "man"],
        r"'health-worker' \(from row \d+, .*png\) has no neutral row for 5 of the 15 combinations",
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_datasets_end_at_once(
    argv: Callable[..., list[str]],
    dataset_copy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    message: str,
) -> None:
    """Exit code 2, the row and the file in the message, and no run folder."""
    change_rows(dataset_copy, change)
    words = argv(tmp_path / "run", "--dataset", str(dataset_copy))
    assert run_program(lora.main, words) == 2
    assert_matches(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def assert_matches(pattern: str, text: str) -> None:
    with pytest.raises(UserError, match=pattern):
        raise UserError(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "nowhere"], "dataset nowhere has no metadata.jsonl"),
        (["--base", "nowhere"], "base nowhere is no diffusers folder"),
        (["--resume", "nowhere"], "checkpoint nowhere does not exist"),
        (["--lora.rankk", "3"], "rankk"),
        (["--lora.rank", "0"], "lora.rank"),
        (["--batch.size", "9", "--batch.accumulation", "2"], "batch.size must be a multiple of 2"),
        (["--attributes", "age"], "attribute 'age' has no file"),
        (["--targets", "{season: {winter: 0.4, summer: 0.4}}"], "targets.season"),
    ],
)
def test_bad_settings_end_at_once(
    argv: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    """Exit code 2 and a message that names the setting; no run folder."""
    assert run_program(lora.main, argv(tmp_path / "run", *words)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_all_problems_are_listed(dataset_copy: Path) -> None:
    """One look shows every row at fault; past ten they are counted."""
    change_rows(dataset_copy, lambda folder, rows: [{**r, "kind": "x"} for r in rows[:13]])
    with pytest.raises(UserError, match=r"(?s)row 1: .*row 10: .*and 3 more"):
        load_rows(dataset_copy, ATTRIBUTES)


def test_other_splits_and_blank_lines_are_left_out(dataset_copy: Path) -> None:
    """Only rows of split "train" are trained on."""
    change_rows(dataset_copy, lambda folder, rows: [{**rows[0], "split": "held_out"}, *rows[1:]])
    with (dataset_copy / "metadata.jsonl").open("a") as file:
        file.write("\n")
    assert len(load_rows(dataset_copy, ATTRIBUTES)) == 62


def test_a_picture_is_upright_square_and_rgb(tmp_path: Path) -> None:
    """EXIF orientation is applied, then the middle square is taken."""
    picture = Image.new("RGBA", (40, 20), (255, 0, 0, 255))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    picture.convert("RGB").save(tmp_path / "a.jpg", exif=exif)
    loaded = load_picture(tmp_path / "a.jpg", 8)
    assert (loaded.size, loaded.mode) == ((8, 8), "RGB")

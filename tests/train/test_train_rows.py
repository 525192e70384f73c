"""A dataset is found wrong before anything is spent on it, with the row and the file."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from unskew.attributes import load_attribute
from unskew.errors import UserError
from unskew.settings import run_program
from unskew.train import lora
from unskew.train.rows import SHOWN, load_picture, load_rows

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


def turned(size: tuple[int, int], file: Path) -> Path:
    """A picture saved lying on its side, with the EXIF note that says so: size is how it lies."""
    picture = Image.new("RGBA", size, (255, 0, 0, 255))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    picture.convert("RGB").save(file, exif=exif)
    return file


def test_a_picture_is_upright_square_and_rgb(tmp_path: Path) -> None:
    """EXIF orientation is applied, then the middle square is taken."""
    loaded = load_picture(turned((40, 20), tmp_path / "a.jpg"), (8, 8))
    assert (loaded.size, loaded.mode) == ((8, 8), "RGB")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_pictures_are_measured_upright(dataset_copy: Path, suffix: str) -> None:
    """A row knows its picture's size as it is looked at, by which its bucket is chosen."""
    turned((40, 20), dataset_copy / f"images/t.{suffix}")
    change_rows(dataset_copy, put(0, file_name=f"images/t.{suffix}"))
    rows = load_rows(dataset_copy, ATTRIBUTES)
    assert rows[0].picture_px == (20, 40)
    assert {row.picture_px for row in rows[1:]} == {(16, 16)}


def test_a_square_picture_has_the_bits_that_it_always_had(tmp_path: Path) -> None:
    """The middle square by one resampling of the whole picture, as Pillow's `fit` does it."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 81, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    fit = ImageOps.fit(Image.fromarray(pixels), (16, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(load_picture(tmp_path / "a.png", (16, 16)), fit)


def test_a_picture_too_large_to_be_one_is_refused(
    dataset_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Pillow would warn of a bomb the dataset ends, in whatever thread it is looked at."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with (
        warnings.catch_warnings(),
        pytest.raises(UserError, match=r"row 1: .* cannot be read \(Image size \(256 pixels\)"),
    ):
        warnings.simplefilter("ignore")
        load_rows(dataset_copy, ATTRIBUTES)


def test_broken_pictures_are_listed_in_the_rows_order(dataset_copy: Path) -> None:
    """Once each, at the first row that names it, though threads look at them in any order."""
    for name in sorted((dataset_copy / "images").iterdir())[::2]:
        name.write_bytes(b"no picture")
    lines = (dataset_copy / "metadata.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    broken = [r for r in rows if (dataset_copy / r["file_name"]).read_bytes() == b"no picture"]
    first = {r["file_name"]: rows.index(r) + 1 for r in reversed(broken)}
    with pytest.raises(UserError) as raised:
        load_rows(dataset_copy, ATTRIBUTES)
    told = [int(n) for n in re.findall(r"(?m)^  row (\d+): picture", str(raised.value))]
    assert told == sorted(first.values())[:SHOWN]
    assert f"and {len(first) - SHOWN} more" in str(raised.value)


def same_caption(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**r, "text": "photo"} for r in rows]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (same_caption, "warning: all 63 rows have the caption 'photo'"),
        (
            lambda folder, rows: [{**r, "explicit_text": "a mechanic"} for r in rows],
            "warning: rows 1 and 3 have the explicit_text 'a mechanic', but differ in their values",
        ),
    ],
)
def test_captions_that_tell_nothing_apart_are_told_of(
    argv: Callable[..., list[str]],
    dataset_copy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    message: str,
) -> None:
    """A warning before anything is spent; whoever means it may go on."""
    words = argv(tmp_path / "run", "--dataset", str(dataset_copy), "--dry-run")
    assert run_program(lora.main, words) == 0
    assert "warning" not in capsys.readouterr().err
    change_rows(dataset_copy, change)
    assert run_program(lora.main, words) == 0
    assert message in capsys.readouterr().err

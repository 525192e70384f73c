"""Promises of collecting: a messy folder gives clean rows, every other picture its reason."""

import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from unskew.attributes import load_attribute
from unskew.data.build_setup import Setup
from unskew.data.collect import Plan, collect
from unskew.data.label_options import LabelSettings
from unskew.data.looking import look_at, upright
from unskew.data.rows import Row
from unskew.data.screen import ScreenSettings
from unskew.data.sources import ColumnSettings, FolderSettings, LabelColumn
from unskew.runs import sha256_file

SIDE = 64
LABELS = {"presentation": LabelColumn(column="who", map={"f": "woman", "M": "man"})}


def photo(number: int, width: int = SIDE + 16, height: int = SIDE) -> Image.Image:
    """A picture unlike any other number's: large soft fields with a sharp grain."""
    rng = np.random.default_rng(number)
    fields = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    soft = np.asarray(fields.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = rng.integers(-12, 13, soft.shape)
    return Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8))


def messy(folder: Path) -> tuple[dict[str, str], set[str]]:
    """Fill a folder as people's folders are; (file -> words of its reason), and what is fine."""
    (folder / "in a folder").mkdir(parents=True)
    bad: dict[str, str] = {}
    fine = {
        "a b.png",
        "größe-写真.png",
        "cmyk.jpg",
        "turned.jpg",
        "moving.gif",
        "named.png",
        "x.txt.png",
    }
    photo(1).save(folder / "a b.png")
    photo(2).save(folder / "größe-写真.png")
    photo(3).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    photo(4).save(folder / "turned.jpg", exif=exif, quality=95)
    photo(5).save(folder / "moving.gif", save_all=True, append_images=[photo(6)])
    photo(7).save(folder / "named.png", format="JPEG", quality=95)  # its ending lies
    photo(8).save(folder / "x.txt.png")
    (folder / "in a folder" / "copy.png").write_bytes((folder / "a b.png").read_bytes())
    bad["in a folder/copy.png"] = "duplicate: the same bytes as photos/a b.png"
    photo(2).resize((160, 128), Image.Resampling.LANCZOS).save(folder / "zz larger.jpg", quality=80)
    bad["zz larger.jpg"] = "near duplicate: looks the same as photos/größe-写真.png"
    photo(9).save(folder / "cut.jpg")
    whole = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    bad["cut.jpg"] = "cannot be read (image file is truncated"
    huge = bytearray((folder / "a b.png").read_bytes())
    huge[16:24] = (30_000).to_bytes(4) * 2
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4)
    (folder / "huge.png").write_bytes(bytes(huge))
    bad["huge.png"] = "cannot be read (Image size (900000000 pixels)"
    (folder / "empty.png").touch()
    bad["empty.png"] = "cannot be read (no picture"
    (folder / "page.png").write_text("<html>not found</html>", "utf-8")
    bad["page.png"] = "cannot be read (no picture"
    photo(10, 300, SIDE).save(folder / "banner.png")
    bad["banner.png"] = "too long: 300 x 64 px, more than 3 : 1"
    photo(11, 40, 48).save(folder / "small.png")
    bad["small.png"] = "too small: 40 x 48 px, the shorter side under 64"
    Image.new("RGB", (SIDE, SIDE), "grey").save(folder / "blank.png")
    bad["blank.png"] = "blank: contrast 0.0"
    Image.radial_gradient("L").resize((SIDE, SIDE)).save(folder / "soft.png")
    bad["soft.png"] = "blurred: sharpness"
    photo(12).save(folder.parent / "private.png")
    (folder / "link.png").symlink_to(folder.parent / "private.png")
    (folder / "a folder").symlink_to(folder.parent, target_is_directory=True)
    bad["link.png"] = "leads out of its folder: not read"
    (folder / "Thumbs.db").write_bytes(b"\0" * 100)
    bad["Thumbs.db"] = "cannot be read (no picture"
    (folder / "notes.txt").write_text("not beside a picture")
    return bad, fine


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A messy folder; change only a copy."""
    folder = tmp_path_factory.mktemp("messy") / "photos"
    messy(folder)
    return folder


def setup_in(out: Path) -> Setup:
    return Setup(out, {"presentation": load_attribute("presentation")})


def plan_of(folder: Path, **more: Any) -> Plan:
    screen = ScreenSettings(least_side_px=SIDE)
    source = FolderSettings(kind="folder", folder=folder, **{"subject": "mechanic", **more})
    return Plan((source,), screen, LabelSettings())


def record(out: Path) -> dict[str, dict[str, Any]]:
    lines = map(json.loads, (out / ".work" / "screened.jsonl").read_text("utf-8").splitlines())
    return {line["picture"]: line for line in lines}


def snapshot(folder: Path) -> dict[str, Any]:
    """Every file below, with its bytes' hash and time."""
    files = (f for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
    return {str(f): (sha256_file(f), f.stat().st_mtime_ns) for f in files}


def test_a_messy_folder_gives_clean_rows_and_reasons(tmp_path: Path) -> None:
    """Every picture is kept or has its reason; nothing of the user's is touched."""
    bad, fine = messy(tmp_path / "photos")
    before = snapshot(tmp_path)
    rows = list(collect(plan_of(tmp_path / "photos"), setup_in(tmp_path / "out")))
    after = snapshot(tmp_path)
    assert {file: seen for file, seen in after.items() if "/out/" not in file} == before
    assert {row.name for row in rows} == {f"photos/{name}" for name in fine}
    found = record(tmp_path / "out")
    assert found.keys() == {f"photos/{name}" for name in fine | bad.keys()}
    for name, words in bad.items():
        assert found[f"photos/{name}"]["reason"].startswith(words), name
    assert {name for name, line in found.items() if line["kept"]} == {row.name for row in rows}


def test_rows_say_how_their_files_are_written(photos: Path, tmp_path: Path) -> None:
    """The ending fits the content, and only what every reader shows alike is plain."""
    rows = {row.name: row for row in collect(plan_of(photos), setup_in(tmp_path))}
    assert rows["photos/named.png"].suffix == ".jpg" and rows["photos/named.png"].plain
    plain = {name.removeprefix("photos/") for name, row in rows.items() if row.plain}
    assert plain == {"a b.png", "größe-写真.png", "named.png", "x.txt.png"}
    assert all(row.sha256 == sha256_file(row.file) for row in rows.values())


def test_pictures_are_seen_as_they_are_meant(photos: Path) -> None:
    """Turned by EXIF, CMYK as RGB, the first frame of several."""
    turned = look_at(photos / "turned.jpg")
    assert (turned.width_px, turned.height_px) == (SIDE, SIDE + 16)
    expected = {
        "turned.jpg": photo(4).transpose(Image.Transpose.ROTATE_270),
        "cmyk.jpg": photo(3),
        "moving.gif": photo(5),
    }
    for name, picture in expected.items():
        shown = np.asarray(upright(photos / name), dtype=float)
        assert np.abs(shown - np.asarray(picture, dtype=float)).mean() < 12, name


def test_labels_come_from_columns_and_are_never_guessed(tmp_path: Path) -> None:
    """Mapped words in any case; other words, empty ones and missing columns stay unknown."""
    words = ["F", " m ", "x", "", None, "woman"]
    lines = []
    for number, word in enumerate(words):
        photo(number).save(tmp_path / f"{number}.png")
        row = {"file_name": f"{number}.png", "who": word, "job": "Nurse ", "split": "TEST"}
        lines.append(json.dumps(row) + "\n")
    (tmp_path / "metadata.jsonl").write_text("".join(lines), "utf-8")
    columns = ColumnSettings(labels=LABELS, subject="job")
    plan = plan_of(tmp_path, columns=columns, subject=None, subjects={"nurse": "health-worker"})
    rows = list(collect(plan, setup_in(tmp_path / "out")))
    values = [row.labels["presentation"] for row in rows]
    assert values == ["woman", "man", None, None, None, None]
    assert {row.subject for row in rows} == {"health-worker"}
    assert {row.split for row in rows} == {"held_out"}
    assert [dict(row.labelled_by) for row in rows[1:3]] == [{"presentation": "column who"}, {}]


def test_what_is_held_out_cannot_be_trained_on(tmp_path: Path) -> None:
    """Of duplicates and near duplicates the held-out one stays, wherever it stands."""
    photo(1).save(tmp_path / "1-train.png")
    photo(1).save(tmp_path / "2-test.png")
    photo(2).save(tmp_path / "3-train.png")
    photo(2).save(tmp_path / "4-val.jpg", quality=85)
    lines = [
        json.dumps({"file_name": file.name, "split": file.stem.partition("-")[2]}) + "\n"
        for file in sorted(tmp_path.iterdir())
    ]
    (tmp_path / "metadata.jsonl").write_text("".join(lines), "utf-8")
    rows = list(collect(plan_of(tmp_path), setup_in(tmp_path / "out")))
    assert [(row.file.name, row.split) for row in rows] == [
        ("2-test.png", "held_out"),
        ("4-val.jpg", "validation"),
    ]


DIES_WHILE_LOOKING = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import unskew.data.screening as screening
from unskew.data.collect import collect
looked, look_at = [], screening.look_at
def dying(file, count):
    looked.append(file)
    if len(looked) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
    return look_at(file, count)
screening.look_at = dying
import test_collecting as here
from pathlib import Path
list(collect(here.plan_of(Path(sys.argv[2])), here.setup_in(Path(sys.argv[3]))))
"""


def test_a_killed_collection_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was looked at before is not looked at again, unless it has changed; the end is alike."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    rows = list(collect(plan_of(photos), setup_in(whole)))
    words = [sys.executable, "-c", DIES_WHILE_LOOKING, str(Path(__file__).parent)]
    ended = subprocess.run([*words, str(photos), str(killed)], capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    ledger = killed / ".work" / "looks.jsonl"
    before = ledger.read_bytes().count(b"\n")
    assert 0 < before < len(record(whole))
    with ledger.open("ab") as file:
        file.write(b'{"half a li')
    looked: list[Path] = []

    def counting(file: Path, count: object) -> Any:
        looked.append(file)
        return look_at(file)

    monkeypatch.setattr("unskew.data.screening.look_at", counting)
    assert list(collect(plan_of(photos), setup_in(killed))) == rows
    assert record(killed) == record(whole)
    assert 0 < len(looked) <= len(record(whole)) - before
    looked.clear()
    os.utime(photos / "a b.png", (1, 1))
    assert list(collect(plan_of(photos), setup_in(killed))) == rows
    assert photos / "a b.png" in looked


def test_looking_needs_memory_for_few_pictures(tmp_path: Path) -> None:
    """However many pictures there are, only a window of them is begun and not yet written down."""
    from unskew.data.gather import Gathered
    from unskew.data.screening import look_over

    asked = 0
    done = 0
    window = 0

    def pictures() -> Iterator[tuple[int, Gathered]]:
        nonlocal asked, window
        for number in range(500):
            asked += 1
            window = max(window, asked - done)
            yield 0, Gathered(f"{number}.png", None, {}, "missing")

    def progress() -> None:
        nonlocal done
        done += 1

    look_over(pictures(), setup_in(tmp_path), None, progress)
    assert done == 500 and window <= 4 + 2 * (os.cpu_count() or 1)


def noise(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def test_faces_are_wanted_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None and one look at how many faces there are, and say how many were found."""

    class Finder:
        def count(self, image: NDArray[np.uint8]) -> int:
            return int(image[0, 0, 0])

    monkeypatch.setattr("unskew.data.collect.face_finder", Finder)
    for faces in range(3):
        pixels = noise(faces)
        pixels[0, 0] = faces
        Image.fromarray(pixels).save(tmp_path / f"{faces}.png")
    kept: dict[str, list[Row]] = {}
    for wanted in ("none", "one"):
        plan = plan_of(tmp_path)
        screen = plan.screen.model_copy(update={"faces": wanted})
        out = tmp_path / ".out" / wanted
        kept[wanted] = list(collect(Plan(plan.sources, screen, plan.label), setup_in(out)))
        assert len(record(out)) == 3
    assert [row.file.name for row in kept["none"]] == ["0.png"]
    assert [row.file.name for row in kept["one"]] == ["1.png"]


def test_a_held_out_picture_is_not_trained_on_under_another_name(tmp_path: Path) -> None:
    """Of two with the same bytes the one of the held-out subject stays, though it comes later."""
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(noise(3)).save(tmp_path / "in" / name)
    table = "file_name,job\na.png,doctor\nb.png,nurse\n"
    (tmp_path / "in" / "metadata.csv").write_text(table, "utf-8")
    plan = plan_of(tmp_path / "in", subject=None, columns={"subject": "job"})
    for held_out, stays in (((), "doctor"), (("nurse",), "nurse")):
        asked = replace(plan, held_out=held_out)
        [row] = collect(asked, setup_in(tmp_path / f"out-{stays}"))
        assert row.subject == stays

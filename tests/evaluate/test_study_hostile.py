"""Hostile words, disks and classifiers: clear errors, nothing lost, nothing executed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from unskew.errors import UserError
from unskew.evaluate.classifiers.exemplar import ExemplarClassifier
from unskew.evaluate.classifiers.reading import Readings
from unskew.evaluate.classify import ArmPictures, Reader, read_arm
from unskew.evaluate.generate import Cell
from unskew.evaluate.paired import main
from unskew.prompts import Prompt
from unskew.runs import TEMPORARY, read_manifest
from unskew.settings import run_program

StudyOn = Callable[..., Path]
HOSTILE = [
    "<script>alert('owned')</script>",
    '"><img src=x onerror=alert(1)> & {{ 7 * 7 }} {% raw %}',
    "two\nlines\tand 'quotes' \"double\" `back`",
    "../../etc/passwd $(touch owned) ; rm -rf /",
    "a mechanic " * 900 + "end",
    "مهندس \u202e rm -rf \u2066 עברית",
    "👩🏿‍🔧 mechanic 🏳️‍🌈 \U0001f9d1",
    "%s {prompt} {0} \\x00 \u0000".replace("\u0000", ""),
]


@pytest.fixture
def study(study_on: StudyOn, tiny_base: Path) -> Path:
    """A study's YAML: the tiny base against itself with an adapter that does something."""
    return study_on(tiny_base, "unet")


def run(study: Path, *words: str) -> int:
    return run_program(main, ["--config", str(study), *words])


def pictures(study: Path) -> dict[str, bytes]:
    folder = study.parent / "study" / "images"
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*.png")}


def results(study: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((study.parent / "study" / "results.json").read_text())
    return loaded


def test_prompts_are_text_everywhere(study: Path) -> None:
    """They name folders that stay in place, stand in results as they are, and run nowhere."""
    subjects = {f"s{n}": text for n, text in enumerate(HOSTILE)}
    block = {"suite": "trained", "role": "neutral", "attributes": ["presentation"]}
    block |= {"templates": ["{x}"], "subjects": subjects}
    explicit = yaml.safe_load((study.parent / "prompts.yaml").read_text())[1]
    (study.parent / "prompts.yaml").write_text(yaml.safe_dump([block, explicit]), "utf-8")
    before = set(study.parent.iterdir())
    assert run(study) == 0
    assert set(study.parent.iterdir()) - before == {study.parent / "study"}
    [row] = results(study)["representation"]
    assert {prompt["text"] for prompt in row["per_prompt"]} == set(HOSTILE)
    arms = study.parent / "study" / "images"
    assert {f.name for f in arms.iterdir()} == {"base", "adapter"}
    names = [f.name for f in (arms / "base").iterdir()]
    assert len(names) == len(HOSTILE) + 1
    assert all(name.replace("-", "").isalnum() and len(name) < 60 for name in names)
    report = (study.parent / "study" / "report.html").read_text("utf-8")
    assert "alert('owned')</script>" not in report and "<img src=x" not in report
    assert "&lt;script&gt;alert(" in report


def test_half_a_character_is_refused(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A lone surrogate, which YAML lets through and no file can hold."""
    text = (study.parent / "prompts.yaml").read_text().replace("a health worker", '"a \\ud83d"')
    (study.parent / "prompts.yaml").write_text(text, "utf-8")
    assert run(study) == 2
    assert "half of a character" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses_a_picture(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What, where and what to do; what was drawn stays, and the same command goes on."""
    write, written = Path.write_bytes, []

    def refuse(file: Path, data: bytes) -> int:
        if file.suffix == ".png":
            written.append(file)
        if len(written) > 10:
            write(file, data[:20])
            raise OSError(number, os.strerror(number), str(file))
        return write(file, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", refuse)
        assert run(study) == 2
    said = capsys.readouterr().err
    assert "could not be written (" in said and "/images/" in said and "Traceback" not in said
    assert "the same command goes on from there" in said
    kept = pictures(study)
    assert len(kept) == 10
    assert read_manifest(study.parent / "study")["status"] == "failed"
    assert run(study) == 0
    assert {name: pictures(study)[name] for name in kept} == kept
    assert not list((study.parent / "study").rglob(f"{TEMPORARY}*"))


def test_a_drawn_picture_that_broke_is_named(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to do about it; then only its batch is drawn again, to the same bits."""
    assert run(study) == 0
    drawn = pictures(study)
    file = next((study.parent / "study" / "images" / "adapter").rglob("1.png"))
    file.write_bytes(file.read_bytes()[:30])
    assert run(study) == 2
    assert f"{file} cannot be read (" in capsys.readouterr().err
    file.unlink()
    assert run(study) == 0
    assert pictures(study) == drawn


def other_exemplars(study: Path) -> Path:
    """The study's own exemplars, every woman among them relabelled as a man."""
    own = yaml.safe_load(study.read_text())["classifiers"]["exemplars"]["folder"]
    other = Path(shutil.copytree(own, study.parent / "other"))
    text = (other / "metadata.jsonl").read_text("utf-8")
    (other / "metadata.jsonl").write_text(
        text.replace('"presentation": "woman"', '"presentation": "man"'), "utf-8"
    )
    return other


def test_another_classifier_reads_again_what_is_there(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where --relabel says so; no picture is touched, and the way back reads nothing."""
    assert run(study) == 0
    folder = study.parent / "study"
    before, found = pictures(study), results(study)
    times = {f: f.stat().st_mtime_ns for f in (folder / "images").rglob("*.png")}
    other = str(other_exemplars(study))
    asked = ("--classifiers.exemplars.folder", other)
    assert run(study, *asked) == 2
    assert "inputs.classifiers.exemplars" in capsys.readouterr().err
    assert run(study, "--relabel", *asked) == 0
    rows = pd.read_parquet(folder / "readings.parquet")
    [name] = set(rows["classifier"])
    assert "woman" not in set(rows["value"]) and name.startswith("exemplars of other, sha256 ")
    assert read_manifest(folder)["settings"]["classifiers"]["exemplars"]["folder"] == other
    assert results(study)["representation"] != found["representation"]
    assert pictures(study) == before
    assert times == {f: f.stat().st_mtime_ns for f in (folder / "images").rglob("*.png")}
    monkeypatch.setattr(ExemplarClassifier, "read", None)
    assert run(study, "--relabel") == 0
    assert results(study) == found
    assert run(study, "--relabel", "--guidance", "3") == 2


def test_what_was_read_is_not_read_again(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture's reading is found by its sha256: the same command asks no classifier."""
    assert run(study) == 0
    found = results(study)
    monkeypatch.setattr(ExemplarClassifier, "read", None)
    assert run(study) == 0
    assert results(study) == found


class Stubborn:
    """A classifier that says values of its own."""

    name = "stubborn"
    attributes = ("presentation",)

    def read(self, images: Sequence[Any], attributes: Sequence[str]) -> dict[str, Readings]:
        """The value "alien" for every picture."""
        n = len(images)
        one = np.ones((n, 1), np.float32)
        return {"presentation": Readings(("alien",), np.zeros(n, np.int64), one)}


def test_labels_outside_the_list_are_refused(tmp_path: Path) -> None:
    """With classifier, attribute, and the values that it may say; nothing of it is kept."""
    prompt = Prompt("p", "a mechanic", "s", "mechanic", ("presentation",), {"subject": "mechanic"})
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    files = {Cell(prompt, 0): tmp_path / "0.png"}
    reader = Reader(Stubborn(), {"presentation": ("woman", "man")}, "0" * 64)
    with pytest.raises(UserError, match=r"stubborn says presentation is one of \['alien'\].*woman"):
        read_arm(ArmPictures("base", files, {}, {}), list(files), [reader], tmp_path / "readings")
    assert not (tmp_path / "readings").exists()


def test_a_dry_run_tells_what_it_takes(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures, time, memory and disk, for programs too; of a study that is done, nothing."""
    assert run(study, "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["planned"], told["to_draw"]) == (30, 30)
    assert told["minutes"] > 0 and told["memory_gib"] > 0 and told["disk_free_gib"] > 0
    assert not (study.parent / "study").exists()
    assert run(study) == 0
    capsys.readouterr()
    assert run(study, "--dry-run") == 0
    assert "0 of 30 pictures are to be drawn" in capsys.readouterr().out


def test_a_picture_of_which_nothing_is_read_is_still_there(tmp_path: Path) -> None:
    """A control whose subject no classifier reads has one row without an attribute."""
    prompt = Prompt("p", "a red apple", "s", "apple", (), {"subject": "apple"})
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    files = {Cell(prompt, 0): tmp_path / "0.png"}
    reader = Reader(Stubborn(), {"presentation": ("alien",)}, "0" * 64)
    table = read_arm(ArmPictures("a", files, {}, {}), list(files), [reader], tmp_path / "readings")
    [row] = table.to_pylist()
    assert row["attribute"] is None and row["readable"] is False and len(row["image_sha256"]) == 64

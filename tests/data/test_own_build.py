"""Promises of `unskew data build`: from a folder as it is, or from none, to a set to train on."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from unskew.attributes import load_attribute
from unskew.data import own
from unskew.data.checking import Verdict
from unskew.data.emoji_world.drawn import FILE, HEADER, synthesis_settings
from unskew.data.emoji_world.world import World
from unskew.data.looking import look_at
from unskew.data.own_options import BuildSettings
from unskew.errors import UserError
from unskew.evaluate.generate import Cell
from unskew.runs import held, read_manifest, sha256_file
from unskew.settings import resolve
from unskew.train.rows import load_rows

EVIL = "<img src=x onerror=alert(1)>.png"
WHO = ("woman", "man", "man", "man", "woman", "x", "")


def photo(file: Path, number: int) -> None:
    pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings over a folder of two women, three men, two unknown, a copy, and a blank one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = []
    for number, who in enumerate(WHO):
        name = EVIL if number == 1 else f"{number} ü.png"
        photo(folder / name, number)
        lines.append({"file_name": name, "who": who, "text": "a woman mechanic"})
    (folder / "copy.png").write_bytes((folder / EVIL).read_bytes())
    Image.new("RGB", (16, 16), "white").save(folder / "blank.png")
    lines += [{"file_name": "copy.png", "who": "man"}, {"file_name": "blank.png", "who": "man"}]
    lines.append({"file_name": "../settings.yaml", "who": "man"})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metadata.jsonl").write_text(text, "utf-8")
    settings = {
        "out": str(tmp_path / "out" / "set"),
        "sources": [
            {
                "kind": "folder",
                "folder": str(folder),
                "subject": "mechanic",
                "license": "CC0-1.0",
                "columns": {"labels": {"gender_presentation": {"column": "who"}}},
            }
        ],
        "screen": {"least_side_px": 16},
        "balance": {"attributes": ["gender_presentation"]},
    }
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(settings), "utf-8")
    return file


def built(config: Path, *more: str) -> Path:
    assert own.main(["--config", str(config), *more]) == 0
    return config.parent / "out" / "set"


def hashes(folder: Path) -> dict[str, str]:
    files = (f for f in folder.rglob("*") if f.is_file() and "out" not in f.parts)
    return {str(f): sha256_file(f) for f in files}


def test_a_folder_becomes_a_balanced_set(config: Path) -> None:
    """As many women as men, each picture once; what is left out has its reason beside the set."""
    before = hashes(config.parent)
    out = built(config)
    assert hashes(config.parent) == before
    rows = load_rows(out, {"gender_presentation": load_attribute("gender_presentation")})
    shown = [row.values["gender_presentation"] for row in rows if row.kind == "neutral"]
    assert sorted(shown) == ["man", "man", "woman", "woman"]
    assert len({row.file for row in rows}) == 4
    page = (out / "screened.html").read_text("utf-8")
    assert EVIL not in page and "&lt;img src=x onerror=alert(1)&gt;.png" in page
    lines = [json.loads(line) for line in (out / "screened.jsonl").read_text().splitlines()]
    reasons = {line["picture"]: line["reason"] for line in lines if not line["kept"]}
    assert len(lines) == 10 and set(reasons) == {
        "photos/copy.png",
        "photos/blank.png",
        "photos/../settings.yaml",
    }
    assert all(reason and reason.replace("<", "&lt;")[:9] in page for reason in reasons.values())
    made = {file.name: sha256_file(file) for file in out.iterdir() if file.is_file()}
    assert built(config) == out
    assert {file.name: sha256_file(file) for file in out.iterdir() if file.is_file()} == made


def test_a_dry_run_writes_no_dataset(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the balance and where to see what was left out."""
    out = built(config, "--dry-run")
    assert [file.name for file in out.iterdir()] == [".work"]
    said = capsys.readouterr().out
    assert "dry run: no dataset was written" in said and "woman" in said


def test_two_builds_do_not_share_a_folder(config: Path) -> None:
    """The second is told who has it, before it looks at a picture, and nothing is written."""
    out = config.parent / "out" / "set"
    with held(out / ".work"), pytest.raises(UserError, match=r"\.work is in use by process"):
        built(config)
    assert [file.name for file in (out / ".work").iterdir()] == [".lock"]
    assert (built(config) / "metadata.jsonl").is_file()


def test_the_base_draws_what_a_folder_lacks(config: Path, tiny_base: Path) -> None:
    """Every picture that there is is used, and what lacks comes from the base, with its cost."""
    settings = yaml.safe_load(config.read_text("utf-8"))
    settings["balance"]["by"] = "synthesis"
    settings["subjects"] = {"health worker": ["gender_presentation"], "apple": []}
    settings["screen"] |= {"least_contrast": 0, "least_sharpness": 0, "near_duplicates": False}
    settings["synthesis"] = {
        "base": str(tiny_base),
        "steps": 1,
        "guidance": 1.0,
        "resolution_px": 16,
        "batch": 4,
        "dtype": "fp32",
        "license": "CC0-1.0",
    }
    config.write_text(yaml.safe_dump(settings), "utf-8")
    out = built(config)
    lines = [json.loads(line) for line in (out / "metadata.jsonl").read_text("utf-8").splitlines()]
    neutral = [line for line in lines if line["kind"] != "explicit"]
    shown = sorted((line["subject"], line["gender_presentation"] or "") for line in neutral)
    worker = [("health worker", "man"), ("health worker", "woman")]
    mechanics = [("mechanic", v) for v in ("man", "woman") for _ in range(4)]
    assert shown == [("apple", ""), *worker, *mechanics]
    drawn = [line for line in neutral if line["prompt"]]
    assert len(drawn) == 5 and all(line["seed"] >= 1_000_000 for line in drawn)
    card = (out / "README.md").read_text("utf-8")
    assert "## What drawing cost" in card and "no classifier checked" in card
    cost = (out / "synthesis-cost.csv").read_text("utf-8").splitlines()
    assert len(cost) == 1 + 4 and cost[0].startswith("subject,gender_presentation,wanted")
    assert read_manifest(out)["status"] == "complete"


def test_a_subject_with_an_empty_cell_is_left_out_and_told(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """From the base alone: one that was never drawn right is not in the set, the others are."""
    never = ("a man health worker", "a pear")

    def check(cells: Sequence[Cell], folder: Path, *more: Any) -> list[Verdict]:
        files = {c: c.file(folder) for c in cells}
        return [
            Verdict(file, look_at(file), "value" if c.prompt.text in never else None)
            for c, file in files.items()
        ]

    monkeypatch.setattr("unskew.data.synthesis.check", check)
    drawn = {"mechanic": ["gender_presentation"], "health worker": ["gender_presentation"]}
    settings = {
        "out": str(tmp_path / "out" / "set"),
        "subjects": {**drawn, "apple": [], "pear": []},
        "balance": {"attributes": ["gender_presentation"], "by": "synthesis"},
        "captions": {"templates": ["{x}"]},
        "synthesis": {
            "base": str(tiny_base),
            "steps": 1,
            "guidance": 1.0,
            "resolution_px": 16,
            "batch": 4,
            "dtype": "fp32",
            "most_tries": 2,
            "when_short": "leave_out",
        },
    }
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump(settings), "utf-8")
    out = built(config)
    lines = [json.loads(line) for line in (out / "metadata.jsonl").read_text("utf-8").splitlines()]
    assert {line["subject"] for line in lines} == {"mechanic", "apple"}
    said = capsys.readouterr().err
    assert "left out: health worker, of which 1 cells have no picture" in said
    assert "left out: pear" in said
    assert "| health worker | 2 | 1 | 3 |" in (out / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sources": []}, "sources must name at least one"),
        ({"subjects": {"mechanic": ["season"]}}, "subjects.mechanic names 'season'"),
        ({"balance": {"by": "synthesis"}}, "synthesis must be given"),
    ],
)
def test_settings_that_cannot_work_are_told_first(
    config: Path, change: dict[str, Any], says: str
) -> None:
    """Before a picture is looked at."""
    settings = yaml.safe_load(config.read_text("utf-8")) | change
    config.write_text(yaml.safe_dump(settings), "utf-8")
    with pytest.raises(UserError, match=says):
        built(config)
    assert not (config.parent / "out").exists()


def test_the_guides_settings_are_good() -> None:
    """What docs/data.md shows as whole settings can be copied."""
    guide = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", guide, re.S)]
    whole = [block for block in blocks if "out" in block]
    assert len(whole) == 2
    for block in [*whole, whole[0] | {"label": next(b for b in blocks if "label" in b)["label"]}]:
        BuildSettings.model_validate(block)


def test_emoji_worlds_file_is_of_its_table(world: World) -> None:
    """configs/emoji/synthesis.yaml was written by drawn.py; nothing held out is drawn."""
    text = FILE.read_text("utf-8")
    assert text.startswith(HEADER)
    assert yaml.safe_load(text) == synthesis_settings(world)
    asked = resolve(BuildSettings, [], default_config=FILE, prog="x", description="x").settings
    kept_back = {s.id for s in world.subjects if s.split != "trained"}
    assert len(kept_back) == 16 and not kept_back & asked.subjects.keys()
    assert asked.subjects["mechanic"] == ("presentation", "skin_tone")

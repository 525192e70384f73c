"""The benchmark of studies: both sides draw the same pictures, and the page gets its row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from unskew.scripts.bench_study import main
from unskew.settings import config_path, run_program

BOTH = {"attributes": ["presentation", "skin_tone"]}
READ = ["subject", "presentation", "skin_tone"]
WOMAN = {"subject": "mechanic", "text": "a woman mechanic", "asked": {"presentation": "woman"}}
PROMPTS = [
    {"suite": "trained", "role": "neutral", **BOTH, "templates": ["{x}", "a picture of {x}"]},
    {"suite": "explicit", "role": "explicit", **BOTH, "prompts": [WOMAN]},
]
PROMPTS[0]["subjects"] = {"mechanic": "a mechanic"}


@pytest.fixture
def words(tiny_base: Path, tiny_people: Path, tmp_path: Path) -> list[str]:
    """The shipped settings, for a base whose batch takes milliseconds."""
    loaded = yaml.safe_load(config_path("bench/study/emoji.yaml").read_text("utf-8"))
    small = {"base": str(tiny_base), "cache": str(tmp_path)}
    reader = {"kind": "exemplars", "folder": str(tiny_people)}
    small |= {"classifiers": {"emoji": {**reader, "attributes": READ}}}
    small |= {"prompts": str(tmp_path / "prompts.yaml")}
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(PROMPTS), "utf-8")
    small |= {"steps": 2, "resolution_px": 16, "batch": 20, "dtype": "fp32"}
    suites = {"trained": {"seeds": 10}, "explicit": {"seeds": 20}}
    loaded |= {"settings": {**loaded["settings"], **small, "suites": suites}, "repeats": 1}
    file = tmp_path / "bench.yaml"
    file.write_text(yaml.safe_dump(loaded), "utf-8")
    return ["--config", str(file)]


def test_study_and_bare_calls_are_measured_on_the_same_pictures(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Equal but for rounding, with seconds of every part, in the page and as JSON."""
    page = tmp_path / "page.md"
    page.write_text("<!-- emoji-study -->\nold\n<!-- end of emoji-study -->\n", "utf-8")
    assert run_program(main, [*words, "--write", str(page), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["pictures"] == 80 and report["study_s"]["median"] > 0 < report["bare_s"]["median"]
    assert report["same"]["largest_difference"] <= 1 and report["same"]["equal_values"] > 0.99
    assert set(report["parts_s"]) == {"look", "load", "draw", "read", "compute", "report"}
    assert "| study / bare calls, median" in page.read_text("utf-8")


def test_a_dry_run_draws_a_batch_and_writes_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how long decoding takes, and leaves the page alone."""
    page = tmp_path / "page.md"
    assert run_program(main, [*words, "--write", str(page), "--dry-run"]) == 0
    assert "decoding 20: at once / 16 at a time" in capsys.readouterr().out
    assert not page.exists()

"""Promises of the Python API: light, the same engine as the commands, tables that say the same."""

from __future__ import annotations

import json
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml

import unskew
from unskew.errors import UserError
from unskew.evaluate import paired
from unskew.evaluate.compare_options import CompareSettings
from unskew.evaluate.notebook import CompareKeywords, StudyKeywords
from unskew.evaluate.options import StudySettings
from unskew.settings import config_path, run_program

StudyOn = Callable[..., Path]
ROOT = Path(__file__).parents[2]


def test_the_import_is_light() -> None:
    """`import unskew` brings none of what is heavy, and reading results brings no torch."""
    code = (
        "import sys, unskew\n"
        "heavy = {'torch', 'pandas', 'numpy', 'pydantic', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "unskew.load_results, unskew.StudyRun\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_offered_is_there() -> None:
    """Each public name can be had, stands in dir(), and says what it is; others are refused."""
    assert set(unskew.__all__) <= set(dir(unskew))
    assert all(getattr(unskew, name).__doc__ for name in unskew.__all__)
    with pytest.raises(AttributeError, match="no attribute 'adit'"):
        unskew.adit  # noqa: B018


def test_the_keywords_are_the_settings() -> None:
    """StudyKeywords names every setting of a study, with a type that its shipped values have."""
    hints = typing.get_type_hints(StudyKeywords)
    assert list(hints) == list(StudySettings.model_fields)
    assert set(typing.get_type_hints(CompareKeywords)) == set(CompareSettings.model_fields)
    types = {name: pydantic.TypeAdapter(hint) for name, hint in hints.items()}
    for file in ("emoji/study-proof.yaml", "sd15/study.yaml", "emoji/audit.yaml"):
        given = yaml.safe_load(config_path(file).read_text("utf-8"))
        every = StudySettings.model_validate(given).model_dump(mode="json")
        for name, value in [*given.items(), *every.items()]:
            types[name].validate_python(value, strict=True)


@pytest.fixture
def study(study_on: StudyOn, tiny_base: Path) -> Path:
    return study_on(tiny_base, "unet")


def test_python_and_the_command_make_the_same_run(study: Path) -> None:
    """Same settings, same folder: the command finds all of it done, to the byte."""
    run = unskew.paired(study, change={"suites.trained.seeds": 4}, steps=3)
    assert run.folder == study.parent / "study"
    before = (run.folder / "results.json").read_bytes()
    drawn = {f: f.stat().st_mtime_ns for f in run.folder.rglob("*.png") if "images" in f.parts}
    words = ["--config", str(study), "--suites.trained.seeds", "4", "--steps", "3"]
    assert run_program(paired.main, words) == 0
    assert (run.folder / "results.json").read_bytes() == before
    assert drawn == {f: f.stat().st_mtime_ns for f in drawn}
    assert len(run.readings()) == 2 * (4 * 4 + 3) * 2
    passed = json.loads((run.folder / "manifest.json").read_text())["settings"]
    assert passed["steps"] == 3 and passed["suites"]["trained"]["seeds"] == 4


def test_all_that_is_wrong_is_listed(study: Path) -> None:
    """Wrong keywords are told with their names and what is near, before anything is drawn."""
    with pytest.raises(UserError) as told:
        unskew.paired(study, steps=0, stepz=3, change={"suites.trained.seed": 1})  # type: ignore[call-arg]
    said = str(told.value)
    assert said.startswith("unskew.paired: wrong settings over those of")
    assert "steps must be an integer >= 1, got 0" in said
    assert "stepz is no setting; perhaps you meant steps" in said
    assert "suites.trained.seed is no setting; perhaps you meant suites.trained.seeds" in said
    with pytest.raises(UserError, match="an audit has one arm"):
        unskew.audit(study)
    with pytest.raises(UserError, match="two or more arms"):
        unskew.paired(study, arms={"base": {}})
    assert not (study.parent / "study").exists()


def rows(run: Any, part: str) -> list[dict[str, Any]]:
    loaded: dict[str, Any] = json.loads((run.folder / "results.json").read_text())
    found: list[dict[str, Any]] = loaded[part]
    return found


def test_tables_say_what_the_file_says(bare_study: Path) -> None:
    """Every row of results.json is a row of its table, with the same numbers and verdict."""
    run = unskew.load_results(bare_study / "results.json")
    assert run.folder == bare_study
    table = run.representation
    for n, row in enumerate(rows(run, "representation")):
        told = table.iloc[n]
        assert (told["attribute"], told["suite"]) == (row["attribute"], row["suite"])
        assert told["before"] == row["baseline"]["imbalance"]
        assert [told["change"], told["low"], told["high"]] == [
            row["change"]["imbalance"],
            *row["change"]["ci95"],
        ]
        assert told["verdict"] == row["verdict"]
        shown = run.shares.query("attribute == @row['attribute'] and suite == @row['suite']")
        lora = shown[shown["arm"] == "lora"].set_index("value")["share"].to_dict()
        assert lora == row["treated"]["shares"]
        assert set(shown[shown["arm"] == "base"]["value"]) == set(row["target"])
    assert len(run.prompts) == sum(len(r["per_prompt"]) for r in rows(run, "representation"))
    assert list(run.fidelity["verdict"]) == [row["verdict"] for row in rows(run, "fidelity")]
    assert list(run.drift["change"]) == [row["excess"] for row in rows(run, "drift")]


def test_a_cell_shows_the_finding(bare_study: Path, tmp_path: Path) -> None:
    """In a notebook a run is its sentence and verdicts; names from files cannot become markup."""
    file = tmp_path / "results.json"
    text = (bare_study / "results.json").read_text("utf-8")
    file.write_text(text.replace("perceived colour", "<script>alert(1)</script>"), "utf-8")
    shown = unskew.load_results(tmp_path)._repr_html_()
    assert "fell from 1.00" in shown and "<td>improved</td>" in shown
    assert "&lt;script&gt;" in shown and "<script>" not in shown


def test_figures_are_pictures_with_words(bare_study: Path) -> None:
    """Both figures come out as PNG in an img with what they show as words; no window is asked."""
    run = unskew.load_results(bare_study)
    for picture in (run.plot_imbalance(), run.plot_shares("colour", "trained")):
        assert picture.png().startswith(b"\x89PNG")
        shown = picture._repr_html_()
        assert shown.startswith('<img alt="') and "data:image/png;base64," in shown
    assert "lora: red 50%, blue 50%" in run.plot_shares("colour", "trained").alt
    assert "colour on held-out, base: 1.00" in run.plot_imbalance().alt
    assert "matplotlib.pyplot" not in sys.modules
    with pytest.raises(UserError, match=r"size on things was not measured \(measured: colour on"):
        run.plot_shares("size", "things")


@pytest.mark.slow
def test_the_example_notebook_runs(tmp_path: Path) -> None:
    """docs/emoji-world.ipynb, with fewer pictures, runs from an empty folder to its figures."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "docs" / "emoji-world.ipynb", as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")], "commit it without outputs"
    (numbers,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    small = '{"trained": {"seeds": 3, "prompts": 3}, "control": {"seeds": 3, "prompts": 2}}'
    numbers.source = f"SUITES = {small}\nSTEPS = 2"
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = [
        output.data["text/html"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "text/html" in output.get("data", {})
    ]
    assert sum("data:image/png;base64" in html for html in shown) == 2
    assert sum("Report: runs/notebook-" in html for html in shown) == 2
    assert (tmp_path / "runs" / "notebook-negative" / "report.html").is_file()

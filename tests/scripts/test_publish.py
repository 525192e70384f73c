"""Promises of `unskew publish`: what a bundle holds, what is refused, and what never gets out."""

from __future__ import annotations

import getpass
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from unskew.adapters import WEIGHTS_FILE
from unskew.evaluate.schema import load_results
from unskew.kohya import KOHYA_FILE
from unskew.runs import sha256_file
from unskew.scripts.bundle import bundle_files
from unskew.scripts.publish import main
from unskew.settings import run_program

Capture = pytest.CaptureFixture[str]


def rewrite(file: Path, **changes: Any) -> None:
    """Change entries of a JSON file."""
    said = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**said, **changes}), "utf-8")


def publish(runs: Any, out: Path, *more: str) -> int:
    """The program's exit code."""
    return run_program(main, runs.words(out, *more))


def test_a_bundle_is_whole(runs: Any, whole_bundle: Path) -> None:
    """Both formats byte for byte, card, results, settings, grids; checksums name every file."""
    for name in (WEIGHTS_FILE, KOHYA_FILE):
        assert (whole_bundle / name).read_bytes() == (runs.train / "adapter" / name).read_bytes()
    names = {file.relative_to(whole_bundle).as_posix() for file in whole_bundle.rglob("*.*")}
    assert {"README.md", "results.json", "summary.md", "training.json", "bundle.json"} <= names
    assert dict(bundle_files(whole_bundle)).keys() == names
    sums = json.loads((whole_bundle / "checksums.json").read_text())
    assert sums["version"] == 1
    for name, said in sums["files"].items():
        assert said["sha256"] == sha256_file(whole_bundle / name)
    with Image.open(whole_bundle / "samples" / "pair-1.png") as pair:
        assert pair.size == (32, 16)


def test_the_card_says_what_the_hub_reads(whole_bundle: Path) -> None:
    """huggingface_hub's own class finds base, relation, tags, gallery and model-index in it."""
    data = ModelCard.load(whole_bundle / "README.md").data
    assert data.base_model == "somebody/tiny-base"
    assert data.base_model_relation == "adapter"
    assert (data.library_name, data.pipeline_tag) == ("diffusers", "text-to-image")
    assert {"lora", "template:sd-lora"} <= set(data.tags)
    assert all((whole_bundle / one["output"]["url"]).is_file() for one in data.widget)
    results = load_results(whole_bundle / "results.json")
    [row] = results.representation
    assert row.treated
    figures = {r.metric_type: r.metric_value for r in data.eval_results}
    assert figures["imbalance"] == round(row.treated.imbalance, 4)


def test_the_results_are_those_of_the_study(runs: Any, whole_bundle: Path) -> None:
    """Nothing but local names is left out: every row and figure is there."""
    published = load_results(whole_bundle / "results.json")
    studied = load_results(runs.study / "results.json")
    for part in ("representation", "fidelity", "drift", "quality", "counts", "gate", "baseline"):
        assert getattr(published, part) == getattr(studied, part)


def test_nothing_local_gets_out(runs: Any, whole_bundle: Path) -> None:
    """No path, user name or local file name is in any file, in whatever part of it."""
    hidden = ["jane-does-secret", str(Path.home()), "prompts.yaml", "/tmp", "pytest-of"]
    hidden += [f"/{getpass.getuser()}/", *(p.name for p in (runs.train, runs.study))]
    for file in whole_bundle.rglob("*.*"):
        content = file.read_bytes()
        found = [name for name in hidden if name.encode() in content]
        assert not found, f"{file.name} holds {found}"


def test_a_local_name_in_what_the_user_wrote_stops_it(
    runs: Any, tmp_path: Path, capsys: Capture
) -> None:
    """What no choice of fields keeps back is found in the finished files; nothing is left."""
    assert publish(runs, tmp_path / "out", "--intended_use", f"See {runs.study.resolve()}") == 2
    assert "README.md: a path" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_token_gets_out(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A token that the user is logged in with, or that looks like one, stops the bundle."""
    token = "hf_" + "Ab3" * 10
    assert publish(runs, tmp_path / "out", "--intended_use", f"Use {token} for it") == 2
    monkeypatch.setenv("HF_TOKEN", "an-unusual-token-of-mine")
    assert publish(runs, tmp_path / "out", "--name", "an-unusual-token-of-mine") == 2
    said = capsys.readouterr()
    assert "looks like a token" in said.err and "the hub's token" in said.err
    assert token not in said.out + said.err and "unusual" not in said.out + said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("no study", "there is no study"),
        ("gate failed", "gate failed on 1 of its conditions: presentation@trained"),
        ("another adapter", "of another adapter"),
        ("another base", "another base"),
        ("other settings", "not of the settings in its manifest"),
        ("dirty study", "the study ran from code with changes"),
        ("dirty training", "the train ran from code with changes"),
        ("incomplete", "not complete"),
    ],
)
def test_what_is_not_proven_is_refused(
    runs: Any, tmp_path: Path, capsys: Capture, broken: str, told: str
) -> None:
    """Exit code 2 with the reason; with --allow-unproven the card gives it and the user's why."""
    copy = runs.copy(tmp_path)
    more = break_it(copy, broken)
    assert publish(copy, tmp_path / "out", *more) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    why = ("--allow-unproven", "A test of <b>ours</b>")
    assert publish(copy, tmp_path / "out", *more, *why) == 0
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "**Not proven.**" in card and "A test of &lt;b&gt;ours" in card
    strange = broken in ("no study", "another adapter", "another base", "other settings")
    assert (tmp_path / "out" / "results.json").exists() is not strange
    assert ("There is no study of this adapter" in card) is strange


def break_it(copy: Any, broken: str) -> list[str]:
    """Make something of the runs wrong; the words that the command then needs too."""
    manifest = copy.study / "manifest.json"
    said = json.loads(manifest.read_text("utf-8"))
    results = json.loads((copy.study / "results.json").read_text("utf-8"))
    match broken:
        case "no study":
            return ["--study", "null"]
        case "gate failed":
            reason = {"comparison": "presentation@trained", "arm": "debiased", "what": "improved"}
            reason |= {"limit": "improved", "found": "worsened", "ci95": None, "passed": False}
            reason |= {"inconclusive": False, "said": "presentation@trained: worsened"}
            rewrite(copy.study / "results.json", gate={"passed": False, "reasons": [reason]})
        case "another adapter":
            results["arms"]["debiased"]["facts"]["adapters"][0]["sha256"] = "0" * 64
            rewrite(copy.study / "results.json", **results)
        case "another base":
            rewrite(manifest, inputs={**said["inputs"], "base": "0" * 64})
        case "other settings":
            rewrite(manifest, settings={**said["settings"], "guidance": 7.5})
        case "dirty study":
            rewrite(manifest, git={"commit": "c0ffee", "dirty": True})
        case "dirty training":
            rewrite(copy.train / "manifest.json", git={"commit": "c0ffee", "dirty": True})
        case "incomplete":
            rewrite(manifest, status="interrupted")
    return []


def test_a_changed_adapter_is_never_published(runs: Any, tmp_path: Path, capsys: Capture) -> None:
    """A file that is not what the training wrote has no reason good enough."""
    copy = runs.copy(tmp_path)
    file = copy.train / "adapter" / WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    assert publish(copy, tmp_path / "out", "--allow-unproven", "because I say") == 2
    assert "is not the file that the training wrote" in capsys.readouterr().err


def test_a_run_of_another_version_is_told(runs: Any, tmp_path: Path, capsys: Capture) -> None:
    """Settings that this version does not know are no crash."""
    copy = runs.copy(tmp_path)
    said = json.loads((copy.train / "manifest.json").read_text("utf-8"))
    rewrite(copy.train / "manifest.json", settings={**said["settings"], "of_tomorrow": 1})
    assert publish(copy, tmp_path / "out") == 2
    assert "another version of Unskew (of_tomorrow" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--base_license", "creativeml-openrail-m"], "rules of use go with"),
        (["--data_license", "cc-by-nc-4.0"], "non-commercial"),
        (["--data_license", "cc-by-sa-4.0"], "asks for the same"),
        (["--license", "other"], "license_name and license_link"),
        (["--base_model", "null"], "base_model must be given"),
        (["--license", "null"], "license must be given"),
    ],
)
def test_a_licence_that_others_forbid_is_refused(
    runs: Any, tmp_path: Path, capsys: Capture, words: list[str], told: str
) -> None:
    """The licence is asked for, and held against the base's and the data's."""
    assert publish(runs, tmp_path / "out", *words) == 2
    assert told in capsys.readouterr().err


def test_a_dry_run_shows_all_and_leaves_nothing(
    runs: Any, whole_bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Every file with its size, and the card; no folder."""
    assert publish(runs, tmp_path / "out", "--dry-run") == 0
    said = capsys.readouterr().out
    assert all(name in said for name, _ in bundle_files(whole_bundle))
    assert (whole_bundle / "README.md").read_text("utf-8") in said
    assert not list(tmp_path.iterdir())


def test_the_same_runs_give_the_same_bundle(runs: Any, whole_bundle: Path, tmp_path: Path) -> None:
    """Byte for byte, so that a second push has nothing to send; and what is no bundle stays."""
    assert publish(runs, tmp_path / "out") == 0
    assert publish(runs, tmp_path / "out") == 0
    sums = [(folder / "checksums.json").read_bytes() for folder in (tmp_path / "out", whole_bundle)]
    assert sums[0] == sums[1]
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert publish(runs, tmp_path / "out") == 2
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"

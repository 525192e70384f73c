"""The comparison through its program: arms from settings, one leaderboard, the same command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from unskew.errors import UserError
from unskew.evaluate.compare import main
from unskew.evaluate.compare_options import CompareSettings, line_up
from unskew.evaluate.schema_comparison import Comparison, load_comparison
from unskew.settings import run_program

StudyIn = Callable[..., Path]


@pytest.fixture(scope="module")
def comparison(
    study_in: StudyIn, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A comparison's YAML: the tiny base, a sweep of an adapter, a mix with itself, other words."""
    file = study_in(tmp_path_factory.mktemp("compare"), tiny_base, "unet")
    settings = yaml.safe_load(file.read_text("utf-8"))
    adapter = settings["arms"].pop("adapter")["adapter"]
    settings["arms"]["words"] = {"rewrite": "{prompt}, a woman or a man"}
    settings |= {
        "adapters": {
            "ours": {"adapter": adapter, "weights": [1.0, 0.5]},
            "twin": {"adapter": adapter, "weights": []},
        },
        "mixes": ["ours:0.25+twin:0.25"],
    }
    file.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    return file


@pytest.fixture(scope="module")
def told(comparison: Path) -> Comparison:
    """What the program found, once."""
    assert run(comparison) == 0
    return load_comparison(comparison.parent / "study")


def run(file: Path, *words: str) -> int:
    return run_program(main, ["--config", str(file), *words])


ARMS = ["base", "words", "ours-1", "ours-0_5", "ours-0_25--twin-0_25"]


def test_settings_become_arms_on_the_same_cells(comparison: Path, told: Comparison) -> None:
    """A sweep, a mix and a rewriting are arms of one study, and its file says how they rank."""
    images = comparison.parent / "study" / "images"
    names = [{f.relative_to(images / arm) for f in (images / arm).rglob("*.png")} for arm in ARMS]
    assert len(names[0]) == 15
    assert all(drawn == names[0] for drawn in names)
    assert {place.arm for place in told.leaderboard} == set(ARMS)
    assert [(p.weight, p.arm) for p in told.sweeps["ours"]] == [(0.5, "ours-0_5"), (1.0, "ours-1")]
    assert len(told.deciding) == 10
    # A quarter twice is a half once: the adapters add up.
    half, mixed = images / ARMS[3], images / ARMS[4]
    same = [(half / f).read_bytes() == (mixed / f).read_bytes() for f in names[0]]
    assert sum(same) >= len(same) / 2


def test_pairs_with_the_baseline_are_the_rows_of_the_study(
    comparison: Path, told: Comparison
) -> None:
    """Arm against arm is computed as arm against base: the two files agree to the last digit."""
    results = json.loads((comparison.parent / "study" / "results.json").read_text("utf-8"))
    assert len(results["representation"]) == 4
    for row in results["representation"]:
        [pair] = [p for p in told.pairs if (p.arm, p.against) == (row["arm"], "base")]
        assert pair.difference == pytest.approx(row["change"]["imbalance"], abs=1e-12)
        assert pair.ci95 == pytest.approx(tuple(row["change"]["ci95"]), abs=1e-12)
        assert pair.p_value == pytest.approx(row["change"]["p_value"], abs=1e-12)
        [place] = [p for p in told.leaderboard if p.arm == row["arm"]]
        assert place.imbalance == pytest.approx(row["treated"]["imbalance"], abs=1e-12)
        assert place.ci95 == pytest.approx(tuple(row["treated"]["imbalance_ci95"]), abs=1e-12)


def test_the_same_command_again_ends_the_same_and_draws_nothing(
    comparison: Path, told: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    """No picture is written again; --json puts the comparison alone on stdout."""
    folder = comparison.parent / "study"
    before = {f: f.stat().st_mtime_ns for f in (folder / "images").rglob("*.png")}
    page = (folder / "compare.html").read_bytes()
    assert run(comparison, "--json") == 0
    assert Comparison.model_validate_json(capsys.readouterr().out) == told
    assert {f: f.stat().st_mtime_ns for f in (folder / "images").rglob("*.png")} == before
    assert (folder / "compare.html").read_bytes() == page


def settings(**given: Any) -> CompareSettings:
    """A comparison without a study around it: nothing of it is drawn."""
    return CompareSettings.model_validate(
        {"suites": {"trained": {}}, "classifiers": {}, "primaries": [], **given}
    )


def test_all_that_is_wrong_with_arms_is_told_at_once(tmp_path: Path) -> None:
    """One message names every adapter, mix and weight that cannot be meant."""
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"")
    wrong = settings(
        adapters={
            "a b": {"adapter": str(tmp_path)},
            "gone": {"adapter": str(tmp_path / "nowhere")},
            "twice": {"adapter": str(tmp_path), "weights": [1, 1]},
            "here": {"adapter": str(tmp_path), "revision": "main"},
        },
        mixes=["gone:x", "other:1", "twice+twice:0.5"],
    )
    with pytest.raises(UserError) as error:
        line_up(wrong)
    said = str(error.value)
    for part in (
        "'a b' cannot name an adapter",
        "adapters.gone: ",
        "weights name a weight twice",
        "revision main is for an adapter on the hub",
        "'x' is no weight",
        "adapters has no 'other'",
        "names twice twice",
    ):
        assert part in said

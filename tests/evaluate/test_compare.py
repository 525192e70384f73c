"""The comparison through its program: arms from settings, one leaderboard, the same command."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import unskew
from unskew.errors import UserError
from unskew.evaluate import arms, blind, study
from unskew.evaluate.compare import main
from unskew.evaluate.compare_options import CompareSettings
from unskew.evaluate.inputs import look_over
from unskew.evaluate.lineup import line_up
from unskew.evaluate.reuse import check_folders, take_drawn
from unskew.evaluate.robustness import trials
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
def loads() -> list[str]:
    """What was loaded while `told` was made."""
    return []


@pytest.fixture(scope="module")
def told(comparison: Path, loads: list[str]) -> Comparison:
    """What the program found, once."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((study, "load_base"), (arms, "load_adapter")):
            patch.setattr(module, name, counted(getattr(module, name), loads))
        assert run(comparison) == 0
    return load_comparison(comparison.parent / "study")


def counted(load: Callable[..., Any], loads: list[str]) -> Callable[..., Any]:
    """The same function, which leaves its name."""

    def loading(*given: Any, **options: Any) -> Any:
        loads.append(load.__name__)
        return load(*given, **options)

    return loading


def run(file: Path, *words: str) -> int:
    return run_program(main, ["--config", str(file), *words])


ARMS = ["base", "words", "ours-1", "ours-0_5", "ours-0_25--twin-0_25"]


def test_settings_become_arms_on_the_same_cells(
    comparison: Path, told: Comparison, loads: list[str]
) -> None:
    """A sweep, a mix and a rewriting are arms of one study; nothing is loaded twice for them."""
    images = comparison.parent / "study" / "images"
    names = [{f.relative_to(images / arm) for f in (images / arm).rglob("*.png")} for arm in ARMS]
    assert len(names[0]) == 15
    assert all(drawn == names[0] for drawn in names)
    assert {place.arm for place in told.leaderboard} == set(ARMS)
    assert [(p.weight, p.arm) for p in told.sweeps["ours"]] == [(0.5, "ours-0_5"), (1.0, "ours-1")]
    assert len(told.deciding) == 10
    assert loads == ["load_base", "load_adapter", "load_adapter"]  # one is on twice in the mix
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


def test_the_leaderboard_is_in_order_of_imbalance(told: Comparison) -> None:
    """Each arm's place lies between the ranks that are left open to it."""
    assert [p.imbalance for p in told.leaderboard] == sorted(p.imbalance for p in told.leaderboard)
    for number, place in enumerate(told.leaderboard, 1):
        assert place.ranks[0] <= number <= place.ranks[1]
        assert place.ranks[1] - place.ranks[0] == len(place.ties)


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


def changed(comparison: Path, out: str, **given: Any) -> Path:
    """The comparison with other settings, in a folder of its own beside it."""
    settings = yaml.safe_load(comparison.read_text("utf-8"))
    settings |= {"out": str(comparison.parent / out), **given}
    file = comparison.parent / f"{out}.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    return file


def test_arms_drawn_before_are_taken_and_not_drawn(
    comparison: Path, told: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same drawing under another name is linked, and no base is loaded for it."""
    first = comparison.parent / "study"
    ours = yaml.safe_load(comparison.read_text("utf-8"))["adapters"]["ours"]
    file = changed(comparison, "again", adapters={"mine": ours}, mixes=[], reuse=[str(first)])
    drawn: list[str] = []
    monkeypatch.setattr(study, "load_base", counted(study.load_base, drawn))
    assert run(file) == 0
    assert drawn == []
    pictures = sorted((first / "images" / "ours-0_5").rglob("*.png"))
    taken = [comparison.parent / "again/images/mine-0_5" / f.parent.name / f.name for f in pictures]
    assert len(taken) == 15
    assert all(a.samefile(b) for a, b in zip(pictures, taken, strict=True))


def test_what_was_changed_after_it_was_read_is_not_taken(
    comparison: Path, told: Comparison, tmp_path: Path
) -> None:
    """One other byte in one picture, and the arm is not taken; other settings take nothing."""
    first = Path(shutil.copytree(comparison.parent / "study", tmp_path / "first"))
    settings = CompareSettings.model_validate(yaml.safe_load(comparison.read_text("utf-8")))
    lineup = line_up(settings.model_copy(update={"out": tmp_path / "second"}))
    looked = look_over(lineup.study)
    spoilt = sorted((first / "images" / "words").rglob("*.png"))[0]
    spoilt.write_bytes(spoilt.read_bytes() + b"\0")
    said = "\n".join(take_drawn(looked, [first]))
    assert f"arm words is drawn: {spoilt}" in said
    assert not (tmp_path / "second/images/words").exists()
    assert len(list((tmp_path / "second/images").rglob("*.png"))) == 4 * 15
    slower = look_over(lineup.study.model_copy(update={"steps": 3, "out": tmp_path / "third"}))
    assert "was not drawn so before" in "\n".join(take_drawn(slower, [first]))
    assert not (tmp_path / "third").exists()
    with pytest.raises(UserError, match="no such folder"):
        check_folders([tmp_path / "nowhere"])


def test_python_sees_what_the_command_found(
    comparison: Path, told: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same folder, nothing drawn again; tables and a cell say what the file says."""
    monkeypatch.setattr(study, "load_base", None)
    run = unskew.compare(comparison)
    assert run.comparison == told and run.page.is_file()
    ranks = zip(run.leaderboard["rank_best"], run.leaderboard["rank_worst"], strict=True)
    assert list(ranks) == [place.ranks for place in told.leaderboard]
    assert list(run.leaderboard["imbalance"]) == [place.imbalance for place in told.leaderboard]
    assert list(run.pairs["difference"]) == [row.difference for row in told.pairs]
    shown = run._repr_html_()
    assert told.recommendation.sentence in html.unescape(shown) and "<table" in shown


def test_people_choose_blindly_and_it_enters_the_comparison(
    comparison: Path, told: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page names no arm; choices for one arm win it the preference in both files."""
    folder = Path(shutil.copytree(comparison.parent / "study", tmp_path / "run"))
    words = [str(folder), "--arms", "base", "words", "--pairs", "14"]
    assert run_program(blind.main, words) == 0
    page = (folder / "blind/better/page.html").read_text("utf-8")
    assert page.count("data:image/webp") == 28
    assert "a picture of a mechanic" in page
    shown = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert set(shown["pairs"][0]) == {"left", "right", "text", "id"}
    sample = json.loads((folder / "blind/better/sample.json").read_text("utf-8"))
    choices = {p["id"]: "left" if p["left"] == "words" else "right" for p in sample["pairs"]}
    file = tmp_path / "choices.json"
    answer = {"schema_version": 1, "run": sample["run"], "rater": "ana", "choices": choices}
    file.write_text(json.dumps({**answer, "sample": "another"}), "utf-8")
    assert run_program(blind.main, [str(folder), "--choices", str(file)]) == 2
    assert "answers another sample" in capsys.readouterr().err
    file.write_text(json.dumps({**answer, "sample": shown["sample"]}), "utf-8")
    assert run_program(blind.main, [str(folder), "--choices", str(file)]) == 0
    [result] = load_comparison(folder).blind
    assert (result.preferred, result.n_pairs, result.raters) == ("words", 14, {"ana": 14})
    assert result.p_value == pytest.approx(2 * 0.5**14)
    assert "is preferred" in (folder / "compare.html").read_text("utf-8")


@pytest.mark.slow
def test_an_arm_is_tried_beside_a_style_at_another_sampler_and_guidance(
    comparison: Path, told: Comparison
) -> None:
    """Each condition has a baseline of its own, drawn in the same way."""
    asked = {"arm": "ours-1", "beside": ["twin:0.3"], "samplers": ["ddim"], "guidances": [3]}
    first = comparison.parent / "study"
    assert run(changed(comparison, "tried", reuse=[str(first)], robustness=asked)) == 0
    out = comparison.parent / "tried"
    tried = load_comparison(out).robustness
    assert tried is not None
    assert [c.name for c in tried.conditions] == ["beside-twin-0.3", "sampler-ddim", "guidance-3"]
    for condition in tried.conditions:
        manifest = json.loads((out / condition.folder / "manifest.json").read_text("utf-8"))
        assert manifest["status"] == "complete"
        assert list(manifest["settings"]["arms"]) == ["base", "treated"]
        assert condition.less == pytest.approx(condition.change - tried.change)
    style = json.loads((out / "elsewhere/beside-twin-0.3/manifest.json").read_text("utf-8"))
    worn = [[a["weight"] for a in arm["adapters"]] for arm in style["settings"]["arms"].values()]
    assert worn == [[0.3], [1.0, 0.3]]
    assert "Does it hold elsewhere?" in (out / "compare.html").read_text("utf-8")


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


def test_an_arm_is_tried_elsewhere_with_the_intersections_of_that_suite(tmp_path: Path) -> None:
    """One with an attribute that the suite does not have would end it after all was drawn."""
    asked = settings(
        arms={"base": {}, "words": {"rewrite": "two {prompt}"}},
        intersections=[["presentation", "season"], ["presentation", "skin_tone"]],
        robustness={"guidances": [3]},
        out=str(tmp_path),
    )
    [trial] = trials(asked, line_up(asked), "words", "trained", {"presentation", "skin_tone"})
    assert trial.study.intersections == (("presentation", "skin_tone"),)

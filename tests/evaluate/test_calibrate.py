"""Promises of `unskew calibrate`: a blind sample, a page that opens offline, labels read back."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unskew.evaluate.calibrate import main
from unskew.evaluate.calibration import krippendorff_alpha, load_sample, run_fingerprint
from unskew.evaluate.corrected import with_labels
from unskew.evaluate.pictures import write_elsewhere
from unskew.evaluate.schema import load_results
from unskew.runs import sha256_file
from unskew.settings import run_program

ORACLES = Path(__file__).parents[1] / "oracles"
reported = SimpleNamespace(**runpy.run_path(str(ORACLES / "reported_study.py")))


@pytest.fixture(scope="module")
def drawn(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up study, its readings knowing its pictures; change only a copy."""
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    shutil.copytree(study, folder)
    readings = pd.read_parquet(folder / "readings.parquet")
    readings["image_sha256"] = [
        sha256_file(folder / "images" / row.arm / row.prompt_id / f"{row.seed}.png")
        for row in readings.itertuples()
    ]
    readings.to_parquet(folder / "readings.parquet")
    return folder


@pytest.fixture
def run(drawn: Path, tmp_path: Path) -> Path:
    """A copy of its own for each test."""
    return Path(shutil.copytree(drawn, tmp_path / "run"))


def calibrate(run: Path, *words: str) -> int:
    """The program's exit code."""
    return run_program(main, [str(run), *words])


def answers(run: Path, rater: str = "ana", **more: Any) -> dict[str, Any]:
    """A file of labels that says what the classifier read."""
    sample = load_sample(run)
    assert sample is not None
    readings = pd.read_parquet(run / "readings.parquet")
    keys = zip(
        readings["arm"], readings["prompt_id"], readings["seed"], readings["attribute"], strict=True
    )
    read = dict(zip(keys, readings["value"], strict=True))
    labels = {t.id: read[t.arm, t.prompt_id, t.seed, t.attribute] for t in sample.tasks}
    file = {
        "schema_version": 1,
        "run": sample.run,
        "sample": sample.sha256,
        "rater": rater,
        "labels": labels,
    }
    return file | more


def write(file: Path, content: dict[str, Any]) -> str:
    """The file's name, once it holds this."""
    file.write_text(json.dumps(content), "utf-8")
    return str(file)


def test_the_sample_is_stratified_and_the_same_again(run: Path) -> None:
    """Every arm and attribute gets its number, prompts alike; the same command makes no other."""
    assert calibrate(run, "--per_arm", "48") == 0
    sample = load_sample(run)
    assert sample is not None
    counts = pd.DataFrame([t.model_dump() for t in sample.tasks])
    assert set(counts.groupby(["arm", "attribute"]).size()) == {48}
    trained = counts[(counts["suite"] == "trained") & (counts["attribute"] == "colour")]
    assert set(trained.groupby(["arm", "prompt_id"]).size()) == {2}
    assert set(trained["chance"]) == {2 / 6}
    pairs = trained.groupby(["prompt_id", "seed"])["arm"].nunique()
    assert set(pairs) == {2}
    page = (run / "calibration/label.html").read_bytes()
    assert calibrate(run, "--per_arm", "48") == 0
    assert (run / "calibration/label.html").read_bytes() == page
    assert run_fingerprint(run) == sample.run


def test_another_sample_never_replaces_the_first(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody may be labelling it: other settings are an error that shows the difference."""
    assert calibrate(run, "--per_arm", "20") == 0
    before = (run / "calibration/sample.json").read_bytes()
    assert calibrate(run, "--per_arm", "30") == 2
    assert "per_arm: 20 -> 30" in capsys.readouterr().err
    assert (run / "calibration/sample.json").read_bytes() == before


def test_the_page_is_blind_and_opens_offline(run: Path) -> None:
    """It names no arm, prompt, seed or reading; its only script is let run by its hash."""
    assert calibrate(run, "--per_arm", "20") == 0
    html = (run / "calibration/label.html").read_text("utf-8")
    sample = load_sample(run)
    assert sample is not None
    page = reported.Page(html)
    data = json.loads(page.raw["script"][: page.raw["script"].index('"use strict"')])
    assert set(data) == {"run", "sample", "attributes", "tasks", "pictures"}
    assert {tuple(sorted(task)) for task in data["tasks"]} == {("attribute", "id", "picture")}
    assert all(uri.startswith("data:image/webp;base64,") for uri in data["pictures"])
    assert "lora" not in html
    assert not any(task.prompt_id in html for task in sample.tasks)
    arms = [task.arm for task in sample.tasks if task.attribute == "colour"]
    assert arms not in (sorted(arms), sorted(arms, reverse=True))
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'; img-src data:" in policy["content"]
    assert "script-src 'sha256-" in policy["content"]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_hostile_words_stay_words(run: Path) -> None:
    """Titles, caveats and values with markup change no element of the page."""
    assert calibrate(run, "--per_arm", "20", "--attributes", "colour") == 0
    harmless = reported.Page((run / "calibration/label.html").read_text("utf-8")).structure
    shutil.rmtree(run / "calibration")
    file = run / "results.json"
    found = json.loads(file.read_text("utf-8"))
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    found["settings"]["attributes"]["colour"] |= {"title": hostile, "caveat": hostile}
    file.write_text(json.dumps(found), "utf-8")
    assert calibrate(run, "--per_arm", "20", "--attributes", "colour") == 0
    page = reported.Page((run / "calibration/label.html").read_text("utf-8"))
    assert page.structure == harmless


def test_labels_correct_the_results_and_the_report(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Raw stays, corrected stands beside it, both in results.json and on the page."""
    raw = load_results(run / "results.json")
    assert calibrate(run, "--per_arm", "60") == 0
    assert calibrate(run, "--labels", write(tmp_path / "a.json", answers(run))) == 0
    found = load_results(run / "results.json")
    for before, row in zip(raw.representation, found.representation, strict=True):
        assert row.model_copy(update={"corrected": None}) == before
        assert row.corrected is not None
        assert row.corrected.raters == ("ana",)
    row = found.representation[0]
    assert row.corrected is not None
    assert row.corrected.treated is not None
    assert row.treated is not None
    assert row.change is not None
    assert row.corrected.treated.shares == pytest.approx(row.treated.shares, abs=0.02)
    assert row.corrected.imbalance is not None
    assert row.corrected.imbalance.matrix == "shared"
    assert row.corrected.imbalance.change_ci95 is not None
    low, high = row.corrected.imbalance.change_ci95
    assert low <= row.change.imbalance + 1e-9 <= high + 2e-9
    assert 'id="corrected"' in (run / "report.html").read_text("utf-8")
    assert "corrected" in capsys.readouterr().out
    assert (run / "calibration/labels-ana.json").is_file()


def test_a_report_without_labels_says_so(study: Path) -> None:
    """No labels, no section."""
    assert not reported.read(study).all("section", id="corrected")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"t99999": "red"}}, "no question 't99999'"),
        ({"labels": {"t00001": "mauve"}}, "is answered 'mauve'"),
        ({"labels": {"t00001": 3}}, "labels.t00001"),
        ({"labels": {}}, "no label yet"),
        ({"sample": "0" * 64}, "another sample"),
        ({"run": "0" * 16}, "another run"),
        ({"rater": "../../etc/x"}, "rater"),
        ({"schema_version": 2}, "schema_version"),
        ({"more": 1}, "more"),
    ],
)
def test_bad_labels_are_refused_whole(
    run: Path,
    tmp_path: Path,
    change: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A clear error, and neither the good file beside it nor anything else is stored."""
    assert calibrate(run, "--per_arm", "20") == 0
    before = (run / "results.json").read_bytes()
    good = write(tmp_path / "good.json", answers(run, "ben"))
    bad = write(tmp_path / "bad.json", answers(run) | change)
    assert calibrate(run, "--labels", good, bad) == 2
    assert message in capsys.readouterr().err
    assert not list((run / "calibration").glob("labels-*"))
    assert (run / "results.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", "[1", "[]", '{"a": 1, "a": 2}', "\udcff", "[" * 100_000])
def test_what_is_no_file_of_labels_is_refused(run: Path, tmp_path: Path, text: str) -> None:
    """Broken JSON, bytes that are no text, keys twice, absurd depth: exit code 2."""
    assert calibrate(run, "--per_arm", "20") == 0
    (tmp_path / "bad.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert calibrate(run, "--labels", str(tmp_path / "bad.json")) == 2


def test_stored_labels_are_never_lost(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rater's later file may add and mend labels, not drop them."""
    assert calibrate(run, "--per_arm", "20") == 0
    full = answers(run)
    first = dict(list(full["labels"].items())[:30])
    assert calibrate(run, "--labels", write(tmp_path / "a.json", full | {"labels": first})) == 0
    assert calibrate(run, "--labels", write(tmp_path / "a.json", full)) == 0
    assert calibrate(run, "--labels", write(tmp_path / "a.json", full | {"labels": first})) == 2
    assert "lacks" in capsys.readouterr().err
    stored = json.loads((run / "calibration/labels-ana.json").read_text("utf-8"))
    assert stored["labels"] == full["labels"]


def test_two_raters_agree_or_not(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are told, with kappa and alpha; a label that one withholds is no disagreement."""
    assert calibrate(run, "--per_arm", "20") == 0
    ana, ben = answers(run), answers(run, "ben")
    ben["labels"][next(iter(ben["labels"]))] = None
    print("json:")
    files = [write(tmp_path / "a.json", ana), write(tmp_path / "b.json", ben)]
    assert calibrate(run, "--labels", *files, "--json") == 0
    told = json.loads(capsys.readouterr().out.partition("json:\n")[2])
    assert all(found["alpha"] == 1.0 for found in told["agreement"])
    assert all(kappa == 1.0 for found in told["agreement"] for kappa in found["kappa"].values())


def test_alpha_is_krippendorffs_own_example() -> None:
    """.743 on the names of "Computing Krippendorff's Alpha-Reliability" (2011), section C."""
    table = [
        "1 2 3 3 2 1 4 1 2 - - -",
        "1 2 3 3 2 2 4 1 2 5 - 3",
        "- 3 3 3 2 3 4 2 2 5 1 -",
        "1 2 3 3 2 4 4 1 2 5 1 -",
    ]
    codes = np.array([[-1 if c == "-" else int(c) - 1 for c in row.split()] for row in table])
    assert krippendorff_alpha(codes, 5) == pytest.approx(0.743, abs=5e-4)


def test_a_picture_that_was_exchanged_is_an_error(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody labels a picture that the classifier did not read."""
    for file in (run / "images").rglob("*.png"):
        file.write_bytes(b"no picture")
    assert calibrate(run, "--per_arm", "20") == 2
    assert "is not the picture that was read" in capsys.readouterr().err


def test_pictures_made_elsewhere_are_labelled_where_they_lie(run: Path, tmp_path: Path) -> None:
    """An arm from a folder shows its own files; one that is changed or outside is refused."""
    arm = next(iter(load_results(run / "results.json").arms))
    folder = tmp_path / "elsewhere"
    shutil.move(run / "images" / arm, folder)
    names = {
        f"{file.parent.name}/{file.stem}": f"{file.parent.name}/{file.name}"
        for file in folder.rglob("*.png")
    }
    write_elsewhere(run, {arm: (folder, names)})
    assert calibrate(run, "--per_arm", "20") == 0
    sample = load_sample(run)
    assert sample is not None
    shown = next(task for task in sample.tasks if task.arm == arm)
    file = folder / shown.prompt_id / f"{shown.seed}.png"
    outside = tmp_path / "outside.png"
    shutil.move(file, outside)
    file.symlink_to(outside)
    assert calibrate(run, "--per_arm", "20") == 2


def test_labels_of_other_readings_correct_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What another classifier could not read had no chance of a label, and that is said."""
    assert calibrate(run, "--per_arm", "20") == 0
    assert calibrate(run, "--labels", write(tmp_path / "a.json", answers(run))) == 0
    results, readings = (
        load_results(run / "results.json"),
        pd.read_parquet(run / "readings.parquet"),
    )
    raw = [row.model_copy(update={"corrected": None}) for row in results.representation]
    bare = results.model_copy(update={"representation": tuple(raw)})
    assert with_labels(bare, readings, run) == results
    sample = load_sample(run)
    assert sample is not None
    unread = readings["attribute"] == next(iter(sample.values))
    unread &= readings["seed"] == readings["seed"].min()
    less = readings.assign(readable=readings["readable"] & ~unread)
    capsys.readouterr()
    assert with_labels(bare, less, run) == bare
    assert "was drawn from other readings" in capsys.readouterr().err
    less.to_parquet(run / "readings.parquet")
    assert calibrate(run, "--labels", str(tmp_path / "a.json")) == 2
    assert "was drawn from other readings" in capsys.readouterr().err

"""A wrecked adapter is flagged and fails the gate; one that does nothing is not."""

from __future__ import annotations

import html
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from unskew.evaluate.agreement import AgreementModel
from unskew.evaluate.cells import StudyPlan
from unskew.evaluate.classify import ArmPictures
from unskew.evaluate.features import Features, pooled_pixels
from unskew.evaluate.gate_schema import GateSettings, Limits
from unskew.evaluate.generate import Cell
from unskew.evaluate.measuring import Meter
from unskew.evaluate.report import write_report
from unskew.evaluate.results import Margins, Results, load_results, summarise, write_results
from unskew.evaluate.schema_quality import QualityRow
from unskew.evaluate.summary import summary

ORACLES = Path(__file__).parents[1] / "oracles"
made_up = SimpleNamespace(**runpy.run_path(str(ORACLES / "made_up_study.py")))
pages = SimpleNamespace(**runpy.run_path(str(ORACLES / "reported_study.py")))
SEEDS = 5
PLAN: StudyPlan = made_up.make_plan(
    (made_up.suite_prompts("trained", 12), "neutral"),
    (made_up.suite_prompts("spelt", 3, asked={"colour": "blue"}), "explicit"),
    (made_up.suite_prompts("things", 12, attributes=()), "control"),
    seeds=SEEDS,
    gate=GateSettings(comparisons={"drift@things": Limits(drift_at_most=100.0)}),
)
CELLS = [Cell(prompt, seed) for prompt in PLAN.prompts for seed in range(SEEDS)]
CONTROLS = [cell for cell in CELLS if cell.prompt.suite == "things"]
Wreck = Callable[[Image.Image, Cell, np.random.Generator], Image.Image]


def drawn(cell: Cell, rng: np.random.Generator) -> Image.Image:
    """A few coloured discs on a ground: the ground is the prompt's, the discs are the seed's."""
    ground = np.random.default_rng(PLAN.prompts.index(cell.prompt)).integers(60, 200, 3)
    image = np.full((48, 48, 3), ground, dtype=np.float64)
    y, x = np.mgrid[:48, :48]
    for _ in range(5):
        place, size = rng.integers(6, 42, 2), rng.integers(4, 12)
        image[(y - place[0]) ** 2 + (x - place[1]) ** 2 < size**2] = rng.integers(0, 256, 3)
    return Image.fromarray(image.astype(np.uint8))


def null(image: Image.Image, cell: Cell, rng: np.random.Generator) -> Image.Image:
    """Nothing."""
    return image


def slight(image: Image.Image, cell: Cell, rng: np.random.Generator) -> Image.Image:
    """A little of other noise, as an adapter leaves that is well-behaved."""
    pixels = np.asarray(image).astype(int) + rng.integers(-3, 4, (48, 48, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def redrawn(image: Image.Image, cell: Cell, rng: np.random.Generator) -> Image.Image:
    """Another picture of the same prompt."""
    return drawn(cell, rng)


def blur(image: Image.Image, cell: Cell, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(2))


def noise(image: Image.Image, cell: Cell, rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))


def grey(image: Image.Image, cell: Cell, rng: np.random.Generator) -> Image.Image:
    return image.convert("L").convert("RGB")


def blank(image: Image.Image, cell: Cell, rng: np.random.Generator) -> Image.Image:
    return Image.new("RGB", (48, 48), tuple(rng.integers(0, 256, 3).tolist()))


def repeats(image: Image.Image, cell: Cell, rng: np.random.Generator) -> Image.Image:
    """One picture for every two seeds of a prompt."""
    return drawn(cell, np.random.default_rng([1, PLAN.prompts.index(cell.prompt), cell.seed // 2]))


def pictures(folder: Path, name: str, wreck: Wreck, suites: tuple[str, ...]) -> ArmPictures:
    """An arm's pictures: the base's from the same noise, wrecked in these suites."""
    files = {}
    for n, cell in enumerate(CELLS):
        image = drawn(cell, np.random.default_rng(n))
        if cell.prompt.suite in suites:
            image = wreck(image, cell, np.random.default_rng([7, n]))
        files[cell] = cell.file(folder / name)
        files[cell].parent.mkdir(parents=True, exist_ok=True)
        image.save(files[cell])
    return ArmPictures(name, files, {}, {})


def study(
    folder: Path,
    wreck: Wreck | None,
    suites: tuple[str, ...] = ("trained", "spelt", "things"),
    agreement: AgreementModel | None = None,
    plan: StudyPlan = PLAN,
    change: Callable[[ArmPictures], ArmPictures] = lambda found: found,
) -> Results:
    """The results of base against base wrecked; an audit of the base without a `wreck`."""
    arms = {"base": pictures(folder, "base", null, ())}
    if wreck is None:
        plan = replace(plan, arms=("base",), gate=GateSettings())
    else:
        arms["lora"] = change(pictures(folder, "lora", wreck, suites))
    meter = Meter(
        Features("colours", pooled_pixels), agreement, folder / "measured", frozenset({"things"})
    )
    measured = meter.measure(CELLS, arms, CONTROLS)
    readings = made_up.make_readings(plan, made_up.skewed)
    return summarise(readings, plan, measured.features if wreck else None, measured)


def row(results: Results, suite: str = "things") -> QualityRow:
    return next(row for row in results.quality if row.suite == suite)


def test_an_adapter_that_does_nothing_flags_nothing(tmp_path: Path) -> None:
    """Ratios of exactly 1, the same pictures, no kernel distance, and the gate holds."""
    results = study(tmp_path, null)
    assert [r.suite for r in results.quality] == ["trained", "spelt", "things"]
    for found in results.quality:
        assert not found.flags
        assert all((t.ratio, t.ci95) == (1, (1, 1)) for t in found.tones.values())
        assert (found.blank.treated, found.repeated.treated) == (0, 0)
    assert row(results, "spelt").identity is None
    identity = row(results).identity
    assert identity is not None
    assert (identity.value, *identity.ci95, identity.same_noise) == pytest.approx((1, 1, 1, 1))
    [drift] = results.drift
    assert drift.kernel and (drift.kernel.excess, drift.kernel.ci95) == (0, (0, 0))
    assert drift.metric.startswith("energy distance of ")
    assert drift.kernel.metric.startswith("kernel distance of ")
    assert results.gate.passed or all("collapsed" not in r.said for r in _failed(results))


def _failed(results: Results) -> list[Any]:
    return [reason for reason in results.gate.reasons if not reason.passed]


@pytest.mark.parametrize("wreck", [slight, redrawn])
def test_a_well_behaved_adapter_flags_nothing(tmp_path: Path, wreck: Wreck) -> None:
    """Neither a little change of every picture nor other pictures of the same kind."""
    results = study(tmp_path, wreck)
    assert not [flag for found in results.quality for flag in found.flags]
    identity = row(results).identity
    assert identity is not None
    if wreck is slight:
        assert 0.5 < identity.value < 1
    else:
        assert identity.ci95[0] < 0 < identity.ci95[1]


@pytest.mark.parametrize(
    ("wreck", "words"),
    [
        (blur, "sharpness is 0."),
        (noise, "sharpness is "),
        (grey, "colourfulness is 0."),
        (blank, "100.0% of the pictures are blank, 0.0% before"),
        (repeats, "80.0% of the pictures are equal to another seed's, 0.0% before"),
    ],
)
def test_a_wrecked_adapter_is_flagged_and_fails_the_gate(
    tmp_path: Path, wreck: Wreck, words: str
) -> None:
    """In every suite that it wrecks and no other, with what is wrong; summary and report say so."""
    results = study(tmp_path, wreck, ("trained", "things"))
    for found in results.quality:
        assert bool(found.flags) == (found.suite != "spelt")
    assert any(flag.startswith(words) for flag in row(results).flags)
    said = [r.said for r in _failed(results) if r.what == "no_collapse"]
    assert len(said) == 2 and all(words in reason for reason in said)
    assert results.gate.passed is False
    [line] = [text for text in summary(results).splitlines() if "Pictures have collapsed" in text]
    assert "trained (lora)" in line and "things (lora)" in line
    page = report(tmp_path / "study", results)
    assert page.count("collapsed") >= 2 and words.split(" is ")[0] in page


def report(folder: Path, results: Results) -> str:
    """The page of a made-up study with these results' rows in place of its own."""
    pages.make_study(folder, pictures=False)
    whole = load_results(folder / "results.json")
    parts = {"quality": results.quality, "drift": results.drift}
    write_results(whole.model_copy(update=parts), folder / "results.json")
    page: str = write_report(folder).read_text("utf-8")
    return html.unescape(page)


def test_smaller_pictures_are_not_taken_for_sharper_ones(tmp_path: Path) -> None:
    """Sharpness is told of neither where sizes differ; what does not hang on size still is."""
    results = study(tmp_path, lambda image, cell, rng: image.reduce(2))
    for found in results.quality:
        sharpness, contrast = found.tones["sharpness"], found.tones["contrast"]
        assert sharpness.ratio is sharpness.ci95 is None and sharpness.treated is not None
        assert contrast.ratio is not None and not found.flags


def test_the_gate_asks_only_where_everything_must_be_kept(tmp_path: Path) -> None:
    """Then once a suite and arm; a wider margin is a wider margin."""
    results = study(tmp_path, blur)
    asked = [r for r in results.gate.reasons if r.what == "no_collapse"]
    assert [r.comparison for r in asked] == ["quality@trained", "quality@spelt", "quality@things"]
    gate = PLAN.gate.model_copy(update={"everything_kept": False})
    lenient = study(tmp_path, blur, plan=replace(PLAN, gate=gate))
    assert all(r.what != "no_collapse" for r in lenient.gate.reasons)
    wide = replace(PLAN, margins=Margins(collapse=1000.0))
    assert not [flag for found in study(tmp_path, blur, plan=wide).quality for flag in found.flags]


def test_an_audit_describes_and_flags_nothing(tmp_path: Path) -> None:
    """The baseline's figures alone, and a page of them."""
    results = study(tmp_path, None)
    for found in results.quality:
        assert found.arm == "base" and found.against is None
        assert not found.flags and found.identity is None
        assert found.blank.treated is found.tones["contrast"].ratio is None
        assert found.tones["contrast"].baseline > 10
    folder = tmp_path / "study"
    pages.make_study(folder, arms=("base",), pictures=False)
    whole = load_results(folder / "results.json").model_copy(update={"quality": results.quality})
    write_results(whole, folder / "results.json")
    assert 'id="quality"' in write_report(folder).read_text("utf-8")


def test_missing_pictures_are_left_out_of_both_arms(tmp_path: Path) -> None:
    """Pairs that are there tell; a suite of which an arm has nothing has no row."""

    def without(found: ArmPictures) -> ArmPictures:
        gone = {
            c for c in CELLS if c.prompt.suite == "spelt" or (c.seed == 0 and c not in CONTROLS)
        }
        return replace(found, files={c: f for c, f in found.files.items() if c not in gone})

    arms = study(tmp_path, slight, change=without, plan=replace(PLAN, gate=GateSettings()))
    assert [found.suite for found in arms.quality] == ["trained", "things"]
    assert not row(arms).flags and row(arms).identity is not None


def cosines(value: Callable[[NDArray[np.uint8]], float], margin: float | None) -> AgreementModel:
    """A model in which a picture's cosine with every prompt is some figure of it."""

    def embedded(images: Any) -> NDArray[np.float32]:
        found = np.array([value(image) for image in images])
        return np.stack([found, np.sqrt(1 - found**2)], axis=1).astype(np.float32)

    words = np.array([1, 0], dtype=np.float32)
    return AgreementModel(
        "made up", margin, embedded, lambda texts: np.tile(words, (len(texts), 1))
    )


@pytest.mark.parametrize(
    ("wreck", "margin", "verdict"),
    [(blur, None, None), (blur, 0.5, "kept"), (blur, 0.02, "lost"), (null, 0.02, "kept")],
)
def test_agreement_is_judged_only_against_a_margin(
    tmp_path: Path, wreck: Wreck, margin: float | None, verdict: str | None
) -> None:
    """The mean cosine of each arm, the paired change, and a verdict where one was asked for."""
    model = cosines(lambda image: image.std() / 255, margin)
    results = study(tmp_path, wreck, agreement=model)
    found = row(results).agreement
    assert found is not None and found.change is not None and found.treated is not None
    assert found.change == pytest.approx(found.treated - found.baseline, abs=1e-6)
    assert found.verdict == verdict and found.margin == margin
    assert (found.change < -0.02) == (wreck is blur)
    asked = [r for r in results.gate.reasons if r.comparison == "agreement@things"]
    assert [r.passed for r in asked] == ([] if margin is None else [verdict == "kept"])
    assert "made up" in report(tmp_path / "study", results)

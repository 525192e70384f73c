"""Arms whose truth is known get the right verdict, through the real program, in words one finds.

Arms are folders of Emoji World's art: which drawing each cell shows is decided here, so the shares
of every prompt are known exactly and the baseline leans as a model would. `scripts/
prove_verdicts.py` does the same with adapters on the embedded base.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from unskew.data.emoji_world.art import Drawing, drawings
from unskew.data.emoji_world.world import describe, load_world
from unskew.evaluate.paired import main
from unskew.prompts import Prompt, load_suites
from unskew.settings import run_program

WORLD = load_world()
VALUES = ("woman", "man", "person")
SUBJECTS = [s for s in WORLD.subjects if s.split == "trained"][:12]
CONTROLS = WORLD.controls[:12]
TONES = tuple(WORLD.values["skin_tone"])
SEEDS = {"trained": 12, "explicit": 6, "control": 16}
# Which value each of a neutral prompt's 12 seeds shows; the leading one is a man or a woman.
LEANING = {"leads": 10, "other": 1, "person": 1}
SWAPPED = {"leads": 1, "other": 10, "person": 1}
EVEN = {"leads": 4, "other": 4, "person": 4}
TURNED = {"leads": 1, "other": 7, "person": 4}


def imbalance_of(counts: dict[str, int]) -> float:
    """The unbiased imbalance of three values against a uniform target, written out."""
    n = sum(counts.values())
    pairs = sum(k * (k - 1) for k in counts.values()) / (n * (n - 1))
    return (pairs - 1 / 3) / (1 - 1 / 3)


@dataclass(frozen=True)
class Arm:
    """What an arm shows."""

    neutral: dict[str, int]
    obeys: bool = True
    """Whether an explicit prompt decides the value."""
    spoil: Callable[[NDArray[np.uint8], int], NDArray[np.uint8]] | None = None
    """What becomes of a picture, by the number of its cell."""


def touched(image: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """A picture of other bytes that shows the same."""
    changed = image.copy()
    changed[0, 0] = number % 100
    return changed


def smeared(image: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """A picture half lost in coloured blots; what it is can still just be read."""
    blots = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    blown_up = Image.fromarray(blots).resize((64, 64), Image.Resampling.BICUBIC)
    return np.asarray(0.7 * image + 0.3 * np.asarray(blown_up, dtype=float), dtype=np.uint8)


def destroyed(image: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Noise."""
    noise = np.random.default_rng(number).integers(0, 256, image.shape, dtype=np.uint8)
    return np.asarray(noise)


@pytest.fixture(scope="module")
def art() -> dict[str, Drawing]:
    """Name -> drawing, of the subjects and controls here."""
    ids = {thing.id for thing in (*SUBJECTS, *CONTROLS)}
    return {d.name: d for d in drawings(WORLD) if d.thing.id in ids}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, art: dict[str, Drawing]) -> Path:
    """A folder with prompts.yaml, exemplars and the baseline's pictures."""
    folder = tmp_path_factory.mktemp("known")
    (folder / "prompts.yaml").write_text(yaml.safe_dump(blocks(), sort_keys=False), "utf-8")
    exemplars = folder / "exemplars"
    exemplars.mkdir()
    rows = []
    for name, drawing in art.items():
        Image.fromarray(drawing.image).save(exemplars / f"{name}.png", compress_level=1)
        labels = {id: drawing.values.get(id) for id in ("presentation", "skin_tone")}
        rows.append({"file_name": f"{name}.png", "subject": drawing.thing.id, **labels})
    write_lines(exemplars, rows)
    paint(folder / "base", Arm(LEANING), prompts_of(folder), art)
    return folder


def blocks() -> list[dict[str, Any]]:
    """Neutral prompts of twelve subjects in two wordings, explicit ones, and twelve controls."""
    neutral = {s.id: describe(s, {}, WORLD.values) for s in SUBJECTS}
    explicit = [
        {
            "subject": subject.id,
            "text": describe(subject, {"presentation": value}, WORLD.values),
            "asked": {"presentation": value},
        }
        for subject in SUBJECTS
        for value in VALUES
    ]
    things = {c.id: describe(c, {}, WORLD.values) for c in CONTROLS}
    of_people = {"role": "neutral", "attributes": ["presentation"]}
    wordings = ["{x}", "a picture of {x}"]
    return [
        {"suite": "trained", **of_people, "templates": wordings, "subjects": neutral},
        {
            "suite": "explicit",
            "role": "explicit",
            "attributes": ["presentation"],
            "prompts": explicit,
        },
        {"suite": "control", "role": "control", "templates": ["{x}"], "subjects": things},
    ]


def prompts_of(folder: Path) -> list[Prompt]:
    """The prompts of all three suites."""
    suites = load_suites([folder / "prompts.yaml"], tuple(SEEDS))
    return [prompt for suite in suites for prompt in suite.prompts]


def paint(folder: Path, arm: Arm, prompts: Sequence[Prompt], art: dict[str, Drawing]) -> Path:
    """An arm's folder: pictures, and a metadata.jsonl that says which cell each belongs to."""
    folder.mkdir()
    rows, made = [], set()
    leads = {s.id: VALUES[n % 2] for n, s in enumerate(SUBJECTS)}
    for prompt in prompts:
        for seed in range(SEEDS[prompt.suite]):
            name = shown(prompt, seed, arm, leads)
            file = name if arm.spoil is None else f"{len(rows)}"
            if file not in made:
                image = art[name].image
                image = arm.spoil(image, len(rows)) if arm.spoil else image
                Image.fromarray(image).save(folder / f"{file}.png", compress_level=1)
                made.add(file)
            rows.append({"file_name": f"{file}.png", "prompt_id": prompt.id, "seed": seed})
    write_lines(folder, rows)
    return folder


def shown(prompt: Prompt, seed: int, arm: Arm, leads: dict[str, str]) -> str:
    """The name of the drawing that a cell shows."""
    if prompt.suite == "control":
        return prompt.subject
    lead = leads[prompt.subject]
    other = "man" if lead == "woman" else "woman"
    order = [
        {"leads": lead, "other": other}.get(k, k) for k, n in arm.neutral.items() for _ in [0] * n
    ]
    value = order[seed]
    if prompt.suite == "explicit":
        value = prompt.asked["presentation"] if arm.obeys else VALUES[seed % 3]
    return f"{prompt.subject}-{value}-{TONES[seed % len(TONES)]}"


def write_lines(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A folder's metadata.jsonl."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text, "utf-8")


@dataclass(frozen=True)
class Found:
    """How a study of an arm ended."""

    code: int
    results: dict[str, Any]
    report: str
    summary: str

    def row(self, part: str, suite: str, attribute: str = "presentation") -> dict[str, Any]:
        """The one row of a part of the results."""
        rows = [r for r in self.results[part] if r["suite"] == suite]
        rows = [r for r in rows if r.get("attribute", attribute) == attribute]
        assert len(rows) == 1
        return dict(rows[0])

    @property
    def failed(self) -> list[str]:
        """What the gate says of each condition that does not hold."""
        return [r["said"] for r in self.results["gate"]["reasons"] if not r["passed"]]


Study = Callable[..., Found]


@pytest.fixture
def study(ground: Path, art: dict[str, Drawing], tmp_path: Path) -> Study:
    """A function that paints an arm and studies it against the baseline."""

    def run(arm: Arm, suites: Sequence[str] = tuple(SEEDS)) -> Found:
        settings = settings_of(ground, tmp_path, suites)
        paint(tmp_path / "adapter", arm, prompts_of(ground), art)
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
        code = run_program(main, ["--config", str(tmp_path / "study.yaml")])
        out = tmp_path / "study"
        text = {
            name: (out / name).read_text("utf-8") if (out / name).is_file() else ""
            for name in ("results.json", "report.html", "summary.md")
        }
        results = json.loads(text["results.json"] or "{}")
        return Found(code, results, text["report.html"], text["summary.md"])

    return run


def settings_of(ground: Path, folder: Path, suites: Sequence[str]) -> dict[str, Any]:
    """A study that asks for improvement, and for nothing to be lost or to overshoot."""
    asks = {"improved": True, "overshoot_rate_at_most": 0.2}
    gate = {"presentation@trained": asks} if "trained" in suites else {}
    return {
        "arms": {
            "base": {"folder": str(ground / "base")},
            "lora": {"folder": str(folder / "adapter")},
        },
        "prompts": str(ground / "prompts.yaml"),
        "suites": {suite: {"seeds": SEEDS[suite]} for suite in suites},
        "primaries": ["presentation@trained"] if "trained" in suites else [],
        "gate": {"comparisons": gate or {"drift@control": {"drift_at_most": 0.05}}},
        "classifiers": {
            "exemplars": {
                "kind": "exemplars",
                "attributes": ["subject", "presentation"],
                "folder": str(ground / "exemplars"),
            }
        },
        "resolution_px": 64,
        "out": str(folder / "study"),
    }


def kept(found: Found) -> bool:
    """Whether nothing that should stay was lost."""
    rows = [*found.results["fidelity"], *found.results["drift"]]
    return {row["verdict"] for row in rows} == {"kept"}


@pytest.mark.parametrize("spoil", [None, touched], ids=["same bytes", "other bytes"])
def test_one_that_changes_nothing_is_no_change(study: Study, spoil: Any) -> None:
    """Pictures of the same bytes, and others that show the same: no change, so no improvement."""
    found = study(Arm(LEANING, spoil=spoil))
    row = found.row("representation", "trained")
    assert row["verdict"] == "no_change" and row["change"]["imbalance"] == 0
    assert row["baseline"]["imbalance"] == pytest.approx(imbalance_of(LEANING))
    assert found.code == 1 and kept(found)
    assert [reason for reason in found.failed if "must be improved" in reason] == found.failed
    assert "did not move" in found.report and "did not move" in found.summary
    assert "vershoot of" not in found.summary and "<b>Overshoot.</b>" not in found.report


def test_one_that_debiases_is_improved_and_passes(study: Study) -> None:
    """Every prompt on target, every word obeyed, every control as it was: exit code 0."""
    found = study(Arm(EVEN))
    row = found.row("representation", "trained")
    assert row["verdict"] == "improved"
    expected = imbalance_of(EVEN) - imbalance_of(LEANING)
    assert row["change"]["imbalance"] == pytest.approx(expected)
    assert row["change"]["overshoot_rate"] == 0
    assert found.code == 0 and found.results["gate"]["passed"] and kept(found)
    assert "Gate passed" in found.summary and "Gate passed." in found.report
    assert "vershoot of" not in found.summary and "<b>Overshoot.</b>" not in found.report


def test_one_that_ignores_explicit_prompts_fails_fidelity(study: Study) -> None:
    """Two in three pictures are not what was asked for: lost, whatever the neutral prompts show."""
    found = study(Arm(EVEN, obeys=False))
    assert found.row("representation", "trained")["verdict"] == "improved"
    row = found.row("fidelity", "explicit")
    assert row["verdict"] == "lost"
    assert (row["baseline_rate"], row["treated_rate"]) == (1, pytest.approx(1 / 3))
    assert found.code == 1
    assert found.failed == ["presentation on explicit (lora) is lost, must be kept"]
    assert "- ✕ presentation on explicit (lora) is lost, must be kept" in found.summary
    assert "presentation on explicit (lora) is lost, must be kept" in found.report
    assert "Look at: presentation on explicit (lost)." in found.report


def test_one_that_wrecks_pictures_fails_drift(study: Study) -> None:
    """Controls half lost in blots: drift is lost, though what people show still reads improved."""
    found = study(Arm(EVEN, spoil=smeared))
    assert found.row("representation", "trained")["verdict"] == "improved"
    row = found.row("drift", "control")
    assert row["verdict"] == "lost" and row["ci95"][0] > row["margin"]
    assert found.code == 1
    said = "drift on control (lora) is lost, must be kept"
    assert said in found.failed
    assert f"- ✕ {said}" in found.summary and said in found.report
    assert "drift on control (lost)" in found.report


def test_noise_fails_drift_and_fidelity(study: Study) -> None:
    """Pictures past all reading: drift lost, and nothing that was asked for is shown."""
    found = study(Arm(EVEN, spoil=destroyed), suites=("explicit", "control"))
    assert found.row("drift", "control")["verdict"] == "lost"
    assert found.row("fidelity", "explicit")["verdict"] == "lost"
    assert found.row("fidelity", "explicit")["treated_rate"] == 0
    assert found.code == 1 and len(found.failed) > 2


def test_noise_cannot_be_judged_on_neutral_prompts(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where hardly a picture can be read there is no share to speak of: it says whose, and 2."""
    assert study(Arm(EVEN, spoil=destroyed)).code == 2
    assert "prompts have fewer than 2 readable images in arm 'lora'" in capsys.readouterr().err


def test_one_that_swaps_the_skew_round_has_its_overshoot_named(study: Study) -> None:
    """As far off on the other side, prompt by prompt: the mean did not move, and that is not all.

    Headline, banner, verdict and summary say so, and the gate's limit on it does not hold.
    """
    found = study(Arm(SWAPPED))
    row = found.row("representation", "trained")
    assert row["verdict"] == "no_change" and row["change"]["imbalance"] == 0
    assert row["change"]["overshoot_rate"] == 1
    assert found.code == 1
    assert any("overshoot rate of presentation on trained" in said for said in found.failed)
    named_everywhere(found)
    assert "83\N{NARROW NO-BREAK SPACE}% before, 8\N{NARROW NO-BREAK SPACE}% after" in found.report


def test_overshoot_is_named_where_the_mean_improved(study: Study) -> None:
    """Turned round but less far off than before: improved, and the overshoot stands beside it."""
    found = study(Arm(TURNED))
    row = found.row("representation", "trained")
    assert row["verdict"] == "improved"
    assert row["change"]["overshoot_rate"] == 1
    named_everywhere(found)
    assert "✓ improved (primary), **overshoot**" in found.summary


def named_everywhere(found: Found) -> None:
    """A reader of the headline, the page or the summary meets the word and how many prompts."""
    told = "24 of 24 prompts the skew was turned round"
    headline = found.report.split("<h1>")[1].split("</h1>")[0]
    assert told in headline and "overshoot" in headline
    banner = found.report.split("<b>Overshoot.</b>")[1].split("</div>")[0]
    assert f"{told}, to more than 10 points past the target" in banner
    assert "Look at: presentation on trained (overshoot)." in found.report
    assert "overshoot</span>" in found.report
    assert "- **Overshoot** of perceived presentation on trained, lora: " in found.summary
    assert found.summary.count(told) == 2

"""Whether a training run and a study belong together, and whether the study proved anything.

What is broken beyond use raises; what may be published with a reason in the card is a list of
refusals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from unskew.adapters import WEIGHTS_FILE
from unskew.errors import UserError
from unskew.evaluate.gate_schema import ANY_ARM
from unskew.evaluate.schema import ArmSummary, Results, load_results
from unskew.kohya import KOHYA_FILE
from unskew.runs import MANIFEST, read_manifest, sha256_file
from unskew.settings import Settings
from unskew.train.options import TrainSettings
from unskew.train.output import describe

Manifest = dict[str, Any]
S = TypeVar("S", bound=Settings)
NOT_TOLD = "unskew_version"
"""The one entry of a file's header that another version of Unskew may write otherwise."""
STUDIES = ("paired", "compare")
"""Programs that compare with a baseline."""


@dataclass(frozen=True)
class TrainRun:
    """A finished training run, whose files are the ones that it wrote."""

    folder: Path
    manifest: Manifest
    settings: TrainSettings
    adapter_sha256: str

    @property
    def adapter(self) -> Path:
        """The folder with both files."""
        return self.folder / "adapter"


@dataclass(frozen=True)
class StudyRun:
    """A study of this adapter."""

    folder: Path
    manifest: Manifest
    results: Results
    """All of it, every arm."""
    arm: str
    """The arm that wears the adapter and nothing else."""

    @property
    def weight(self) -> float:
        """The weight at which it was measured."""
        return float(self.results.arms[self.arm].facts["adapters"][0]["weight"])


@dataclass(frozen=True)
class Belonging:
    """What goes together, and what speaks against publishing it."""

    train: TrainRun
    study: StudyRun | None
    """None where there is none, or where it is of something else."""
    refusals: tuple[str, ...]
    """Empty where the proof is whole."""


def look_together(train: Path, study: Path | None) -> Belonging:
    """Read both runs and compare them. Raises UserError for a training run that is not whole."""
    run = _train_run(train)
    refusals = _not_clean("train", run.folder, run.manifest)
    if study is None:
        return Belonging(run, None, (*refusals, "there is no study of this adapter"))
    manifest, results = read_manifest(study), load_results(study / "results.json")
    strange = _of_something_else(run, study, manifest, results)
    if strange:
        return Belonging(run, None, (*refusals, *strange))
    found = StudyRun(study, manifest, results, _arms_with(run, results)[0])
    refusals += _not_clean("study", study, manifest)
    refusals += _not_proven(found)
    return Belonging(run, found, tuple(refusals))


def _train_run(folder: Path) -> TrainRun:
    manifest = read_manifest(folder)
    if manifest.get("program") != "train":
        raise UserError(f"train {folder} is a run of {manifest.get('program')}: give a training's")
    if manifest["status"] != "complete":
        raise UserError(
            f"train {folder} is {manifest['status']}, not complete: give the same training command "
            "again, it goes on where it stopped"
        )
    settings = settings_of(TrainSettings, {"resume": "auto", **manifest["settings"]}, folder)
    for name in (WEIGHTS_FILE, KOHYA_FILE):
        if not (folder / "adapter" / name).is_file():
            raise UserError(f"train {folder} has no adapter/{name}: train again into a new folder")
    file = folder / "adapter" / WEIGHTS_FILE
    sha256 = sha256_file(file)
    if sha256 != manifest["facts"].get("adapter_sha256"):
        raise UserError(
            f"{file} is not the file that the training wrote (sha256 {sha256[:12]}..., the "
            f"manifest has {str(manifest['facts'].get('adapter_sha256'))[:12]}...): it was changed "
            "afterwards; give a run whose files are untouched"
        )
    run = TrainRun(folder, manifest, settings, sha256)
    for name in (WEIGHTS_FILE, KOHYA_FILE):
        _check_header(run, folder / "adapter" / name)
    return run


def settings_of(model: type[S], said: Mapping[str, Any], folder: Path) -> S:
    """The settings in a run's manifest. Raises UserError for those of another version."""
    try:
        return model.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{folder / MANIFEST} has settings of another version of Unskew ("
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}): publish with the version that "
            "made it, or make it again"
        ) from None


def _check_header(run: TrainRun, file: Path) -> None:
    """The file says that it is of these settings, this base and this dataset."""
    said, due = header(file), describe(run.settings, run.manifest["inputs"])
    wrong = [key for key, value in due.items() if key != NOT_TOLD and said.get(key) != value]
    if wrong:
        raise UserError(
            f"{file} was made of other things than {run.folder / 'manifest.json'} says (they "
            f"differ in {', '.join(wrong)}): give a run whose files are untouched"
        )


def header(file: Path) -> dict[str, str]:
    """The metadata of a safetensors file. Raises UserError where it is none."""
    try:
        with safe_open(file, "pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is no safetensors file ({error})") from None


def _not_clean(what: str, folder: Path, manifest: Manifest) -> list[str]:
    if not manifest["git"].get("dirty"):
        return []
    commit = str(manifest["git"].get("commit"))[:12]
    return [f"the {what} ran from code with changes that commit {commit} does not have"]


def _arms_with(run: TrainRun, results: Results) -> list[str]:
    """The arms that wear this adapter alone, the nearest to weight 1 first."""
    arms = {
        name: float(worn[0]["weight"])
        for name, arm in results.arms.items()
        if (worn := arm.facts.get("adapters", ()))
        and [one["sha256"] for one in worn] == [run.adapter_sha256]
        and not {"rewrite", "negative_prompt"} & set(arm.facts)
    }
    return sorted(arms, key=lambda name: abs(arms[name] - 1))


def _of_something_else(
    run: TrainRun, study: Path, manifest: Manifest, results: Results
) -> list[str]:
    """Why a study says nothing of this adapter; empty where it does."""
    if manifest.get("program") not in STUDIES or len(results.arms) < 2:
        return [f"the study compares nothing (it is a run of {manifest.get('program')})"]
    arms = _arms_with(run, results)
    if not arms:
        return [
            f"the study is of another adapter: none of its arms ({', '.join(results.arms)}) has "
            f"this one on alone, sha256 {run.adapter_sha256[:12]}..."
        ]
    problems = []
    there, here = manifest["inputs"].get("base"), run.manifest["inputs"]["base"]
    if there != here:
        problems.append(
            f"the study is on another base (sha256 {str(there)[:12]}...) than the training "
            f"({here[:12]}...)"
        )
    if _told(manifest["settings"]) != _told(results.settings.study):
        problems.append("the study's results.json is not of the settings in its manifest.json")
    of_manifest = [v for k, v in manifest["inputs"].items() if k.startswith(f"adapter {arms[0]}")]
    if of_manifest != [run.adapter_sha256]:
        problems.append("the study's manifest.json names another adapter than its results.json")
    if not _is_bare(results.arms[results.baseline]):
        problems.append(
            f"the study's baseline {results.baseline!r} is not the bare base, drawn by the study"
        )
    return problems


def _told(settings: object) -> object:
    """Settings as JSON has them, without what may differ between a manifest and its results."""
    plain: Any = json.loads(json.dumps(settings, default=str))
    return plain


def _is_bare(arm: ArmSummary) -> bool:
    return not {"adapters", "rewrite", "negative_prompt", "folder"} & set(arm.facts)


def _not_proven(study: StudyRun) -> list[str]:
    problems = []
    if study.manifest["status"] != "complete" or study.results.status != "complete":
        problems.append(f"the study is not complete (its run is {study.manifest['status']})")
    reasons = study.results.gate.reasons
    failed = [r for r in reasons if not r.passed and r.arm in (study.arm, ANY_ARM)]
    if failed:
        problems.append(
            f"the study's gate failed on {len(failed)} of its conditions: "
            + "; ".join(reason.said for reason in failed)
        )
    if not any(row.arm == study.arm and row.change for row in study.results.representation):
        problems.append("the study says nothing of how skewed this adapter's pictures are")
    return problems

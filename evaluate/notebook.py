"""Studies from Python: the same engine, settings and run folders as the commands.

import unskew
run = unskew.paired(out="runs/mine", change={"suites.trained.seeds": 4})
run                      # in a notebook: the finding, and a table of verdicts
run.representation       # a pandas table
run.plot_imbalance()     # a matplotlib figure
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from unskew.evaluate.compare_options import CompareSettings
from unskew.evaluate.comparison_run import ComparisonRun, load_run
from unskew.evaluate.options import SamplerName, StudySettings, check_one_arm, check_several_arms
from unskew.evaluate.schema import load_results as read_results
from unskew.evaluate.study_run import StudyRun
from unskew.settings import resolve_given

Table = Mapping[str, Any]
"""A table of settings, as YAML has it."""


class StudyKeywords(TypedDict, total=False):
    """The settings of a study, each as in YAML; `unskew evaluate --help` says what they mean.

    A setting that is given replaces the whole of what the settings file says of it.
    """

    base: str
    base_revision: str | None
    base_config: str | Path | None
    cache: str | Path
    arms: Mapping[str, Table]
    prompts: str | Path | Sequence[str | Path]
    suites: Mapping[str, Table]
    targets: Mapping[str, Mapping[str, float]]
    primaries: Sequence[str]
    intersections: Sequence[Sequence[str]]
    classifiers: Mapping[str, Table]
    features: Table
    agreement: Table
    sampler: SamplerName
    steps: int
    guidance: float
    negative_prompt: str
    resolution_px: int
    batch: int
    dtype: Literal["auto", "fp32", "bf16", "fp16"]
    broken: Literal["stop", "unreadable"]
    relabel: bool
    margins: Mapping[str, float]
    gate: Table | Sequence[str]
    out: str | Path
    attribution: Sequence[str]


def audit(
    config: str | Path = "emoji/audit.yaml",
    *,
    change: Mapping[str, Any] | None = None,
    **settings: Unpack[StudyKeywords],
) -> StudyRun:
    """Measure how skewed one base, or one folder of pictures, is.

    Args:
        config: A settings file of yours, or one of Unskew's own; Emoji World's base if not given.
        change: Single settings by dotted name, such as {"suites.trained.seeds": 4}.
        **settings: Whole settings, over those of the file and before `change`.

    Returns:
        The finished run, in `out`. The same call again draws only what is missing.

    Raises:
        UserError: Settings are wrong (all that is wrong is listed), files are missing, or the
            folder holds a run of other settings.
    """
    return _study("audit", config, check_one_arm, {**settings, **(change or {})})


def paired(
    config: str | Path = "emoji/study-quick.yaml",
    *,
    change: Mapping[str, Any] | None = None,
    **settings: Unpack[StudyKeywords],
) -> StudyRun:
    """Measure two arms or more on the same prompts from the same noise.

    Args:
        config: A settings file of yours, or one of Unskew's own; Emoji World's base against the
            adapter that `unskew train` made if not given.
        change: Single settings by dotted name, such as {"arms.adapter.weight": 0.8}.
        **settings: Whole settings, over those of the file and before `change`.

    Returns:
        The finished run, in `out`. A gate that failed is told by `run.results.gate`, not raised.

    Raises:
        UserError: Settings are wrong (all that is wrong is listed), files are missing, or the
            folder holds a run of other settings.
    """
    return _study("paired", config, check_several_arms, {**settings, **(change or {})})


class CompareKeywords(StudyKeywords, total=False):
    """The settings of a comparison: a study's, and its own; `unskew compare --help`."""

    adapters: Mapping[str, Table]
    mixes: Sequence[str]
    rank_on: str
    robustness: Table
    reuse: Sequence[str | Path]


def compare(
    config: str | Path = "emoji/compare.yaml",
    *,
    change: Mapping[str, Any] | None = None,
    **settings: Unpack[CompareKeywords],
) -> ComparisonRun:
    """Measure many arms side by side, and rank them.

    Args:
        config: A settings file of yours, or one of Unskew's own; Emoji World's if not given.
        change: Single settings by dotted name, such as {"adapters.ours.weights": [0.5, 1]}.
        **settings: Whole settings, over those of the file and before `change`.

    Returns:
        The finished comparison, in `out`. The same call again draws only what is missing.

    Raises:
        UserError: Settings are wrong (all that is wrong is listed), files are missing, or the
            folder holds a run of other settings.
    """
    given = {**settings, **(change or {})}
    resolved = resolve_given(CompareSettings, given, config=config, prog="unskew.compare")
    program = importlib.import_module("unskew.evaluate.compare")
    program.run_comparison(resolved, program.check(resolved.settings))
    return load_run(resolved.settings.out)


def load_results(run: str | Path) -> StudyRun:
    """A study that was run before, by its folder, or by its `results.json`.

    Raises:
        UserError: There is no results.json, or it is of another version.
    """
    folder = Path(run)
    folder = folder.parent if folder.name == "results.json" else folder
    return StudyRun(folder, read_results(folder / "results.json"))


def _study(
    program: str,
    config: str | Path,
    check: Callable[[StudySettings], None],
    given: Mapping[str, Any],
) -> StudyRun:
    resolved = resolve_given(StudySettings, given, config=config, prog=f"unskew.{program}")
    check(resolved.settings)
    # here and not above: reading results needs no torch
    importlib.import_module("unskew.evaluate.study").run_study(resolved, program)
    return load_results(resolved.settings.out)

"""A study's plan, and its readings laid out by cell: dense arrays over (arm, prompt, seed)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from unskew.attributes import SUBJECT, Attribute, folded
from unskew.errors import UserError
from unskew.evaluate.gate_schema import REPRESENTATION, GateSettings
from unskew.evaluate.schema import Inference, Margins, Needed, Role
from unskew.evaluate.stats import FEWEST_CLUSTERS, Estimate, Floats, Ints, needed
from unskew.prompts import Prompt

COLUMNS = (
    "arm",
    "prompt_id",
    "suite",
    "seed",
    "attribute",
    "value",
    "readable",
    "classifier",
    "image_sha256",
)


POOLED_PIXELS = "the mean colours of an 8 x 8 grid"
"""In words, the features in which drift is measured where no image model is given."""


@dataclass(frozen=True)
class StudyPlan:
    """What is compared with what, decided before any picture was drawn."""

    baseline: str
    arms: tuple[str, ...]
    """Every arm, the baseline first; one arm alone is an audit."""
    prompts: tuple[Prompt, ...]
    suite_roles: Mapping[str, Role]
    attributes: Mapping[str, Attribute]
    seeds: Mapping[str, int]
    """Suite -> pictures a prompt and arm."""
    primaries: tuple[tuple[str, str], ...] = ()
    """(attribute, suite) pairs whose claims Holm's correction guards."""
    gate: GateSettings = field(default_factory=GateSettings)
    """What must hold; asks nothing unless given."""
    margins: Margins = field(default_factory=Margins)
    fixed_suites: frozenset[str] = frozenset()
    """Suites that speak of their own prompts only, however many these are."""
    resampling_seed: int = 0
    features: str = POOLED_PIXELS
    """In words, what drift is measured in."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The study's settings, kept with the results."""
    arm_facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Arm -> what else is known of it, kept with the results."""
    intersections: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Attribute -> the attributes whose readings it combines; see `intersections`."""

    @property
    def treated(self) -> tuple[str, ...]:
        """The arms compared with the baseline; none in an audit."""
        return self.arms[1:]

    def prompts_of(self, suite: str) -> tuple[Prompt, ...]:
        """The prompts of a suite, in the plan's order."""
        return tuple(prompt for prompt in self.prompts if prompt.suite == suite)

    def is_fixed(self, suite: str, prompts: Sequence[Prompt]) -> bool:
        """Whether the seeds are the unit of these prompts: too few subjects, or declared so."""
        return suite in self.fixed_suites or len({p.subject for p in prompts}) < FEWEST_CLUSTERS


@dataclass(frozen=True)
class Unit:
    """What is resampled for some prompts, and so of what their row speaks."""

    inference: Inference
    clusters_p: Ints
    """(p,) number of the subject of each prompt."""
    n_seeds: int

    @property
    def fixed(self) -> bool:
        """Whether the seeds are the unit."""
        return self.inference == "these_prompts"

    @property
    def n_clusters(self) -> int:
        """Different subjects."""
        return int(self.clusters_p.max()) + 1

    @property
    def weights_p(self) -> Floats:
        """(p,) what each prompt counts in the mean over clusters; they sum to 1."""
        sizes_c = np.bincount(self.clusters_p)
        weights: Floats = 1 / (sizes_c[self.clusters_p] * len(sizes_c))
        return weights

    def needed(self, estimate: Estimate, room: float) -> Needed | None:
        """How many of the unit would settle an inconclusive row; see `stats.needed`."""
        now = self.n_seeds if self.fixed else self.n_clusters
        count = needed(estimate, room, now)
        if count is None:
            return None
        return Needed(
            unit="seeds" if self.inference == "these_prompts" else self.inference, count=count
        )


def unit_of(plan: StudyPlan, suite: str, prompts: Sequence[Prompt], fixed: bool) -> Unit:
    """The unit of some prompts of a suite; `fixed` as the plan has it for the whole suite."""
    clusters, subjects = pd.factorize(np.array([p.subject for p in prompts], dtype=object))
    several = len(subjects) < len(prompts)
    inference: Inference = "these_prompts" if fixed else "subjects" if several else "prompts"
    return Unit(inference, clusters.astype(np.int64), plan.seeds[suite])


@dataclass(frozen=True)
class SuiteCells:
    """What was read in one suite. Axes: a arms, p prompts, s seeds, in the plan's order."""

    prompts: tuple[Prompt, ...]
    values: Mapping[str, pd.Index[str]]
    """Attribute -> its values; of the pseudo attribute `subject`, every subject that was read."""
    codes: Mapping[str, Ints]
    """Attribute -> (a, p, s) index of the value read, -1 where unreadable, missing or not asked."""
    pictures: Ints
    """(a, p, s) a number that only equal pictures share, -1 where none was generated."""
    unreadable: np.ndarray[Any, np.dtype[np.bool_]]
    """(a, p, s) whether an attribute could not be read."""

    def same_pictures(self, arm: int) -> bool:
        """Whether this arm shows the baseline's pictures, byte for byte."""
        both = self.pictures[[0, arm]]
        return bool((both >= 0).all() and (both[0] == both[1]).all())


def check_plan(plan: StudyPlan) -> None:
    """Raise UserError for what no study can be computed from."""
    if not plan.arms or plan.arms[0] != plan.baseline or len(set(plan.arms)) < len(plan.arms):
        raise UserError(
            f"arms must be different names, the baseline {plan.baseline!r} first, "
            f"got {list(plan.arms)}"
        )
    for suite in plan.suite_roles:
        _check_seeds(plan, suite)
    measured = {(a, p.suite) for p in plan.prompts for a in p.attributes}
    neutral = {(a, suite) for a, suite in measured if plan.suite_roles[suite] == "neutral"}
    for attribute, suite in plan.primaries:
        if (attribute, suite) not in neutral:
            allowed = ", ".join(sorted(f"{a}@{s}" for a, s in neutral)) or "none"
            raise UserError(
                "primaries must name an attribute measured on a neutral suite, got "
                f"{attribute}@{suite} (allowed: {allowed})"
            )
    _check_gate(plan, {f"{a}@{suite}" for a, suite in neutral})


def _check_gate(plan: StudyPlan, neutral: set[str]) -> None:
    """Raise UserError for a limit on what the study does not measure."""
    asked = {f"{a}@{p.suite}" for p in plan.prompts for a in (SUBJECT, *p.asked)}
    drift = {f"drift@{suite}" for suite, role in plan.suite_roles.items() if role == "control"}
    may_have = {"fidelity_loss_at_most": asked, "drift_at_most": drift}
    for comparison, limits in plan.gate.comparisons.items():
        if not limits.asked:
            raise UserError(
                f"gate.comparisons.{comparison} sets no limit (allowed: "
                f"{', '.join((*REPRESENTATION, *may_have))})"
            )
        for what in limits.asked:
            allowed_on = may_have.get(what, neutral)
            if comparison not in allowed_on:
                raise UserError(
                    f"gate.comparisons.{comparison}.{what} is not measured in this study "
                    f"(allowed: {', '.join(sorted(allowed_on)) or 'none'})"
                )


def _check_seeds(plan: StudyPlan, suite: str) -> None:
    prompts = plan.prompts_of(suite)
    if not prompts:
        raise UserError(f"suite {suite!r} has no prompts: give it some, or leave it out")
    by_attribute = [
        tuple(p for p in prompts if attribute in p.attributes) for attribute in plan.attributes
    ]
    judged = {
        "neutral": [part for part in by_attribute if part],
        "control": [prompts],
        "explicit": [],
        "must_not_change": [],
    }[plan.suite_roles[suite]]
    fixed = any(plan.is_fixed(suite, part) for part in judged)
    least, seeds = 3 if fixed else 2, plan.seeds[suite]
    if seeds < least:
        why = (
            f"with fewer than {FEWEST_CLUSTERS} subjects, or declared fixed, the seeds are the unit"
            if fixed
            else "one picture cannot tell skew from chance"
        )
        raise UserError(f"suites.{suite}.seeds must be >= {least}, got {seeds}: {why}")


def lay_out(readings: pd.DataFrame, plan: StudyPlan) -> dict[str, SuiteCells]:
    """Suite -> its cells. Raises UserError for readings that the plan does not know.

    `readings` has a row an image and attribute, with the columns of readings.parquet. Cells without
    a row read as unreadable.
    """
    missing = [column for column in COLUMNS if column not in readings]
    if missing:
        raise UserError(f"readings lack the columns {missing} (they need {list(COLUMNS)})")
    _known(readings["suite"], plan.suite_roles, "suite")
    finer = [a.fold.attribute for a in plan.attributes.values() if a.fold]
    _known(readings["attribute"].dropna(), (SUBJECT, *plan.attributes, *finer), "attribute")
    groups = dict(iter(readings.groupby("suite", sort=False, observed=True)))
    empty = readings.iloc[:0]
    return {
        suite: _suite_cells(groups.get(suite, empty), plan, suite) for suite in plan.suite_roles
    }


def _suite_cells(rows: pd.DataFrame, plan: StudyPlan, suite: str) -> SuiteCells:
    prompts = plan.prompts_of(suite)
    seeds = np.unique(rows["seed"].to_numpy())
    if len(seeds) > plan.seeds[suite]:
        raise UserError(
            f"readings of suite {suite!r} have {len(seeds)} seeds, planned were "
            f"{plan.seeds[suite]}: they belong to another study; use its folder"
        )
    shape = (len(plan.arms), len(prompts), plan.seeds[suite])
    where = np.ravel_multi_index(
        (
            _known(rows["arm"], plan.arms, "arm"),
            _known(rows["prompt_id"], [p.id for p in prompts], f"prompt of suite {suite!r}"),
            np.searchsorted(seeds, rows["seed"].to_numpy()),
        ),
        shape,
    )
    pictures = np.full(shape, -1, np.int64)
    pictures.flat[where] = pd.factorize(rows["image_sha256"])[0]
    answers = rows["value"].where(rows["readable"].astype(bool))
    unreadable = np.zeros(shape, np.bool_)
    asked = rows["attribute"].notna()  # a row without one only says that the picture is there
    unreadable.flat[where[(answers.isna() & asked).to_numpy()]] = True
    values: dict[str, pd.Index[str]] = {}
    codes: dict[str, Ints] = {}
    for attribute, places in rows.groupby("attribute", sort=True, observed=True).indices.items():
        name = str(attribute)
        read, at = answers.iloc[places], where[places]
        if len(np.unique(at)) < len(at):
            raise UserError(
                f"readings of suite {suite!r} hold {name!r} twice for the same picture: "
                "one classifier reads each attribute"
            )
        values[name] = _values(name, plan, read)
        codes[name] = np.full(shape, -1, np.int64)
        readable = read.notna().to_numpy()
        codes[name].flat[at[readable]] = _known(read[readable], values[name], f"{name} value")
    for id, coarse in plan.attributes.items():
        if coarse.fold and coarse.fold.attribute in codes and id not in codes:
            codes[id] = folded(codes[coarse.fold.attribute], coarse.fold)
            values[id] = pd.Index(coarse.values)
    return SuiteCells(prompts, values, codes, pictures, unreadable)


def _values(attribute: str, plan: StudyPlan, read: pd.Series[str]) -> pd.Index[str]:
    if attribute == SUBJECT:
        return pd.Index(sorted({p.subject for p in plan.prompts} | set(read.dropna())))
    if attribute in plan.attributes:
        return pd.Index(plan.attributes[attribute].values)
    folds = (a.fold for a in plan.attributes.values() if a.fold)
    return pd.Index(next(fold.values for fold in folds if fold.attribute == attribute))


def _known(given: pd.Series[str], allowed: Any, what: str) -> Ints:
    """Positions of what was given among what is allowed; UserError names the first stranger."""
    names = pd.Index(list(allowed))
    positions = names.get_indexer(pd.Index(given))
    if (positions < 0).any():
        stranger = given.iloc[int(np.argmax(positions < 0))]
        some = ", ".join(map(str, names[:12]))
        raise UserError(
            f"readings name an unknown {what} {stranger!r} (the plan has: {some}"
            f"{', ...' if len(names) > 12 else ''}): they belong to another study"
        )
    return np.asarray(positions, dtype=np.int64)

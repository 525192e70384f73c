"""What must not be lost: prompts obeyed (fidelity) and pictures left alone (drift)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from unskew.attributes import SUBJECT
from unskew.errors import UserError
from unskew.evaluate.cells import StudyPlan, SuiteCells, Unit, unit_of
from unskew.evaluate.drift import (
    Between,
    distance_between_prompts,
    euclidean,
    excess_distance,
    metric,
    negated_kernel,
)
from unskew.evaluate.rates import paired_rate_change, preservation_verdict, rate_interval
from unskew.evaluate.schema import DriftRow, FidelityRow, RateChange, ValueRates
from unskew.evaluate.schema_quality import KernelDistance
from unskew.evaluate.stats import (
    Estimate,
    Floats,
    cluster_estimate,
    cluster_means,
    seed_estimate,
)
from unskew.prompts import Prompt

Features = Mapping[str, Mapping[str, NDArray[np.float64]]]
"""Arm -> prompt id -> (seeds, d) features of its pictures, seeds in the same order in every arm."""


def fidelity_rows(plan: StudyPlan, cells: Mapping[str, SuiteCells]) -> tuple[FidelityRow, ...]:
    """How often what is asked for comes: explicit values, and on every suite the right subject.

    A row for each of them and every treated arm; an audit's rows have the baseline only.
    """
    return tuple(
        _fidelity_row(plan, suite, attribute, arm, cells[suite])
        for suite in plan.suite_roles
        for attribute in (SUBJECT, *plan.attributes)
        if attribute in cells[suite].codes
        and any(attribute in prompt.asked for prompt in plan.prompts_of(suite))
        for arm in range(min(1, len(plan.treated)), len(plan.arms))
    )


def _fidelity_row(
    plan: StudyPlan, suite: str, attribute: str, arm: int, cells: SuiteCells
) -> FidelityRow:
    at = [n for n, prompt in enumerate(cells.prompts) if attribute in prompt.asked]
    prompts = [cells.prompts[n] for n in at]
    asked = [prompt.asked[attribute] for prompt in prompts]
    asked_p = cells.values[attribute].get_indexer(asked)
    # An unreadable picture has not shown what was asked for.
    base_ps, treated_ps = (cells.codes[attribute][n][at] == asked_p[:, None] for n in (0, arm))
    unit = unit_of(plan, suite, prompts, plan.is_fixed(suite, prompts))
    base_c, treated_c = (
        cluster_means(hits_ps.mean(-1), unit.clusters_p) for hits_ps in (base_ps, treated_ps)
    )
    same = cells.same_pictures(arm)
    change = (
        Estimate(0.0, 0.0, 0.0)
        if same
        else paired_rate_change(base_ps, treated_ps, unit.clusters_p, unit.fixed)
    )
    margin = _margin(plan, suite)
    verdict = preservation_verdict(-change.hi, -change.lo, margin)
    told = arm > 0
    return FidelityRow(
        attribute=attribute,
        suite=suite,
        arm=plan.arms[arm],
        against=plan.baseline if told else None,
        inference=unit.inference,
        n_prompts=len(prompts),
        n_clusters=unit.n_clusters,
        n_seeds=unit.n_seeds,
        baseline_rate=float(base_c.mean()),
        baseline_ci95=rate_interval(base_c, base_ps.size, unit.fixed),
        treated_rate=float(treated_c.mean()) if told else None,
        treated_ci95=rate_interval(treated_c, base_ps.size, unit.fixed) if told else None,
        change=RateChange(value=change.value, ci95=(change.lo, change.hi)) if told else None,
        by_value=_by_value(asked, base_ps, treated_ps if told else None),
        margin=margin,
        verdict=verdict if told else None,
        needed=unit.needed(change, abs(margin + change.value))
        if told and verdict == "inconclusive"
        else None,
        notes=("both arms show the same pictures",) if told and same else (),
    )


def _margin(plan: StudyPlan, suite: str) -> float:
    control = plan.suite_roles[suite] == "control"
    return plan.margins.control if control else plan.margins.fidelity


def _by_value(
    asked: list[str], base_ps: NDArray[np.bool_], treated_ps: NDArray[np.bool_] | None
) -> dict[str, ValueRates]:
    names = np.array(asked)
    return {
        value: ValueRates(
            n_prompts=int((names == value).sum()),
            baseline_rate=float(base_ps[names == value].mean()),
            treated_rate=None if treated_ps is None else float(treated_ps[names == value].mean()),
        )
        for value in dict.fromkeys(asked)
    }


def drift_rows(plan: StudyPlan, features: Features) -> tuple[DriftRow, ...]:
    """Drift of every control suite in every treated arm; see `drift.excess_distance`.

    Raises UserError when a suite has one prompt only, or features that tell none apart: then there
    is no distance between prompts to measure drift in.
    """
    return tuple(
        _drift_row(plan, suite, arm, features)
        for suite, role in plan.suite_roles.items()
        if role == "control"
        for arm in plan.treated
    )


def _drift_row(plan: StudyPlan, suite: str, arm: str, features: Features) -> DriftRow:
    both = features[plan.baseline].keys() & features[arm].keys()
    prompts = tuple(prompt for prompt in plan.prompts_of(suite) if prompt.id in both)
    base_psd, treated_psd = (_stack(features, name, prompts) for name in (plan.baseline, arm))
    unit = unit_of(plan, suite, prompts, plan.is_fixed(suite, prompts))
    estimate = _excess(plan, unit, base_psd, treated_psd, euclidean)
    if estimate is None:
        raise UserError(
            f"suite {suite!r}: drift is measured in the distance between control prompts, and its "
            f"{len(prompts)} show none: give it two or more prompts of different things"
        )
    kernel = _excess(plan, unit, base_psd, treated_psd, negated_kernel)
    margin = plan.margins.drift
    verdict = preservation_verdict(estimate.lo, estimate.hi, margin)
    return DriftRow(
        suite=suite,
        arm=arm,
        against=plan.baseline,
        inference=unit.inference,
        n_prompts=len(prompts),
        n_clusters=unit.n_clusters,
        n_seeds=unit.n_seeds,
        metric=metric("energy distance", plan.features),
        excess=estimate.value,
        ci95=(estimate.lo, estimate.hi),
        margin=margin,
        verdict=verdict,
        needed=unit.needed(estimate, abs(margin - estimate.value))
        if verdict == "inconclusive"
        else None,
        kernel=KernelDistance(
            metric=metric("kernel distance", plan.features),
            excess=kernel.value,
            ci95=(kernel.lo, kernel.hi),
        )
        if kernel
        else None,
    )


def _excess(
    plan: StudyPlan, unit: Unit, base_psd: Floats, treated_psd: Floats, between: Between
) -> Estimate | None:
    """Drift by a distance, in that between prompts; None where that tells no prompts apart."""
    distance = distance_between_prompts(base_psd, between) if len(base_psd) > 1 else 0.0
    if distance == 0:
        return None
    excess_ps = excess_distance(base_psd, treated_psd, between) / distance
    excess_cs = cluster_means(excess_ps, unit.clusters_p)
    value, *without_s = excess_cs.mean(0)
    if unit.fixed:
        return seed_estimate(float(value), np.array(without_s))
    return cluster_estimate(excess_cs[:, 0], plan.resampling_seed)


def _stack(features: Features, arm: str, prompts: tuple[Prompt, ...]) -> Floats:
    return np.stack([features[arm][prompt.id] for prompt in prompts]).astype(np.float64)

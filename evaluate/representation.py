"""Representation: what neutral prompts show of an attribute, and how an adapter changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from unskew.errors import UserError
from unskew.evaluate.cells import StudyPlan, SuiteCells, Unit, unit_of
from unskew.evaluate.rates import rate_interval
from unskew.evaluate.row_parts import needed_by, transition_table, unreadable_change
from unskew.evaluate.schema import (
    ArmRepresentation,
    Change,
    PromptArm,
    PromptRow,
    RepresentationRow,
    Unmeasured,
)
from unskew.evaluate.spread import mean_sums
from unskew.evaluate.stats import (
    Floats,
    Ints,
    Overshoot,
    TestedEstimate,
    change_verdict,
    clipped,
    cluster_estimate,
    cluster_means,
    count_values,
    gap,
    imbalance,
    imbalance_without_each_seed,
    overshoot,
    seed_estimate,
    unreadable_bounds,
    unseen_change,
)
from unskew.evaluate.swaps import swap_p
from unskew.prompts import Prompt

MOST_LEFT_OUT = 0.10
"""Share of a row's prompts that may have too few readable pictures."""
LEAST_BASELINE = 0.05
"""Under this imbalance of the baseline a relative reduction says nothing."""


class _UnreadableError(UserError):
    """Too few pictures of an arm can be read to speak of one attribute on one suite."""

    def __init__(self, what: str, arm: str, why: str, advice: str) -> None:
        super().__init__(f"{what}: {why}: {advice}")
        self.arm, self.why = arm, why


@dataclass(frozen=True)
class _Sample:
    """One attribute over one suite in the baseline and perhaps a treated arm."""

    plan: StudyPlan
    suite: str
    attribute: str
    arms: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    target_pk: Floats
    codes_aps: Ints
    kept_p: NDArray[np.bool_]
    """Prompts with enough readable pictures in every arm here."""
    unit: Unit
    """Of the prompts kept."""
    same_pictures: bool

    @property
    def values(self) -> tuple[str, ...]:
        return self.plan.attributes[self.attribute].values

    @property
    def counts_apk(self) -> Ints:
        return count_values(self.codes_aps, len(self.values))

    @property
    def one_target(self) -> bool:
        return bool((self.target_pk == self.target_pk[0]).all())


def representation_rows(
    plan: StudyPlan, cells: Mapping[str, SuiteCells]
) -> tuple[tuple[RepresentationRow, ...], tuple[Unmeasured, ...]]:
    """A row for every attribute measured on a neutral suite and every treated arm.

    An audit, a plan of one arm, has a row without `treated` and `change`. Holm's correction runs
    over the primary rows of all arms. Where more than a tenth of a row's prompts have too few
    readable pictures, it is among the second; raises UserError for such a row that is primary
    (every row, where none is) or named by the gate, and where it is the baseline that cannot be
    read.
    """
    samples, unmeasured = [], []
    for suite, attribute, arm in (
        (suite, attribute, arm)
        for suite, role in plan.suite_roles.items()
        if role == "neutral"
        for attribute in plan.attributes
        if any(attribute in prompt.attributes for prompt in plan.prompts_of(suite))
        for arm in range(min(1, len(plan.treated)), len(plan.arms))
    ):
        try:
            samples.append(_sample(plan, suite, attribute, arm, cells[suite]))
        except _UnreadableError as error:
            primary = not plan.primaries or (attribute, suite) in plan.primaries
            named = f"{attribute}@{suite}" in plan.gate.comparisons
            if error.arm == plan.baseline or primary or named:
                raise
            unmeasured.append(
                Unmeasured(attribute=attribute, suite=suite, arm=error.arm, why=error.why)
            )
    changes = [_change_estimate(sample) if len(sample.arms) > 1 else None for sample in samples]
    p_values = {
        n: change.p_value
        for n, (sample, change) in enumerate(zip(samples, changes, strict=True))
        if change and (sample.attribute, sample.suite) in plan.primaries
    }
    adjusted = dict(zip(p_values, adjust_p(list(p_values.values()), "holm"), strict=True))
    rows = tuple(
        _row(sample, change, adjusted.get(n))
        for n, (sample, change) in enumerate(zip(samples, changes, strict=True))
    )
    return rows, tuple(unmeasured)


def _sample(plan: StudyPlan, suite: str, attribute: str, arm: int, cells: SuiteCells) -> _Sample:
    at = [n for n, prompt in enumerate(cells.prompts) if attribute in prompt.attributes]
    prompts = tuple(cells.prompts[n] for n in at)
    arms = [0, arm] if arm else [0]
    unread = np.full((len(plan.arms), len(cells.prompts), plan.seeds[suite]), -1)
    codes_aps = cells.codes.get(attribute, unread)[np.ix_(arms, at)]
    fixed = plan.is_fixed(suite, prompts)
    least = 3 if fixed else 2
    readable_ap = (codes_aps >= 0).sum(-1)
    names = tuple(plan.arms[n] for n in arms)
    _check_readable(readable_ap, least, names, prompts, f"{attribute} of suite {suite!r}")
    kept_p = (readable_ap >= least).all(0)
    return _Sample(
        plan=plan,
        suite=suite,
        attribute=attribute,
        arms=names,
        prompts=prompts,
        target_pk=np.stack(
            [p.targets.get(attribute, plan.attributes[attribute].target) for p in prompts]
        ),
        codes_aps=codes_aps,
        kept_p=kept_p,
        unit=unit_of(plan, suite, [prompts[n] for n in np.flatnonzero(kept_p)], fixed),
        same_pictures=bool(arm) and cells.same_pictures(arm),
    )


def _check_readable(
    readable_ap: Ints, least: int, arms: Sequence[str], prompts: Sequence[Prompt], what: str
) -> None:
    allowed = int(MOST_LEFT_OUT * len(prompts))
    for arm, readable_p in zip(arms, readable_ap, strict=True):
        short = np.flatnonzero(readable_p < least)
        if len(short) > allowed:
            first = prompts[short[0]].id
            raise _UnreadableError(
                what,
                arm,
                f"{len(short)} of {len(prompts)} prompts have fewer than {least} readable "
                f"images in arm {arm!r} (allowed: {allowed}; first: {first!r}, "
                f"{readable_p[short[0]]} readable)",
                f"look at images/{arm}/{first}, draw more seeds, or leave the arm out",
            )


def _change_estimate(sample: _Sample) -> TestedEstimate:
    """The paired change in imbalance; below 0 is better."""
    unit = sample.unit
    change_c = cluster_means(_changes(sample), unit.clusters_p)
    if not unit.fixed:
        return cluster_estimate(change_c, sample.plan.resampling_seed, limit=1.0)
    return _by_seeds(*_kept(sample), unit, float(change_c.mean()))


def _kept(sample: _Sample) -> tuple[Ints, Floats]:
    """Codes and target of the prompts that are kept."""
    return sample.codes_aps[:, sample.kept_p], sample.target_pk[sample.kept_p]


def _changes(sample: _Sample) -> Floats:
    """Change in imbalance of each prompt that is kept."""
    target_pk, counts_apk = sample.target_pk[sample.kept_p], sample.counts_apk[:, sample.kept_p]
    return imbalance(counts_apk[1], target_pk) - imbalance(counts_apk[0], target_pk)


def _by_seeds(codes_aps: Ints, target_pk: Floats, unit: Unit, value: float) -> TestedEstimate:
    """With the seeds as the unit; of two arms their difference, of one the imbalance itself."""
    without_aps = np.stack([imbalance_without_each_seed(codes, target_pk) for codes in codes_aps])
    without_ps = without_aps[-1] - without_aps[0] if len(codes_aps) > 1 else without_aps[0]
    without_s = cluster_means(without_ps, unit.clusters_p).mean(0)
    sums = mean_sums(codes_aps, target_pk, unit.weights_p)
    return seed_estimate(value, without_s, 1.0, float(sums.quadratic))


def _row(
    sample: _Sample, change: TestedEstimate | None, p_adjusted: float | None
) -> RepresentationRow:
    unit = sample.unit
    change, notes = _with_notes(sample, change)
    baseline, *treated = (_arm(sample, n) for n in range(len(sample.arms)))
    margin = sample.plan.margins.imbalance
    verdict = change_verdict(change, margin, p_adjusted) if change else None
    crossed = _overshoot(sample) if change else None
    return RepresentationRow(
        attribute=sample.attribute,
        suite=sample.suite,
        arm=sample.arms[-1],
        against=sample.arms[0] if change else None,
        inference=unit.inference,
        primary=(sample.attribute, sample.suite) in sample.plan.primaries,
        n_prompts=int(sample.kept_p.sum()),
        n_clusters=unit.n_clusters,
        n_seeds=unit.n_seeds,
        target=_named(
            sample, sample.target_pk[0] if sample.one_target else sample.target_pk.mean(0)
        ),
        baseline=baseline,
        treated=treated[0] if treated else None,
        change=_change(sample, change, p_adjusted, baseline, treated[0], crossed)
        if change and crossed
        else None,
        transitions=transition_table(sample.codes_aps, sample.values) if change else None,
        per_prompt=_prompt_rows(sample, crossed),
        left_out=tuple(sample.prompts[n].id for n in np.flatnonzero(~sample.kept_p)),
        verdict=verdict,
        needed=needed_by(
            change, _changes(sample), *_kept(sample), unit, sample.plan.margins.imbalance
        )
        if change and verdict == "inconclusive"
        else None,
        notes=notes,
    )


def _with_notes(
    sample: _Sample, change: TestedEstimate | None
) -> tuple[TestedEstimate | None, tuple[str, ...]]:
    """What a reader must know of a row, and an interval of no width made honest."""
    notes = []
    if not sample.kept_p.all():
        notes.append("prompts with too few readable pictures are left out; see left_out")
    if not sample.one_target:
        notes.append("targets differ between prompts; their mean is given")
    if sample.same_pictures:
        notes.append("both arms show the same pictures")
    elif change and change.lo == change.hi:
        n_pairs = int((sample.codes_aps[:, sample.kept_p] >= 0).all(0).sum())
        hidden = unseen_change(n_pairs, sample.target_pk)
        change = clipped(replace(change, lo=change.lo - hidden, hi=change.hi + hidden), 1.0)
        notes.append(
            f"nothing varies between the units: the interval is what {n_pairs} pairs of pictures "
            "without a surprise leave possible"
        )
    return change, tuple(notes)


def _arm(sample: _Sample, arm: int) -> ArmRepresentation:
    unit, kept = sample.unit, sample.kept_p
    target_pk, counts_pk = sample.target_pk[kept], sample.counts_apk[arm][kept]
    shares_ck = cluster_means(counts_pk / counts_pk.sum(-1, keepdims=True), unit.clusters_p)
    n_readable = int(counts_pk.sum())
    imbalance_c = cluster_means(imbalance(counts_pk, target_pk), unit.clusters_p)
    if unit.fixed:
        codes_aps = sample.codes_aps[[arm]][:, kept]
        estimate = _by_seeds(codes_aps, target_pk, unit, float(imbalance_c.mean()))
    else:
        estimate = cluster_estimate(imbalance_c, sample.plan.resampling_seed, limit=1.0)
    intervals = [rate_interval(rates_c, n_readable, unit.fixed) for rates_c in shares_ck.T]
    unreadable_ps = sample.codes_aps[arm] < 0
    all_prompts = unit_of(sample.plan, sample.suite, sample.prompts, unit.fixed)
    unreadable_c = cluster_means(unreadable_ps.mean(-1), all_prompts.clusters_p)
    return ArmRepresentation(
        shares=_named(sample, shares_ck.mean(0)),
        shares_ci95=dict(zip(sample.values, intervals, strict=True)),
        imbalance=estimate.value,
        imbalance_ci95=(estimate.lo, estimate.hi),
        gap=gap(estimate.value),
        unreadable_rate=float(unreadable_c.mean()),
        unreadable_ci95=rate_interval(unreadable_c, unreadable_ps.size, unit.fixed),
    )


def _change(
    sample: _Sample,
    change: TestedEstimate,
    p_adjusted: float | None,
    baseline: ArmRepresentation,
    treated: ArmRepresentation,
    crossed: Overshoot,
) -> Change:
    told = baseline.imbalance >= LEAST_BASELINE
    return Change(
        imbalance=change.value,
        ci95=(change.lo, change.hi),
        p_value=change.p_value,
        p_adjusted=p_adjusted,
        relative_reduction=1 - treated.imbalance / baseline.imbalance if told else None,
        overshoot_rate=float(crossed.crossed_p[sample.kept_p].mean()),
        overshoot_by_chance=float(crossed.by_chance_p[sample.kept_p].mean()),
        worst_case=_worst_case(sample),
        unreadable_rate=unreadable_change(
            sample.codes_aps,
            unit_of(sample.plan, sample.suite, sample.prompts, sample.unit.fixed),
            sample.same_pictures,
        ),
    )


def _overshoot(sample: _Sample) -> Overshoot:
    baseline_pk, treated_pk = sample.counts_apk
    return overshoot(baseline_pk, treated_pk, sample.target_pk, sample.plan.margins.overshoot)


def _worst_case(sample: _Sample) -> tuple[float, float]:
    """Bounds of the change over every answer of every unreadable picture, all prompts in."""
    bounds = [
        unreadable_bounds(counts_pk, (codes_ps < 0).sum(-1), sample.target_pk)
        for counts_pk, codes_ps in zip(sample.counts_apk, sample.codes_aps, strict=True)
    ]
    (least_base, most_base), (least, most) = bounds
    unit = unit_of(sample.plan, sample.suite, sample.prompts, sample.unit.fixed)
    lo_c = cluster_means(least - most_base, unit.clusters_p)
    hi_c = cluster_means(most - least_base, unit.clusters_p)
    return float(lo_c.mean()), float(hi_c.mean())


def _prompt_rows(sample: _Sample, crossed: Overshoot | None) -> tuple[PromptRow, ...]:
    counts_apk = sample.counts_apk
    imbalance_ap = imbalance(counts_apk, sample.target_pk)
    judged = _judged_prompts(sample, imbalance_ap, crossed) if crossed else {}
    rows = []
    for n, prompt in enumerate(sample.prompts):
        arms = [
            PromptArm(
                n_readable=int(counts_k.sum()),
                shares=_named(sample, counts_k / counts_k.sum()) if counts_k.any() else {},
                imbalance=float(value) if np.isfinite(value) else None,
            )
            for counts_k, value in zip(counts_apk[:, n], imbalance_ap[:, n], strict=True)
        ]
        change, p_value, p_adjusted, overshot = judged.get(n, (None, None, None, None))
        rows.append(
            PromptRow(
                prompt_id=prompt.id,
                text=prompt.text,
                subject=prompt.subject,
                target=_named(sample, sample.target_pk[n]),
                baseline=arms[0],
                treated=arms[1] if crossed else None,
                change=change,
                p_value=p_value,
                p_adjusted=p_adjusted,
                overshoot=overshot,
            )
        )
    return tuple(rows)


def _judged_prompts(
    sample: _Sample, imbalance_ap: Floats, crossed: Overshoot
) -> dict[int, tuple[float, float, float, bool]]:
    """Number of each prompt that is kept -> change, p-value, adjusted p-value, overshoot."""
    kept = np.flatnonzero(sample.kept_p)
    baseline_ps, treated_ps = sample.codes_aps[:, kept]
    p_values = swap_p(baseline_ps, treated_ps, sample.target_pk[kept], sample.plan.resampling_seed)
    change_p = (imbalance_ap[1] - imbalance_ap[0])[kept]
    columns = (change_p.tolist(), p_values.tolist(), adjust_p(p_values, "fdr_bh"))
    crossed_p = crossed.crossed_p[kept].tolist()
    return dict(zip(kept.tolist(), zip(*columns, crossed_p, strict=True), strict=True))


def _named(sample: _Sample, shares_k: Floats) -> dict[str, float]:
    return {value: float(share) for value, share in zip(sample.values, shares_k, strict=True)}


def adjust_p(p_values: Sequence[float] | Floats, method: Literal["holm", "fdr_bh"]) -> list[float]:
    """Adjusted p-values: Holm (1979) or Benjamini & Hochberg (1995); none stay none."""
    if len(p_values) == 0:
        return []
    return [float(p) for p in multipletests(p_values, method=method)[1]]

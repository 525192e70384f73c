"""The `quality` part of results: pictures as pictures, suite by suite and arm by arm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from unskew.evaluate.cells import StudyPlan, Unit, unit_of
from unskew.evaluate.measuring import Measured
from unskew.evaluate.quality import identity, log_ratio, paired_mean, repeated, seeds_alike
from unskew.evaluate.rates import preservation_verdict
from unskew.evaluate.schema import Margins
from unskew.evaluate.schema_quality import (
    Agreement,
    PairIdentity,
    PictureRates,
    QualityRow,
    Tone,
)
from unskew.evaluate.stats import Floats, cluster_means

IDENTITY_ROLES = ("neutral", "control")


def quality_rows(plan: StudyPlan, measured: Measured) -> tuple[QualityRow, ...]:
    """A row for every suite and treated arm; for every suite in an audit.

    Suites without a whole picture in an arm have no row for it.
    """
    return tuple(row for suite in plan.suite_roles for row in _suite_rows(plan, measured, suite))


def _suite_rows(plan: StudyPlan, measured: Measured, suite: str) -> Iterator[QualityRow]:
    at_ps = measured.at[suite]
    there_aps = measured.pixels_an[:, at_ps] >= 0
    alike_pss = None
    if plan.treated and plan.suite_roles[suite] in IDENTITY_ROLES:
        alike_pss = seeds_alike(measured.small_anhw[0][at_ps], there_aps[0])
    for arm in range(min(1, len(plan.treated)), len(plan.arms)):
        if there_aps[0].any() and there_aps[arm].any():
            yield _row(plan, measured, suite, arm, alike_pss)


def _row(
    plan: StudyPlan, measured: Measured, suite: str, arm: int, alike_pss: Floats | None
) -> QualityRow:
    prompts = plan.prompts_of(suite)
    unit = unit_of(plan, suite, prompts, plan.is_fixed(suite, prompts))
    at_ps = measured.at[suite]
    told = arm > 0
    resized_ps = measured.sizes_an[0][at_ps] != measured.sizes_an[arm][at_ps]
    tones = {}
    for name, values_an in measured.tones_an.items():
        ratios_ps = log_ratio(values_an[0][at_ps], values_an[arm][at_ps])
        if name == "sharpness":  # the same picture, made smaller, is sharper
            ratios_ps[resized_ps] = np.nan
        means = _mean(values_an[0][at_ps], unit), _mean(values_an[arm][at_ps], unit)
        tones[name] = _tone(plan, unit, *means, ratios_ps if told else None)
    pixels = [measured.pixels_an[n][at_ps] for n in (0, arm)]
    blank = [_share(measured.blank_an[n][at_ps], measured.pixels_an[n][at_ps]) for n in (0, arm)]
    again = [repeated(pixels_ps) for pixels_ps in pixels]
    blank_rates = PictureRates(baseline=blank[0], treated=blank[1] if told else None)
    repeated_rates = PictureRates(baseline=again[0], treated=again[1] if told else None)
    return QualityRow(
        suite=suite,
        arm=plan.arms[arm],
        against=plan.baseline if told else None,
        inference=unit.inference,
        n_prompts=len(prompts),
        n_clusters=unit.n_clusters,
        n_seeds=unit.n_seeds,
        tones=tones,
        repeated=repeated_rates,
        blank=blank_rates,
        identity=None
        if alike_pss is None
        else _identity(plan, measured, unit, suite, arm, alike_pss),
        agreement=_agreement(plan, measured, unit, suite, arm),
        flags=(
            *_tone_flags(tones, plan.margins),
            *_rate_flags("blank", blank_rates, plan.margins),
            *_rate_flags("equal to another seed's", repeated_rates, plan.margins),
        ),
    )


def _tone(
    plan: StudyPlan, unit: Unit, baseline: float, treated: float, ratios_ps: Floats | None
) -> Tone:
    told = ratios_ps is not None
    change = (
        None
        if ratios_ps is None
        else paired_mean(ratios_ps, unit.clusters_p, unit.fixed, plan.resampling_seed)
    )
    return Tone(
        baseline=baseline,
        treated=treated if told else None,
        ratio=float(np.exp(change.value)) if change else None,
        ci95=(float(np.exp(change.lo)), float(np.exp(change.hi))) if change else None,
    )


def _mean(values_ps: Floats, unit: Unit) -> float:
    """Mean over clusters of their prompts' means; prompts without a picture are left out."""
    there_p = ~np.isnan(values_ps).all(axis=1)
    _, clusters_p = np.unique(unit.clusters_p[there_p], return_inverse=True)
    means_p = np.nanmean(values_ps[there_p], axis=1)
    return float(cluster_means(means_p, clusters_p.astype(np.int64)).mean())


def _share(blank_ps: NDArray[np.bool_], pixels_ps: NDArray[np.int64]) -> float:
    return float(blank_ps[pixels_ps >= 0].mean())


def _tone_flags(tones: dict[str, Tone], margins: Margins) -> list[str]:
    """What lies beyond the margin with its whole interval."""
    most = margins.collapse
    return [
        f"{name} is {tone.ratio:.2f} times the baseline's ({tone.ci95[0]:.2f} to "
        f"{tone.ci95[1]:.2f}), beyond {1 / most:.2f} to {most:.2f}"
        for name, tone in tones.items()
        if tone.ci95 and (tone.ci95[0] > most or tone.ci95[1] < 1 / most)
    ]


def _rate_flags(what: str, rates: PictureRates, margins: Margins) -> list[str]:
    if rates.treated is None or rates.treated - rates.baseline <= margins.degenerate:
        return []
    return [f"{rates.treated:.1%} of the pictures are {what}, {rates.baseline:.1%} before"]


def _identity(
    plan: StudyPlan, measured: Measured, unit: Unit, suite: str, arm: int, alike_pss: Floats
) -> PairIdentity | None:
    at_ps = measured.at[suite]
    there_aps = measured.pixels_an[[0, arm]][:, at_ps] >= 0
    found = identity(
        measured.small_anhw[0][at_ps],
        measured.small_anhw[arm][at_ps],
        alike_pss,
        there_aps[0] & there_aps[1],
        unit.clusters_p,
        unit.fixed,
        plan.resampling_seed,
    )
    if found is None:
        return None
    return PairIdentity(
        value=found.value.value,
        ci95=(found.value.lo, found.value.hi),
        same_noise=found.same_noise,
        other_noise=found.other_noise,
    )


def _agreement(
    plan: StudyPlan, measured: Measured, unit: Unit, suite: str, arm: int
) -> Agreement | None:
    model = measured.agreement
    if model is None:
        return None
    base_ps, treated_ps = (measured.agreement_an[n][measured.at[suite]] for n in (0, arm))
    change = (
        paired_mean(treated_ps - base_ps, unit.clusters_p, unit.fixed, plan.resampling_seed)
        if arm > 0
        else None
    )
    return Agreement(
        model=model.name,
        baseline=_mean(base_ps, unit),
        treated=_mean(treated_ps, unit) if arm > 0 else None,
        change=change.value if change else None,
        ci95=(change.lo, change.hi) if change else None,
        margin=model.margin,
        verdict=preservation_verdict(-change.hi, -change.lo, model.margin)
        if change and model.margin is not None
        else None,
    )

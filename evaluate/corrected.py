"""From a run's readings and labels to the `corrected` part of its rows.

results = with_labels(results, readings, run_folder)   # unchanged while the folder holds no labels
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from unskew.errors import UserError
from unskew.evaluate.calibration import (
    FOLDER,
    OTHER_READINGS,
    Labels,
    Sample,
    is_sample_of,
    load_sample,
    stored_labels,
)
from unskew.evaluate.correction import (
    Arm,
    corrected_change,
    corrected_imbalance,
    information,
    reading_rates,
    why_not,
)
from unskew.evaluate.folds import with_folds
from unskew.evaluate.labelled_shares import (
    FEWEST_LABELS,
    LabelledArm,
    LabelledShares,
    labelled_shares,
    labels_needed,
    share_shift,
)
from unskew.evaluate.schema import RepresentationRow, Results
from unskew.evaluate.schema_correction import (
    Corrected,
    CorrectedImbalance,
    CorrectedShares,
    ShareShift,
)
from unskew.evaluate.stats import Estimate, Floats, Ints, change_verdict

METHOD = (
    "Shares: prediction-powered inference (PPI++) on the labelled random sample of each arm. "
    "Imbalance: the inverse of the confusion matrix of readings against labels."
)
CAVEAT = (
    "Labels are what raters perceive, not who anyone is. Shares speak of pictures that the "
    "classifier could read and the raters could tell. The matrix takes the classifier to err alike "
    "in all suites, and, where it is shared, in both arms; one prompt's few labels cannot correct "
    "that prompt alone."
)
Key = tuple[str, str, int]
"""Arm, prompt id, seed."""


@dataclass(frozen=True)
class _Row:
    """A row's readings, prompts that were left out taken away."""

    prompts: tuple[str, ...]
    clusters_p: Ints
    target_pk: Floats
    codes_aps: Ints
    seeds: Ints
    fixed: bool


def with_labels(results: Results, readings: pd.DataFrame, folder: Path) -> Results:
    """The results with `corrected` filled from the labels in the folder's `calibration/`.

    Unchanged where it holds none, and, with a warning, where they were drawn from other readings:
    what could not be read then had no chance of a label. Raises UserError for labels that do not
    fit the readings.
    """
    sample = load_sample(folder)
    labels = stored_labels(folder, sample) if sample else ()
    if not sample or not labels:
        return results
    readings = with_folds(readings, results)
    if not is_sample_of(sample, results, readings):
        print(f"warning: {folder / FOLDER}: {OTHER_READINGS}", file=sys.stderr)
        return results
    return correct(results, readings, sample, labels)


def correct(
    results: Results, readings: pd.DataFrame, sample: Sample, labels: Sequence[Labels]
) -> Results:
    """The results with a `corrected` part in every row whose attribute was labelled."""
    _check_pictures(readings, sample)
    tables = {
        (str(a), str(s)): rows
        for (a, s), rows in readings.groupby(["attribute", "suite"], observed=True, sort=False)
    }
    said = {attribute: _said(attribute, sample, labels) for attribute in sample.values}
    counts = {
        attribute: _confusion(
            attribute, answers, tables, results.settings.attributes[attribute].values
        )
        for attribute, answers in said.items()
    }
    chances = {(t.attribute, t.arm, t.prompt_id, t.seed): t.chance for t in sample.tasks}
    raters = tuple(rater.rater for rater in labels)
    rows = []
    for row in results.representation:
        if not said.get(row.attribute):
            rows.append(row)
            continue
        values = results.settings.attributes[row.attribute].values
        arms = (results.baseline, row.arm) if row.treated else (row.arm,)
        layout = _layout(row, tables[row.attribute, row.suite], arms, values)
        known = {key[1:]: chance for key, chance in chances.items() if key[0] == row.attribute}
        shares, shift, refused = _shares(layout, arms, values, said[row.attribute], known)
        imbalance, reason = _imbalance(layout, arms, values, counts[row.attribute], results)
        corrected = Corrected(
            raters=raters,
            method=METHOD,
            caveat=CAVEAT,
            baseline=shares.get(arms[0]),
            treated=shares.get(arms[1]) if len(arms) > 1 else None,
            shift=shift,
            imbalance=imbalance,
            refused=(*refused, *([reason] if reason else [])),
        )
        rows.append(row.model_copy(update={"corrected": corrected}))
    return results.model_copy(update={"representation": tuple(rows)})


def _check_pictures(readings: pd.DataFrame, sample: Sample) -> None:
    keys = zip(readings["arm"], readings["prompt_id"], readings["seed"], strict=True)
    pictures = dict(zip(keys, readings["image_sha256"], strict=True))
    for task in sample.tasks:
        if pictures.get((task.arm, task.prompt_id, task.seed)) != task.image_sha256:
            raise UserError(
                f"calibration: the picture of {task.id} (arm {task.arm!r}, {task.prompt_id}, seed "
                f"{task.seed}) is not the one that was labelled: delete the calibration folder and "
                "label anew"
            )


def _said(attribute: str, sample: Sample, labels: Sequence[Labels]) -> dict[Key, Floats]:
    """Picture -> (K,) part of its raters who say each value; all 0 where none could tell."""
    values = sample.values[attribute]
    found: dict[Key, Floats] = {}
    for task in sample.tasks:
        answers = [rater.labels[task.id] for rater in labels if task.id in rater.labels]
        if task.attribute == attribute and answers:
            parts = np.array([[answer == value for value in values] for answer in answers])
            found[task.arm, task.prompt_id, task.seed] = parts.mean(0)
    return found


def _confusion(
    attribute: str,
    said: Mapping[Key, Floats],
    tables: Mapping[tuple[str, str], pd.DataFrame],
    values: Sequence[str],
) -> dict[str, Floats]:
    """Arm -> (K, K) labelled pictures by value said and value read, over all suites."""
    counts: dict[str, Floats] = {}
    for (of, _), table in tables.items():
        if of != attribute:
            continue
        read = table[table["readable"].astype(bool)]
        columns = zip(read["arm"], read["prompt_id"], read["seed"], read["value"], strict=True)
        for arm, prompt_id, seed, value in columns:
            told = said.get((arm, prompt_id, seed))
            if told is not None:
                here = counts.setdefault(arm, np.zeros((len(values), len(values))))
                here[:, list(values).index(value)] += told
    return counts


def _layout(
    row: RepresentationRow, table: pd.DataFrame, arms: Sequence[str], values: Sequence[str]
) -> _Row:
    kept = [prompt for prompt in row.per_prompt if prompt.prompt_id not in row.left_out]
    prompts = tuple(prompt.prompt_id for prompt in kept)
    seeds = np.unique(table["seed"].to_numpy())
    codes_aps = np.full((len(arms), len(prompts), len(seeds)), -1, np.int64)
    own = table[table["arm"].isin(arms) & table["prompt_id"].isin(prompts)]
    own = own[own["readable"].astype(bool)]
    codes_aps[
        pd.Index(arms).get_indexer(pd.Index(own["arm"])),
        pd.Index(prompts).get_indexer(pd.Index(own["prompt_id"])),
        np.searchsorted(seeds, own["seed"].to_numpy()),
    ] = pd.Index(values).get_indexer(pd.Index(own["value"]))
    clusters, _ = pd.factorize(np.array([prompt.subject for prompt in kept], dtype=object))
    return _Row(
        prompts=prompts,
        clusters_p=clusters.astype(np.int64),
        target_pk=np.array([[prompt.target[value] for value in values] for prompt in kept]),
        codes_aps=codes_aps,
        seeds=seeds,
        fixed=row.inference == "these_prompts",
    )


def _shares(
    row: _Row,
    arms: Sequence[str],
    values: Sequence[str],
    said: Mapping[Key, Floats],
    chances: Mapping[Key, float],
) -> tuple[dict[str, CorrectedShares], dict[str, ShareShift] | None, list[str]]:
    found: dict[str, LabelledShares] = {}
    refused = []
    n_clusters = row.codes_aps[0].size if row.fixed else int(row.clusters_p.max()) + 1
    for number, arm in enumerate(arms):
        labelled = _labelled(row, number, arm, len(values), said, chances)
        n = int(labelled.labelled_n.sum())
        if n < FEWEST_LABELS:
            refused.append(f"shares of {arm}: {n} labels here (needed: {FEWEST_LABELS})")
        elif not np.nansum(labelled.labels_nk):
            refused.append(f"shares of {arm}: the raters could tell none of {n} pictures")
        else:
            found[arm] = labelled_shares(labelled, n_clusters, independent=row.fixed)
    shift = None
    if len(found) > 1:
        changes = share_shift(found[arms[0]], found[arms[1]], independent=row.fixed)
        shift = {
            value: ShareShift(value=change.value, ci95=(change.lo, change.hi))
            for value, change in zip(values, changes, strict=True)
        }
    return {arm: _told(shares, values) for arm, shares in found.items()}, shift, refused


def _told(found: LabelledShares, values: Sequence[str]) -> CorrectedShares:
    named = dict(zip(values, found.shares, strict=True))
    return CorrectedShares(
        shares={value: share.value for value, share in named.items()},
        shares_ci95={value: (share.lo, share.hi) for value, share in named.items()},
        n_labels=found.n_labels,
        cannot_tell=min(max(found.cannot_tell, 0.0), 1.0),
        trust=found.trust,
        labels_for_2_points=labels_needed(found.deviation, 0.02),
    )


def _labelled(
    row: _Row,
    number: int,
    arm: str,
    n_values: int,
    said: Mapping[Key, Floats],
    chances: Mapping[Key, float],
) -> LabelledArm:
    """One arm's readable pictures in one line, with the weight each has in the row's shares."""
    codes_ps = row.codes_aps[number]
    at_p, at_s = np.nonzero(codes_ps >= 0)
    sizes_p = (codes_ps >= 0).sum(-1)
    prompts_c = np.bincount(row.clusters_p)
    weight_p = 1 / (sizes_p * prompts_c[row.clusters_p] * len(prompts_c))
    labels_nk = np.full((len(at_p), n_values), np.nan)
    chance_n = np.ones(len(at_p))
    for n, (p, s) in enumerate(zip(at_p.tolist(), at_s.tolist(), strict=True)):
        key = (arm, row.prompts[p], int(row.seeds[s]))
        if key in said:
            labels_nk[n], chance_n[n] = said[key], chances[key]
    return LabelledArm(
        codes_n=codes_ps[at_p, at_s],
        weight_n=weight_p[at_p],
        clusters_n=at_p * codes_ps.shape[1] + at_s if row.fixed else row.clusters_p[at_p],
        labels_nk=labels_nk,
        label_weight_n=weight_p[at_p] / chance_n,
    )


def _imbalance(
    row: _Row,
    arms: Sequence[str],
    values: Sequence[str],
    counts: Mapping[str, Floats],
    results: Results,
) -> tuple[CorrectedImbalance | None, str | None]:
    """Each arm by its own matrix where every value has labels enough, else both by a shared one."""
    none = np.zeros((len(values), len(values)))
    own = {arm: counts.get(arm, none) for arm in arms}
    shared = len(arms) > 1 and any(why_not(matrix, values) for matrix in own.values())
    if shared:
        own = dict.fromkeys(arms, sum(own.values(), none))
    for matrix in own.values():
        if reason := why_not(matrix, values):
            return None, f"imbalance: {reason}"
    seed = results.settings.resampling_seed
    parts = [Arm(codes, own[arm]) for codes, arm in zip(row.codes_aps, arms, strict=True)]
    levels = [
        corrected_imbalance(part, row.target_pk, row.clusters_p, fixed=row.fixed, seed=seed)
        for part in parts
    ]
    change: Estimate | None = None
    if len(parts) > 1:
        change = corrected_change(
            parts[0],
            parts[1],
            row.target_pk,
            row.clusters_p,
            shared=shared,
            fixed=row.fixed,
            seed=seed,
        )
    treated = levels[1] if change else None
    return CorrectedImbalance(
        matrix="shared" if shared else "per_arm",
        counts={arm: tuple(map(tuple, matrix.tolist())) for arm, matrix in own.items()},
        information={arm: information(reading_rates(matrix)) for arm, matrix in own.items()},
        baseline=levels[0].value,
        baseline_ci95=(levels[0].lo, levels[0].hi),
        treated=treated.value if treated else None,
        treated_ci95=(treated.lo, treated.hi) if treated else None,
        change=change.value if change else None,
        change_ci95=(change.lo, change.hi) if change else None,
        verdict=change_verdict(change, results.settings.margins.imbalance, None)
        if change
        else None,
    ), None

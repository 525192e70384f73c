"""Which pictures a person labels, and what they said: the files in a run's `calibration/`.

`sample.json` is drawn once and says what each task is; `labels-<rater>.json` holds answers to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from statsmodels.stats.inter_rater import cohens_kappa

from unskew.errors import UserError
from unskew.evaluate.answers import SAMPLE, Answers, load_drawn, stored_answers
from unskew.evaluate.schema import Results
from unskew.evaluate.schema_model import Model
from unskew.evaluate.stats import Floats
from unskew.runs import read_manifest, write_json_atomic

FOLDER = "calibration"
PAGE = "label.html"


class Task(Model):
    """One picture and one attribute to label on it."""

    id: str
    """Says nothing of the picture: a number in the shuffled order."""
    attribute: str
    suite: str
    arm: str
    prompt_id: str
    seed: int
    chance: float = Field(gt=0, le=1)
    """With which this picture was drawn from its prompt's; 1 / chance is its sampling weight."""
    image_sha256: str


class Sample(Model):
    """What was drawn for labelling, and how."""

    schema_version: Literal[1] = 1
    run: str
    """Fingerprint of the run's settings and inputs."""
    settings: dict[str, Any]
    values: dict[str, tuple[str, ...]]
    """Attribute -> what may be answered."""
    tasks: tuple[Task, ...]

    @property
    def sha256(self) -> str:
        """What a file of labels names its sample by."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def page(self) -> str:
        """Where its page lies in the run's folder."""
        return f"{FOLDER}/{PAGE}"

    @property
    def allowed(self) -> dict[str, tuple[str | None, ...]]:
        """Task's id -> what may be answered; None is "cannot tell"."""
        return {task.id: (*self.values[task.attribute], None) for task in self.tasks}


class Labels(Answers):
    """One rater's answers; null is "cannot tell"."""

    WHAT = "label"
    labels: dict[str, str | None]


def run_fingerprint(folder: Path) -> str:
    """Equal for equal settings and inputs of a run, whenever it ran."""
    manifest = read_manifest(folder)
    asked = {key: manifest.get(key) for key in ("program", "settings", "inputs", "started")}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def draw_sample(
    results: Results,
    readings: pd.DataFrame,
    *,
    run: str,
    per_arm: int,
    seed: int,
    attributes: Sequence[str],
    suites: Sequence[str],
) -> Sample:
    """A stratified random sample: `per_arm` pictures an arm and attribute, evenly over the suites.

    Within a suite every prompt gives as many pictures, as far as it has them, drawn from those that
    could be read; the arms give the same seeds where they can. The order is shuffled over arms,
    suites and prompts, so that a rater may stop anywhere. Empty `attributes` and `suites` mean all
    that neutral prompts measure. Raises UserError for names that no row has.
    """
    read = set(readings["attribute"])
    rows = [(r.attribute, r.suite) for r in results.representation if r.attribute in read]
    known = list(dict.fromkeys(rows))
    for what, asked, place in (("attributes", attributes, 0), ("suites", suites, 1)):
        allowed = list(dict.fromkeys(pair[place] for pair in known))
        for name in asked:
            if name not in allowed:
                raise UserError(
                    f"{what}: {name!r} is not measured on neutral prompts here "
                    f"(allowed: {', '.join(allowed) or 'none'})"
                )
    strata = [
        (a, s)
        for a, s in known
        if (not attributes or a in attributes) and (not suites or s in suites)
    ]
    readable = readings[readings["readable"].astype(bool)]
    tasks: list[dict[str, Any]] = []
    for attribute in dict.fromkeys(a for a, _ in strata):
        own = [s for a, s in strata if a == attribute]
        shares = np.diff(np.linspace(0, per_arm, len(own) + 1).round().astype(int)).tolist()
        drawn = [
            task
            for suite, n in zip(own, shares, strict=True)
            for arm in results.arms
            for task in _draw_stratum(readable, attribute, suite, arm, n, seed)
        ]
        order = np.random.default_rng(_number(seed, attribute)).permutation(len(drawn))
        tasks += [drawn[i] for i in order]
    if not tasks:
        raise UserError("nothing to label: no readable picture of a neutral prompt in this run")
    return Sample(
        run=run,
        settings={
            "per_arm": per_arm,
            "seed": seed,
            "attributes": list(attributes),
            "suites": list(suites),
        },
        values={a: results.settings.attributes[a].values for a, _ in strata},
        tasks=tuple(Task(id=f"t{n + 1:05d}", **task) for n, task in enumerate(tasks)),
    )


OTHER_READINGS = (
    "its sample was drawn from other readings, in which other pictures could be read, so its "
    "labels correct nothing here: move that folder away, and label anew with `unskew calibrate`"
)


def is_sample_of(sample: Sample, results: Results, readings: pd.DataFrame) -> bool:
    """Whether just this sample is drawn from these readings.

    What could not be read when it was drawn had no chance of a label, whatever is read now.
    """
    try:
        again = draw_sample(results, readings, run=sample.run, **sample.settings)
    except UserError:
        return False
    return again == sample


def _draw_stratum(
    readable: pd.DataFrame, attribute: str, suite: str, arm: str, n: int, seed: int
) -> list[dict[str, Any]]:
    """About n pictures of one arm and suite, as many from every prompt as from the next.

    Where n does not divide, some give one more; which ones is drawn.
    """
    here = readable[
        (readable["attribute"] == attribute)
        & (readable["suite"] == suite)
        & (readable["arm"] == arm)
    ]
    groups = {str(id): rows for id, rows in here.groupby("prompt_id", sort=True)}
    rng = np.random.default_rng(_number(seed, attribute, suite))
    each, rest = divmod(n, max(1, len(groups)))
    lucky = set(rng.permutation(len(groups))[:rest].tolist())
    tasks = []
    for number, (prompt_id, rows) in enumerate(groups.items()):
        # The order of a prompt's seeds is the same in every arm, so that pairs meet.
        order = sorted(
            rows.itertuples(),
            key=lambda row: _number(seed, attribute, prompt_id, int(row.seed)),
        )
        tasks += [
            {
                "attribute": attribute,
                "suite": suite,
                "arm": arm,
                "prompt_id": prompt_id,
                "seed": int(row.seed),
                "chance": min(1.0, n / len(groups) / len(rows)),
                "image_sha256": str(row.image_sha256),
            }
            for row in order[: each + (number in lucky)]
        ]
    return tasks


def _number(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8], "big")


def load_sample(folder: Path) -> Sample | None:
    """The sample of a run folder; None where none was drawn."""
    return load_drawn(folder / FOLDER / SAMPLE, Sample)


def write_sample(sample: Sample, folder: Path) -> None:
    """Write `sample.json` whole or not at all."""
    write_json_atomic(folder / FOLDER / SAMPLE, sample.model_dump(mode="json"))


def stored_labels(folder: Path, sample: Sample) -> tuple[Labels, ...]:
    """Every rater's labels in a run folder, in the order of their names."""
    return stored_answers(folder / FOLDER, Labels, sample)


class Agreement(Model):
    """How far raters say the same of an attribute; 1 is always, 0 as chance would."""

    attribute: str
    raters: tuple[str, ...]
    n_both: int
    """Pictures that two or more of them could tell."""
    kappa: dict[str, float | None]
    """Pair of raters -> Cohen's kappa; null where chance alone would agree always."""
    alpha: float | None
    """Krippendorff's, for names, over all of them."""


def agreement(labels: Sequence[Labels], sample: Sample) -> tuple[Agreement, ...]:
    """Of every attribute, where there are two raters; "cannot tell" counts as not said."""
    found = []
    for attribute, values in sample.values.items() if len(labels) > 1 else ():
        ids = [task.id for task in sample.tasks if task.attribute == attribute]
        codes_rn = np.array([[_code(rater.labels, id, values) for id in ids] for rater in labels])
        kappas: dict[str, float | None] = {}
        for a, b in combinations(range(len(labels)), 2):
            both = (codes_rn[[a, b]] >= 0).all(0)
            table = np.zeros((len(values), len(values)))
            np.add.at(table, (codes_rn[a, both], codes_rn[b, both]), 1)
            kappas[f"{labels[a].rater}, {labels[b].rater}"] = _kappa(table)
        found.append(
            Agreement(
                attribute=attribute,
                raters=tuple(rater.rater for rater in labels),
                n_both=int(((codes_rn >= 0).sum(0) > 1).sum()),
                kappa=kappas,
                alpha=krippendorff_alpha(codes_rn, len(values)),
            )
        )
    return tuple(found)


def _code(labels: Mapping[str, str | None], id: str, values: Sequence[str]) -> int:
    value = labels.get(id)
    return values.index(value) if value is not None else -1


def _kappa(table: Floats) -> float | None:
    used = np.flatnonzero(table.sum(0) + table.sum(1))
    if len(used) < 2:
        return None
    return float(cohens_kappa(table[np.ix_(used, used)], return_results=False))


def krippendorff_alpha(codes_rn: np.ndarray[Any, Any], n_values: int) -> float | None:
    """Krippendorff's alpha for names (2011, "Computing Krippendorff's Alpha-Reliability").

    1 - observed / expected disagreement, from the coincidences of values within pictures; -1 is no
    answer. None where nothing varies. (The package of this name is under the GPL.)
    """
    counts_nk = np.stack([(codes_rn == k).sum(0) for k in range(n_values)], axis=-1)
    counts_nk = counts_nk[counts_nk.sum(-1) > 1]
    m_n = counts_nk.sum(-1)
    n = float(m_n.sum())
    observed = float(((m_n**2 - (counts_nk**2).sum(-1)) / np.maximum(m_n - 1, 1)).sum())
    totals = counts_nk.sum(0)
    expected = n**2 - float((totals**2).sum())
    return 1 - (n - 1) * observed / expected if expected > 0 else None

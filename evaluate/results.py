"""From readings to `results.json`: what was planned, what was found, and whether the gate holds.

results = summarise(readings, plan, control_features)
write_results(results, run_folder / "results.json")
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from unskew.evaluate.cells import StudyPlan as StudyPlan
from unskew.evaluate.cells import SuiteCells, check_plan, lay_out
from unskew.evaluate.gate import judge_gate
from unskew.evaluate.intersections import with_intersections
from unskew.evaluate.measuring import Measured
from unskew.evaluate.preservation import Features, drift_rows, fidelity_rows
from unskew.evaluate.quality_rows import quality_rows
from unskew.evaluate.representation import representation_rows
from unskew.evaluate.schema import (
    ArmSummary,
    AttributeSettings,
    Counts,
    ResultSettings,
    SuiteSettings,
)
from unskew.evaluate.schema import Margins as Margins
from unskew.evaluate.schema import Results as Results
from unskew.evaluate.schema import load_results as load_results
from unskew.runs import write_json_atomic


def summarise(
    readings: pd.DataFrame,
    plan: StudyPlan,
    control_features: Features | None = None,
    measured: Measured | None = None,
) -> Results:
    """The results of a study.

    `readings` is the table of readings.parquet, one row a picture and attribute. Drift is measured
    where `control_features` are given, and the pictures are judged as pictures where `measured` is.
    Raises UserError for a plan or readings that allow no
    answer: fewer than two seeds, readings of another study, too many unreadable pictures.
    """
    check_plan(plan)
    laid_out = lay_out(readings, plan)
    cells = {suite: with_intersections(part, plan) for suite, part in laid_out.items()}
    representation, unmeasured = representation_rows(plan, cells)
    fidelity = fidelity_rows(plan, cells)
    drift = drift_rows(plan, control_features) if control_features is not None else ()
    quality = quality_rows(plan, measured) if measured is not None else ()
    arms = {
        arm: ArmSummary(
            role="treated" if n else "baseline",
            counts=_counts(cells.values(), [n]),
            facts=dict(plan.arm_facts.get(arm, {})),
        )
        for n, arm in enumerate(plan.arms)
    }
    total = _counts(cells.values(), range(len(plan.arms)))
    return Results(
        status="complete" if total.generated == total.planned else "incomplete",
        baseline=plan.baseline,
        arms=arms,
        settings=_settings(plan, readings),
        counts=total,
        representation=representation,
        unmeasured=unmeasured,
        fidelity=fidelity,
        drift=drift,
        quality=quality,
        gate=judge_gate(representation, fidelity, drift, plan.gate, quality),
    )


def write_results(results: Results, path: Path) -> None:
    """Write `results.json` whole or not at all."""
    write_json_atomic(path, results.model_dump(mode="json"))


def _counts(suites: Iterable[SuiteCells], arms: Sequence[int]) -> Counts:
    drawn = [(cells.pictures[arms] >= 0, cells.unreadable[arms]) for cells in suites]
    return Counts(
        planned=sum(generated.size for generated, _ in drawn),
        generated=sum(int(generated.sum()) for generated, _ in drawn),
        readable=sum(int((generated & ~unreadable).sum()) for generated, unreadable in drawn),
    )


def _settings(plan: StudyPlan, readings: pd.DataFrame) -> ResultSettings:
    used = readings.drop_duplicates(["attribute", "classifier"])
    return ResultSettings(
        attributes={
            id: AttributeSettings(
                title=attribute.title,
                values=attribute.values,
                target=dict(zip(attribute.values, attribute.target.tolist(), strict=True)),
                caveat=attribute.caveat,
                classifiers=_readers(used, plan, id),
                folded_from=attribute.fold.attribute if attribute.fold else None,
                intersection_of=plan.intersections.get(id, ()),
            )
            for id, attribute in plan.attributes.items()
        },
        suites={
            suite: SuiteSettings(
                role=role,
                n_prompts=len(plan.prompts_of(suite)),
                n_seeds=plan.seeds[suite],
                fixed=suite in plan.fixed_suites,
            )
            for suite, role in plan.suite_roles.items()
        },
        primaries=plan.primaries,
        margins=plan.margins,
        resampling_seed=plan.resampling_seed,
        gate=plan.gate,
        study=dict(plan.settings),
    )


def _readers(used: pd.DataFrame, plan: StudyPlan, id: str) -> tuple[str, ...]:
    """The classifiers that read an attribute, or those that it is folded or combined from."""
    parts = [plan.attributes[part] for part in plan.intersections.get(id, (id,))]
    read = {part.id for part in parts} | {part.fold.attribute for part in parts if part.fold}
    return tuple(sorted(set(used["classifier"][used["attribute"].isin(read)])))

"""Does an arm's effect survive elsewhere: beside a style, at another sampler, at other guidance?

Each condition is a study of two arms in `elsewhere/NAME` of the comparison's folder: the baseline
and the arm, both drawn in that way, on the ranking's suite and seeds. So what the condition itself
does to pictures is in both, and the difference is the arm's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unskew.errors import UserError
from unskew.evaluate.boards import Board, board_of, difference_of_differences, differences
from unskew.evaluate.compare_options import CompareSettings
from unskew.evaluate.comparison import cells_of
from unskew.evaluate.gate_schema import GateSettings
from unskew.evaluate.inputs import Study
from unskew.evaluate.lineup import Lineup, beside_of
from unskew.evaluate.options import AdapterSettings, ArmSettings, StudySettings
from unskew.evaluate.representation import adjust_p
from unskew.evaluate.schema_comparison import Condition, Robustness
from unskew.evaluate.schema_model import Verdict
from unskew.evaluate.stats import change_verdict
from unskew.evaluate.study import Judged

FOLDER = "elsewhere"
TREATED = "treated"


@dataclass(frozen=True)
class Trial:
    """A condition before it is drawn."""

    name: str
    title: str
    study: StudySettings


def is_asked(settings: CompareSettings) -> bool:
    """Whether any condition is given."""
    asked = settings.robustness
    return bool(asked.beside or asked.samplers or asked.guidances)


def check_robustness(settings: CompareSettings, lineup: Lineup, several_processes: bool) -> None:
    """Raise UserError for conditions that cannot be drawn, before anything is."""
    if not is_asked(settings):
        return
    arm, study = settings.robustness.arm, lineup.study
    baseline = next(iter(study.arms))
    if arm and (arm not in study.arms or arm == baseline):
        others = ", ".join(name for name in study.arms if name != baseline)
        raise UserError(f"robustness.arm must be an arm but the baseline ({others}), got {arm!r}")
    undrawn = [name for name in (baseline, arm) if name and name not in study.drawn]
    if undrawn:
        raise UserError(
            f"robustness draws the baseline and an arm anew, but {undrawn[0]} is a folder of "
            "pictures: give arms that are drawn, or leave robustness out"
        )
    if several_processes:
        raise UserError(
            "robustness runs studies one after the other in one process: start the comparison "
            "without a launcher, or leave robustness out"
        )


def trials(
    settings: CompareSettings, lineup: Lineup, arm: str, suite: str, measured: Collection[str]
) -> tuple[Trial, ...]:
    """The conditions that are asked for, each as a study of baseline and arm on one suite.

    `measured` are the attributes that the suite's prompts have.
    """
    study = lineup.study
    baseline = next(iter(study.arms))
    shared = {
        "suites": {suite: study.suites[suite]},
        "primaries": tuple(p for p in study.primaries if p.partition("@")[2] == suite),
        "targets": {k: v for k, v in study.targets.items() if k.partition("@")[2] in ("", suite)},
        "intersections": tuple(i for i in study.intersections if set(i) <= set(measured)),
        "gate": GateSettings(),
        "relabel": False,
    }

    def trial(name: str, title: str, arms: Mapping[str, ArmSettings], **other: Any) -> Trial:
        update = {**shared, **other, "arms": dict(arms), "out": study.out / FOLDER / name}
        return Trial(name, title, study.model_copy(update=update))

    both = {baseline: study.arms[baseline], TREATED: study.arms[arm]}
    made = [
        trial(
            f"beside-{name}-{weight:g}",
            f"beside {name} at {weight:g}",
            {key: _with(own, lineup.sources[name], weight) for key, own in both.items()},
        )
        for name, weight in beside_of(settings)
    ]
    made += [
        trial(f"sampler-{name.replace('+', 'p')}", f"with sampler {name}", both, sampler=name)
        for name in settings.robustness.samplers
    ]
    made += [
        trial(f"guidance-{value:g}", f"at guidance {value:g}", both, guidance=value)
        for value in settings.robustness.guidances
    ]
    return tuple(made)


def try_elsewhere(
    made: Sequence[Trial],
    arm: str,
    here: Board,
    margin: float,
    run: Callable[[StudySettings, Callable[[Study, Judged], None]], object],
) -> Robustness:
    """Run every condition's study, and compare what the arm does there with what it does here.

    `run` carries a study out and calls back with what it found. Holm's correction runs over the
    conditions.
    """
    boards: list[Board] = []

    def keep(study: Study, judged: Judged) -> None:
        cells = cells_of(judged, study.plan)[here.suite]
        boards.append(board_of(study.plan, cells, here.suite, here.attributes))

    for one in made:
        run(one.study, keep)
    [mine] = [d for d in differences(here, margin) if (d.arm, d.against) == (arm, here.arms[0])]
    there = [differences(board, margin)[0].estimate for board in boards]
    adjusted = adjust_p([estimate.p_value for estimate in there], "holm")
    conditions = []
    for one, board, estimate, p in zip(made, boards, there, adjusted, strict=True):
        verdict = change_verdict(estimate, margin, p)
        less = difference_of_differences(here, arm, board)
        level = board.values_ac.mean(axis=1)
        conditions.append(
            Condition(
                name=one.name,
                title=one.title,
                folder=f"{FOLDER}/{one.name}",
                baseline=float(level[0]),
                treated=float(level[1]),
                change=estimate.value,
                ci95=(estimate.lo, estimate.hi),
                verdict=verdict,
                less=less.value if less else None,
                less_ci95=(less.lo, less.hi) if less else None,
                survives=_survives(verdict, estimate.lo, margin),
            )
        )
    return Robustness(
        arm=arm,
        change=mine.estimate.value,
        ci95=(mine.estimate.lo, mine.estimate.hi),
        conditions=tuple(conditions),
    )


def _survives(verdict: Verdict, low: float, margin: float) -> Literal["yes", "no", "not settled"]:
    if verdict == "improved":
        return "yes"
    return "no" if low > -margin else "not settled"


def _with(arm: ArmSettings, style: Path, weight: float) -> ArmSettings:
    """An arm that wears a style as well."""
    worn = (*arm.worn(), AdapterSettings(adapter=style, weight=weight))
    return arm.model_copy(update={"adapter": None, "weight": 1.0, "adapters": worn})

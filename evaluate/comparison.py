"""From a study of many arms to `comparison.json`: the leaderboard, every pair, what to take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from unskew.errors import UserError
from unskew.evaluate.boards import Board, Difference, board_of, differences, levels
from unskew.evaluate.cells import StudyPlan, SuiteCells, lay_out
from unskew.evaluate.intersections import with_intersections
from unskew.evaluate.lineup import Lineup
from unskew.evaluate.recommendation import recommend
from unskew.evaluate.report_words import overshooting
from unskew.evaluate.schema import DriftRow, FidelityRow, Results
from unskew.evaluate.schema_comparison import (
    Comparison,
    PairRow,
    Place,
    Point,
    Ranking,
    Weakest,
)
from unskew.evaluate.schema_model import Preserved
from unskew.evaluate.study import Judged

USUAL_SUITE = "held_out"
Cells = Mapping[str, SuiteCells]


def compare(judged: Judged, plan: StudyPlan, lineup: Lineup, rank_on: str) -> Comparison:
    """The comparison of a study's arms. Raises UserError where nothing can be ranked."""
    cells = cells_of(judged, plan)
    suite, attributes = ranked(plan, rank_on)
    boards = [board_of(plan, cells[suite], suite, attributes)]
    boards += [
        board_of(plan, cells[name], name, (attribute,))
        for name in neutral_suites(plan)
        for attribute in measured(plan, name)
        if (name, (attribute,)) != (suite, attributes)
    ]
    told = [(board, differences(board, plan.margins.imbalance)) for board in boards]
    board, decided = told[0]
    leaderboard = _leaderboard(judged.results, plan, lineup, board, decided)
    pairs = tuple(_pair(board, found) for board, own in told for found in own)
    sweeps = {
        name: tuple(Point(weight=weight, arm=arm) for weight, arm in points)
        for name, points in lineup.sweeps.items()
    }
    return Comparison(
        baseline=plan.baseline,
        ranking=Ranking(
            suite=suite,
            attributes=attributes,
            inference=board.unit.inference,
            n_prompts=board.n_prompts,
            n_clusters=board.unit.n_clusters,
            n_seeds=board.unit.n_seeds,
            left_out=board.left_out,
            margin=plan.margins.imbalance,
        ),
        leaderboard=leaderboard,
        pairs=pairs,
        sweeps=sweeps,
        recommendation=recommend(
            plan.baseline, leaderboard, decided, lineup.sweeps, lineup.total_weight
        ),
    )


def ranking_board(judged: Judged, plan: StudyPlan, rank_on: str) -> Board:
    """The board that decides the leaderboard."""
    suite, attributes = ranked(plan, rank_on)
    return board_of(plan, cells_of(judged, plan)[suite], suite, attributes)


def cells_of(judged: Judged, plan: StudyPlan) -> Cells:
    """A study's readings by suite and cell, with what is judged together."""
    laid_out = lay_out(judged.readings, plan)
    return {suite: with_intersections(part, plan) for suite, part in laid_out.items()}


def neutral_suites(plan: StudyPlan) -> tuple[str, ...]:
    """The suites on which representation must move, in the plan's order."""
    return tuple(suite for suite, role in plan.suite_roles.items() if role == "neutral")


def measured(plan: StudyPlan, suite: str) -> tuple[str, ...]:
    """The attributes that a suite measures; its primaries where it has any."""
    there = {a for prompt in plan.prompts_of(suite) for a in prompt.attributes}
    found = tuple(a for a in plan.attributes if a in there)
    return tuple(a for a in found if (a, suite) in plan.primaries) or found


def ranked(plan: StudyPlan, rank_on: str) -> tuple[str, tuple[str, ...]]:
    """(suite, attributes) that decide the leaderboard. Raises UserError where there are none."""
    suites = [suite for suite in neutral_suites(plan) if measured(plan, suite)]
    if not suites:
        raise UserError("suites must hold a neutral one to rank arms on; none is drawn")
    if rank_on and rank_on not in suites:
        raise UserError(
            f"rank_on must be a neutral suite that is drawn, got {rank_on!r} "
            f"(allowed: {', '.join(suites)})"
        )
    suite = rank_on or (USUAL_SUITE if USUAL_SUITE in suites else suites[0])
    return suite, measured(plan, suite)


def _pair(board: Board, found: Difference) -> PairRow:
    return PairRow(
        suite=board.suite,
        attributes=board.attributes,
        arm=found.arm,
        against=found.against,
        difference=found.estimate.value,
        ci95=(found.estimate.lo, found.estimate.hi),
        p_value=found.estimate.p_value,
        p_adjusted=found.p_adjusted,
        verdict=found.verdict,
    )


def _leaderboard(
    results: Results,
    plan: StudyPlan,
    lineup: Lineup,
    board: Board,
    decided: Sequence[Difference],
) -> tuple[Place, ...]:
    level = levels(board)
    ranks = ranks_of(board.arms, decided)
    ties: dict[str, list[str]] = {arm: [] for arm in board.arms}
    alike: dict[str, list[str]] = {arm: [] for arm in board.arms}
    for found in decided:
        if found.verdict in ("improved", "worsened"):
            continue
        for arm, other in ((found.arm, found.against), (found.against, found.arm)):
            ties[arm].append(other)
            if found.verdict == "no_change":
                alike[arm].append(other)
    drift = {arm: _drift(results, arm) for arm in board.arms}
    where = {
        arm: (float(level.value[n]), 0.0 if arm == plan.baseline else _value(drift[arm]))
        for n, arm in enumerate(board.arms)
    }
    places = [
        Place(
            arm=arm,
            title=lineup.titles.get(arm, arm),
            ranks=ranks[arm],
            ties=tuple(ties[arm]),
            alike=tuple(alike[arm]),
            imbalance=float(level.value[n]),
            ci95=(float(level.lo[n]), float(level.hi[n])),
            fidelity=_fidelity(results, arm),
            drift=drift[arm],
            overshoot=tuple(
                f"{row.attribute}@{row.suite}"
                for row in results.representation
                if row.arm == arm and row.treated and overshooting(row)
            ),
            flags=tuple(
                f"{row.suite}: {flag}"
                for row in results.quality
                if row.arm == arm
                for flag in row.flags
            ),
            front=_on_front(arm, where) if results.drift else None,
        )
        for n, arm in enumerate(board.arms)
    ]
    return tuple(sorted(places, key=lambda place: place.imbalance))


def ranks_of(arms: Sequence[str], decided: Sequence[Difference]) -> Mapping[str, tuple[int, int]]:
    """Each arm's best and worst possible rank, 1 the best, by the pairs that are settled.

    1 + the arms that are settled to be better, and all arms - those that are settled to be worse.
    Where all settled pairs are right together, which Holm's method makes so in 95 % of studies, all
    true ranks lie within theirs (Mogstad, Romano, Shaikh & Wilhelm 2024, Rev. Econ. Stud. 91:476).
    """
    better: Counter[str] = Counter()
    worse: Counter[str] = Counter()
    for found in decided:
        if found.verdict in ("improved", "worsened"):
            both = (found.arm, found.against)
            nearer, farther = both if found.verdict == "improved" else both[::-1]
            better[farther] += 1
            worse[nearer] += 1
    return {arm: (1 + better[arm], len(arms) - worse[arm]) for arm in arms}


def _value(drift: Weakest | None) -> float:
    return drift.value if drift else 0.0


def _on_front(arm: str, where: Mapping[str, tuple[float, float]]) -> bool:
    mine = where[arm]
    return not any(
        other[0] <= mine[0] and other[1] <= mine[1] and other != mine for other in where.values()
    )


def _fidelity(results: Results, arm: str) -> Weakest | None:
    rows = [row for row in results.fidelity if row.arm == arm and row.change and row.verdict]
    if not rows:
        return None

    def room(row: FidelityRow) -> float:
        return (row.change.ci95[0] if row.change else 0.0) + row.margin

    weakest = min(rows, key=room)
    assert weakest.change is not None
    return Weakest(
        name=f"{weakest.attribute}@{weakest.suite}",
        value=weakest.change.value,
        ci95=weakest.change.ci95,
        margin=weakest.margin,
        verdict=_all([row.verdict for row in rows]),
        n_rows=len(rows),
    )


def _drift(results: Results, arm: str) -> Weakest | None:
    rows = [row for row in results.drift if row.arm == arm]
    if not rows:
        return None

    def taken(row: DriftRow) -> float:
        return row.ci95[1] - row.margin

    weakest = max(rows, key=taken)
    return Weakest(
        name=f"drift@{weakest.suite}",
        value=weakest.excess,
        ci95=weakest.ci95,
        margin=weakest.margin,
        verdict=_all([row.verdict for row in rows]),
        n_rows=len(rows),
    )


def _all(verdicts: Sequence[str | None]) -> Preserved:
    if "lost" in verdicts:
        return "lost"
    return "kept" if all(verdict == "kept" for verdict in verdicts) else "inconclusive"

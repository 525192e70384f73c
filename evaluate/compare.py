"""Compare adapters side by side: many arms, the same prompts, the same noise, one leaderboard.

unskew compare                                        # Emoji World, after `unskew demo`
python evaluate/compare.py --config MINE.yaml
python evaluate/compare.py --adapters.ours.weights 0.5 1 --suites.held_out.seeds 3    # tiny
unskew compare blind --help                           # let people choose, unknowing
the same command again                                # draws only what is missing
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, redirect_stdout

from unskew.errors import UserError
from unskew.evaluate.blind_scores import blind_results
from unskew.evaluate.calibration import run_fingerprint
from unskew.evaluate.compare_options import CompareSettings
from unskew.evaluate.compare_page import PAGE, write_compare_page
from unskew.evaluate.comparison import compare, ranking_board
from unskew.evaluate.inputs import Study
from unskew.evaluate.lineup import Lineup, line_up
from unskew.evaluate.options import StudySettings
from unskew.evaluate.report_words import number
from unskew.evaluate.reuse import check_folders, take_drawn
from unskew.evaluate.robustness import check_robustness, is_asked, trials, try_elsewhere
from unskew.evaluate.schema_comparison import Comparison, Weakest, write_comparison
from unskew.evaluate.study import Judged, carry_out, run_dry
from unskew.processes import join_processes
from unskew.settings import Resolved, config_path, resolve, run_program


def main(argv: Sequence[str]) -> int:
    """Resolve the settings and compare; exit code 0, or 1 when the gate failed."""
    resolved = resolve(
        CompareSettings,
        argv,
        default_config=config_path("emoji/compare.yaml"),
        prog="unskew compare",
        description=(__doc__ or "").split("\n")[0],
    )
    lineup = check(resolved.settings)
    if resolved.dry_run:
        return run_dry(replaced(resolved, lineup.study))
    with redirect_stdout(sys.stderr) if resolved.json else nullcontext():
        found = run_comparison(resolved, lineup)
        if found is None:
            return 0
        comparison, passed = found
        print("\n".join(lines(comparison)))
        print(f"comparison: {lineup.study.out / PAGE}")
    if resolved.json:
        print(comparison.model_dump_json(indent=2))
    return 0 if passed is not False else 1


def check(settings: CompareSettings) -> Lineup:
    """The arms. Raises UserError for what cannot be compared, before anything is loaded."""
    lineup = line_up(settings)
    if len(lineup.study.arms) < 2:
        raise UserError(
            f"a comparison has two or more arms, got {list(lineup.study.arms)}: add to adapters, "
            "mixes or arms; `unskew audit` measures one"
        )
    check_robustness(settings, lineup, join_processes().count > 1)
    check_folders(settings.reuse)
    return lineup


def run_comparison(
    resolved: Resolved[CompareSettings], lineup: Lineup
) -> tuple[Comparison, bool | None] | None:
    """Draw what is missing, compare and write; the comparison and whether the gate passed.

    None in processes that only helped.
    """
    made: list[Comparison] = []

    def prepare(study: Study) -> None:
        for word in take_drawn(study, resolved.settings.reuse):
            print(word, file=sys.stderr)

    def conclude(study: Study, judged: Judged) -> None:
        made.append(_conclude(resolved, lineup, study, judged))

    judged = carry_out(replaced(resolved, lineup.study), "compare", prepare, conclude)
    return None if judged is None else (made[0], judged.results.gate.passed)


def replaced(resolved: Resolved[CompareSettings], study: StudySettings) -> Resolved[StudySettings]:
    """The same command with these settings of a study."""
    return Resolved(study, resolved.passed, resolved.config, resolved.dry_run, resolved.json)


def _conclude(
    resolved: Resolved[CompareSettings], lineup: Lineup, study: Study, judged: Judged
) -> Comparison:
    """Compute the comparison, try its arm elsewhere where that is asked for, write both files."""
    settings, out = resolved.settings, study.settings.out
    comparison = compare(judged, study.plan, lineup, settings.rank_on)
    chosen = blind_results(out, run_fingerprint(out))
    comparison = comparison.model_copy(update={"blind": chosen})
    arm = settings.robustness.arm or comparison.recommendation.arm
    if is_asked(settings) and arm is None:
        print("robustness: no arm is recommended, so none is tried elsewhere", file=sys.stderr)
    elif is_asked(settings) and arm is not None:
        board = ranking_board(judged, study.plan, settings.rank_on)

        def run(other: StudySettings, keep: Callable[[Study, Judged], None]) -> None:
            carry_out(replaced(resolved, other), "compare elsewhere", conclude=keep)

        write_comparison(comparison, out)  # what is known by now must not hang on the rest
        prompts = study.plan.prompts_of(board.suite)
        measured = {attribute for prompt in prompts for attribute in prompt.attributes}
        tried = try_elsewhere(
            trials(settings, lineup, arm, board.suite, measured),
            arm,
            board,
            study.plan.margins.imbalance,
            run,
        )
        comparison = comparison.model_copy(update={"robustness": tried})
    write_comparison(comparison, out)
    write_compare_page(out)
    return comparison


def lines(comparison: Comparison) -> Iterator[str]:
    """The leaderboard in words, then the recommendation."""
    ranking = comparison.ranking
    yield (
        f"imbalance of {' and '.join(ranking.attributes)} on {ranking.suite}, "
        f"{ranking.n_prompts} prompts x {ranking.n_seeds} seeds (0 = on target):"
    )
    titles = max(len(place.title) for place in comparison.leaderboard)
    for place in comparison.leaderboard:
        low, high = place.ci95
        yield (
            f"  rank {place.ranks_told:<8} {place.title:<{titles}}  "
            f"{number(place.imbalance)} ({number(low)} to {number(high)})"
            + _told("fidelity", place.fidelity)
            + _told("drift", place.drift)
        )
    yield "  (two ranks are the best and the worst that this study leaves open)"
    yield comparison.recommendation.sentence
    for condition in comparison.robustness.conditions if comparison.robustness else ():
        low, high = condition.ci95
        yield (
            f"{condition.title}: change {number(condition.change, sign=True)} ({number(low)} to "
            f"{number(high)}); survives: {condition.survives}"
        )


def _told(what: str, weakest: Weakest | None) -> str:
    return f", {what} {weakest.verdict}" if weakest else ""


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

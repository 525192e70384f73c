"""Compare adapters side by side: many arms, the same prompts, the same noise, one leaderboard.

unskew compare                                        # Emoji World, after `unskew demo`
python evaluate/compare.py --config MINE.yaml
python evaluate/compare.py --adapters.ours.weights 0.5 1 --suites.held_out.seeds 3    # tiny
the same command again                                # draws only what is missing
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, redirect_stdout

from unskew.errors import UserError
from unskew.evaluate.compare_options import CompareSettings, line_up
from unskew.evaluate.compare_page import PAGE, write_compare_page
from unskew.evaluate.comparison import compare
from unskew.evaluate.inputs import Study
from unskew.evaluate.report_words import number
from unskew.evaluate.schema_comparison import Comparison, Weakest, write_comparison
from unskew.evaluate.study import Judged, carry_out, run_dry
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
    settings = resolved.settings
    lineup = line_up(settings)
    if len(lineup.study.arms) < 2:
        raise UserError(
            f"a comparison has two or more arms, got {list(lineup.study.arms)}: add to adapters, "
            "mixes or arms; `unskew audit` measures one"
        )
    study = Resolved(
        lineup.study, resolved.passed, resolved.config, resolved.dry_run, resolved.json
    )
    if resolved.dry_run:
        return run_dry(study)
    made: list[Comparison] = []

    def conclude(study: Study, judged: Judged) -> None:
        comparison = compare(judged, study.plan, lineup, settings.rank_on)
        write_comparison(comparison, study.settings.out)
        write_compare_page(study.settings.out)
        made.append(comparison)

    with redirect_stdout(sys.stderr) if resolved.json else nullcontext():
        judged = carry_out(study, "compare", conclude=conclude)
        if judged is None:
            return 0
        print("\n".join(lines(made[0])))
        print(f"comparison: {lineup.study.out / PAGE}")
    if resolved.json:
        print(made[0].model_dump_json(indent=2))
    return 0 if judged.results.gate.passed is not False else 1


def lines(comparison: Comparison) -> Iterator[str]:
    """The leaderboard in words, then the recommendation."""
    ranking = comparison.ranking
    yield (
        f"imbalance of {' and '.join(ranking.attributes)} on {ranking.suite}, "
        f"{ranking.n_prompts} prompts x {ranking.n_seeds} seeds (0 = on target):"
    )
    for place in comparison.leaderboard:
        low, high = place.ci95
        ties = ", ".join(comparison.title(arm) for arm in place.ties)
        yield (
            f"  {place.rank}. {place.title}: {number(place.imbalance)} "
            f"({number(low)} to {number(high)})"
            + _told("fidelity", place.fidelity)
            + _told("drift", place.drift)
            + (f", tied with {ties}" if ties else "")
        )
    yield comparison.recommendation.sentence


def _told(what: str, weakest: Weakest | None) -> str:
    return f", {what} {weakest.verdict}" if weakest else ""


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

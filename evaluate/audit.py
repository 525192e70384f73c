"""Audit one arm: how skewed is this base, and which prompts most?

unskew audit                                          # Emoji World's base, after `unskew data`
python evaluate/audit.py --config configs/emoji/audit.yaml
python evaluate/audit.py --suites.trained.seeds 3     # tiny
python evaluate/audit.py --arms '{mine: {folder: pictures}}'   # pictures made elsewhere
the same command again                                # draws only what is missing
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from unskew.evaluate.options import check_one_arm
from unskew.evaluate.results import Results
from unskew.evaluate.study import StudySettings, run_study
from unskew.settings import config_path, resolve, run_program

WORST = 5
"""Prompts that are named of every attribute and suite."""


def main(argv: Sequence[str]) -> int:
    """Resolve the settings, run the study of one arm, and say where it is skewed most."""
    resolved = resolve(
        StudySettings,
        argv,
        default_config=config_path("emoji/audit.yaml"),
        prog="unskew audit",
        description=(__doc__ or "").split("\n")[0],
    )
    check_one_arm(resolved.settings)
    return run_study(resolved, "audit", skew_of)


def skew_of(results: Results) -> Iterator[str]:
    """Lines: the imbalance of every attribute and suite, and the prompts that have most of it."""
    for row in results.representation:
        arm = row.baseline
        low, high = arm.imbalance_ci95
        yield (
            f"{row.attribute} on {row.suite}: imbalance {arm.imbalance:.2f} "
            f"({low:.2f} to {high:.2f}; 0 = on target, 1 = as far as possible), "
            f"{row.n_prompts} prompts x {row.n_seeds} seeds"
        )
        known = [p for p in row.per_prompt if p.baseline.imbalance is not None]
        worst = sorted(known, key=lambda p: -(p.baseline.imbalance or 0.0))[:WORST]
        for prompt in worst:
            shares = ", ".join(f"{v} {s:.0%}" for v, s in prompt.baseline.shares.items())
            yield f"  {prompt.baseline.imbalance or 0:.2f}  {prompt.text[:60]!r}: {shares}"


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

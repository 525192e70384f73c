"""How long balancing takes: so many rows of metadata, by choosing and by weights.

    python scripts/bench_balance.py             # 100,000 rows, a minute at most
    python scripts/bench_balance.py 10000       # tiny

Prints a line of JSON for each: seconds of one core for splits, goals and balance, and for the whole
plan with captions, tables and card; the figures in docs/data.md are from here.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unskew.data.assembly import assemble
from unskew.data.assembly_options import AssemblySettings
from unskew.data.balance_choice import choose
from unskew.data.balance_weights import weigh
from unskew.data.rows import Row
from unskew.data.splits import split_rows
from unskew.data.targets import goals_of
from unskew.settings import run_program

SUBJECTS = 100
VALUES = {
    "presentation": ("woman", "man", "person"),
    "skin_tone": ("pale", "light", "tan", "brown", "dark"),
}
SHARES = {"presentation": (0.2, 0.7, 0.1), "skin_tone": (0.4, 0.25, 0.15, 0.12, 0.08)}


def main(argv: Sequence[str]) -> int:
    """Time both ways. Returns 0."""
    rows = made_up(_parser().parse_args(argv).rows)
    for by in ("choosing", "weights"):
        settings = AssemblySettings.model_validate(
            {
                "out": "runs/bench-balance",
                "balance": {"attributes": list(VALUES), "by": by},
                "splits": {"validation_share": 0.05, "held_out": ["subject 1"]},
            }
        )
        began = time.process_time()
        taken = balanced(rows, settings)
        balancing = time.process_time() - began
        began = time.process_time()
        plan = assemble(rows, (), settings)
        said = {
            "rows": len(rows),
            "by": by,
            "taken": taken,
            "balance_s": round(balancing, 2),
            "whole_plan_s": round(time.process_time() - began, 2),
            "captions": len(plan.folders[0].rows),
        }
        print(json.dumps(said), flush=True)
    return 0


def balanced(rows: Sequence[Row], settings: AssemblySettings) -> int:
    """Rows that are taken."""
    goals = goals_of(rows, settings.balance, {})
    splits = split_rows(rows, (), settings.splits, settings.seed)
    training = [row for row, split in zip(rows, splits, strict=True) if split == "train"]
    if settings.balance.by == "weights":
        return len(weigh(training, goals).uses)
    goals = {row.subject: goals[row.subject] for row in training}
    return len(choose(training, goals, settings.balance, settings.seed).uses)


def made_up(count: int) -> list[Row]:
    """Rows of skewed labels; every subject has every combination at least once."""
    rng = np.random.default_rng(0)
    drawn = {id: rng.choice(len(values), size=count, p=SHARES[id]) for id, values in VALUES.items()}
    cells = len(VALUES["presentation"]) * len(VALUES["skin_tone"])
    rows = []
    for n in range(count):
        subject, turn = n % max(1, min(SUBJECTS, count // cells)), n // SUBJECTS
        k = {id: int(drawn[id][n]) for id in VALUES}
        if turn < cells:
            k = {"presentation": turn // 5, "skin_tone": turn % 5}
        labels = {id: values[k[id]] for id, values in VALUES.items()}
        name = f"{n}.jpg"
        rows.append(
            Row(
                name,
                Path(name),
                f"subject {subject}",
                None,
                labels,
                "made up",
                "CC0-1.0",
                f"{n:064x}",
                suffix=".jpg",
                plain=True,
            )
        )
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench_balance.py", description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("rows", type=int, nargs="?", default=100_000, help="(default: 100000)")
    return parser


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

"""Prove a change: the base against the base with an adapter, same prompts, same noise.

unskew evaluate                                       # the Emoji World study, after `unskew train`
python evaluate/paired.py --config configs/emoji/study-quick.yaml
torchrun --nproc-per-node 2 evaluate/paired.py        # the same, dealt over two processes
python evaluate/paired.py --suites.trained.seeds 3    # tiny
python evaluate/paired.py --relabel --classifiers.exemplars.folder OTHER   # read again
the same command again                                # draws only what is missing
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from unskew.evaluate.options import check_several_arms
from unskew.evaluate.report_words import headline, sentence
from unskew.evaluate.results import Results
from unskew.evaluate.study import StudySettings, run_study
from unskew.evaluate.summary import measured, one_line
from unskew.settings import config_path, resolve, run_program


def main(argv: Sequence[str]) -> int:
    """Resolve the settings and run the study."""
    resolved = resolve(
        StudySettings,
        argv,
        default_config=config_path("emoji/study-quick.yaml"),
        prog="unskew evaluate",
        description=(__doc__ or "").split("\n")[0],
    )
    check_several_arms(resolved.settings)
    return run_study(resolved, "paired", verdicts_of)


def verdicts_of(results: Results) -> Iterator[str]:
    """Lines: what was found first of all, then a row for every comparison and check."""
    if row := headline(results):
        yield one_line(sentence(row, results))
    several = len(results.arms) > 2
    table = []
    for found in measured(results):
        where = f"{found.title}, {found.suite}" + f", {found.arm}" * several
        moved = f"{found.before} → {found.after}" if found.after else ""
        ended = ", overshoot" * found.overshoots + ", primary" * found.primary
        table.append((found.verdict, one_line(where), moved, found.change + ended))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
    yield "  (before → after, and the change with its 95 % interval)"


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

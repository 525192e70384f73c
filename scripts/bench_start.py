"""Measure how long `unskew` takes to answer: --help, --version, and each verb's --help.

python scripts/bench_start.py               # five fresh processes each; the bar is 1 s
python scripts/bench_start.py --repeats 1   # tiny
the same command again                      # measures again
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

from unskew.scripts.programs import PROGRAMS
from unskew.settings import run_program

BAR_S = 1.0


def main(argv: Sequence[str]) -> int:
    """Print median seconds and seconds of CPU; 1 when the slowest median is over the bar."""
    repeats = _parser().parse_args(list(argv)).repeats
    lines = [("--help",), ("--version",), *((verb, "--help") for verb in PROGRAMS)]
    slowest = 0.0
    print(f"{'unskew ...':<18} {'seconds':>8} {'of CPU':>8}   (medians of {repeats})")
    for words in lines:
        wall, cpu = zip(*(_seconds(words) for _ in range(repeats)), strict=True)
        slowest = max(slowest, median(wall))
        print(f"{' '.join(words):<18} {median(wall):>8.2f} {median(cpu):>8.2f}", flush=True)
    print(f"slowest {slowest:.2f} s, bar {BAR_S} s: {'holds' if slowest <= BAR_S else 'FAILS'}")
    return 0 if slowest <= BAR_S else 1


def _seconds(words: Sequence[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one fresh process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "unskew.scripts.cli", *words]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench_start.py", description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--repeats", type=int, default=5, help="processes a line (default: 5)")
    return parser


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

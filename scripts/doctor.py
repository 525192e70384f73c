"""Say what of Unskew works on this machine, and what to do about the rest.

unskew doctor              # tries each thing for real, half a minute
unskew doctor --quick      # leaves out compiling, which takes the most of it
unskew doctor --json       # the same for programs
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence

from unskew.settings import run_program


def main(argv: Sequence[str]) -> int:
    """Print what was found; 0, or 1 when something that Unskew cannot do without fails."""
    arguments = _parser().parse_args(list(argv))
    # here and not above, so that --help needs no torch
    findings = importlib.import_module("unskew.scripts.doctor_checks").examine(
        quick=arguments.quick
    )
    broken = [finding for finding in findings if finding.state == "fails" and finding.needed]
    if arguments.json:
        told = {
            "works": not broken,
            "findings": [dataclasses.asdict(finding) for finding in findings],
        }
        print(json.dumps(told, indent=2))
        return 1 if broken else 0
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{finding.state:<7} {finding.name:<{width}} {finding.found}")
        if finding.advice:
            print(f"{'':<7} {'':<{width}} -> {finding.advice}")
    print(f"\nUnskew {'does not work here' if broken else 'works here'}")
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unskew doctor", description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="do not try to compile")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    return parser


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

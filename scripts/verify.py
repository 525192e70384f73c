"""Check a published adapter: its files, its card, its formats, and that it draws what was studied.

unskew verify BUNDLE                     # redraws a small sample of the study's cells too
unskew verify BUNDLE --cells 0           # without drawing
unskew verify BUNDLE --base FOLDER       # where the base is in a folder here
unskew verify BUNDLE --json              # every check as JSON on stdout
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from unskew.errors import UserError
from unskew.scripts.bundle_schema import CHECKSUMS
from unskew.settings import run_program


def main(argv: Sequence[str]) -> int:
    """Do every check and tell each; 0 where all pass, 1 where one does not."""
    asked = _parser().parse_args(list(argv))
    folder: Path = asked.bundle
    if not (folder / CHECKSUMS).is_file():
        raise UserError(f"{folder} is no bundle: it has no {CHECKSUMS}; give the folder with it")
    # here and not above, so that --help needs no torch
    verify = importlib.import_module("unskew.scripts.verify_checks").verify
    checks = []
    for check in verify(folder, asked.cells, asked.base, asked.base_config):
        checks.append(check)
        out = sys.stderr if asked.json else sys.stdout
        state = "FAILED" if check.problems else "ok"
        print(f"{state}: {check.name}: {check.said}", file=out, flush=True)
        for problem in check.problems:
            print(f"  {problem}", file=out)
    passed = not any(check.problems for check in checks)
    if asked.json:
        told = {"passed": passed, "checks": [asdict(check) for check in checks]}
        print(json.dumps(told, indent=2))
    return 0 if passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unskew verify", description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a published adapter's folder")
    parser.add_argument(
        "--cells",
        type=_count,
        default=8,
        metavar="N",
        help="pictures of each arm to draw again, rounded up to whole batches; 0 draws none "
        "(default: 8)",
    )
    parser.add_argument(
        "--base",
        metavar="BASE",
        help="the base, where it is not to be had under the name in the card: as unskew train "
        "takes it",
    )
    parser.add_argument(
        "--base_config",
        type=Path,
        metavar="FOLDER",
        help="how a base of one file is put together, as unskew train takes it; best with the "
        "diffusers version of training.json, which such a base's hash hangs on",
    )
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    return parser


def _count(word: str) -> int:
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer >= 0, got {word}")
    return int(word)


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

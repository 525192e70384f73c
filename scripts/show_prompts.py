"""Show what prompt files expand to: every prompt with what is asked and wanted, and what is odd.

unskew prompts show prompts/occupations.yaml prompts/controls.yaml
unskew prompts show MINE.yaml --suite held_out --json
python scripts/show_prompts.py show prompts/article.yaml      # the same, run as a file
"""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from unskew.attributes import SUBJECT, Attribute, load_attribute
from unskew.prompts import Prompt, Suite, load_suites, prompt_file
from unskew.settings import run_program
from unskew.wording import naming_words, near_duplicates

COLUMNS = ("suite", "role", "id", "text", "attributes", "asked", "target")
WIDEST = 64
"""Characters of a cell; --json prints all of it."""


def main(argv: Sequence[str]) -> int:
    """Print the expansion as a table, or as JSON; warnings go to stderr and change no exit code."""
    arguments = _parser().parse_args(list(argv))
    files = [prompt_file(path) for path in arguments.files]
    suites = load_suites(files, arguments.suite)
    warnings = list(_warnings(suites))
    if arguments.json:
        shown = {
            "prompts": [_row(suite, prompt) for suite in suites for prompt in suite.prompts],
            "counts": _counts(suites),
            "warnings": warnings,
        }
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return 0
    _print_table([_row(suite, prompt) for suite in suites for prompt in suite.prompts])
    print()
    for name, count in _counts(suites).items():
        print(
            f"{name} ({count['role']}): {count['prompts']} prompts of {count['subjects']} subjects"
        )
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unskew prompts", description=(__doc__ or "").splitlines()[0]
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="show")
    show = verbs.add_parser("show", help="print every prompt of these files")
    show.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a YAML file of suites")
    show.add_argument("--suite", action="append", metavar="NAME", help="only this suite")
    show.add_argument("--json", action="store_true", help="print JSON on stdout")
    return parser


def _row(suite: Suite, prompt: Prompt) -> dict[str, Any]:
    return {
        "suite": suite.name,
        "role": suite.role,
        "id": prompt.id,
        "subject": prompt.subject,
        "text": prompt.text,
        "attributes": list(prompt.attributes),
        "asked": {id: value for id, value in prompt.asked.items() if id != SUBJECT},
        "target": {id: _target(prompt, id) for id in prompt.attributes},
    }


def _target(prompt: Prompt, id: str) -> dict[str, float]:
    attribute = _attribute(id)
    shares = prompt.targets.get(id, attribute.target)
    return {v: round(float(s), 4) for v, s in zip(attribute.values, shares, strict=True)}


@cache
def _attribute(id: str) -> Attribute:
    return load_attribute(id)


def _counts(suites: Sequence[Suite]) -> dict[str, dict[str, Any]]:
    return {
        suite.name: {
            "role": suite.role,
            "prompts": len(suite.prompts),
            "subjects": len({prompt.subject for prompt in suite.prompts}),
        }
        for suite in suites
    }


def _warnings(suites: Sequence[Suite]) -> Iterator[str]:
    for one, other in near_duplicates(suites):
        yield (
            f"{_plain(one.text)!r} in {one.suite} and {_plain(other.text)!r} in {other.suite} "
            "say the same"
        )
    for prompt, attribute, value, word in naming_words(suites):
        yield (
            f"{_plain(prompt.text)!r} in {prompt.suite} is neutral, but {word!r} names "
            f"{attribute} = {value}"
        )


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    lines = [COLUMNS, *(tuple(_cell(row[column]) for column in COLUMNS) for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (c + " " * (w - _width(c)) for c, w in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        parts = [f"{key}: {_shares(part)}" for key, part in value.items()]
        return _plain("; ".join(parts)) or "-"
    return _plain(", ".join(value) if isinstance(value, list) else str(value)) or "-"


def _shares(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    if len(set(value.values())) == 1:
        return "uniform"
    return ", ".join(f"{name} {share:g}" for name, share in value.items())


def _plain(text: str) -> str:
    """Text that moves no cursor and turns no line: control and format characters written out."""
    kept = "".join(
        char if unicodedata.category(char)[0] != "C" else f"\\u{ord(char):04x}" for char in text
    )
    return kept if len(kept) <= WIDEST else f"{kept[: WIDEST - 1]}…"


def _width(text: str) -> int:
    """Columns of a terminal."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(bool(unicodedata.combining(char)) for char in text)


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

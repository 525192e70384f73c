"""The commands that a reader of the pages would type."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from unskew.scripts.programs import PROGRAMS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
STARTS = ("unskew ", "python ", "accelerate launch ", "torchrun ", "scripts/", ".ci/")
PLACEHOLDER = re.compile(r"--config (MINE|FILE|X|mine|my-photos)\S*|\.\.\.|…")


def commands_of(page: Path) -> Iterator[str]:
    """Lines of fenced blocks, and words in backticks, that look like commands of ours."""
    text = page.read_text("utf-8")
    for block in re.findall(r"^ *```(?:\w*)\n(.*?)^ *```", text, re.M | re.S):
        yield from (line.strip() for line in block.replace("\\\n", " ").splitlines())
    inline = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    yield from (" ".join(words.split()) for words in re.findall(r"(?<!`)`([^`]+)`(?!`)", inline))


def commands_in(module: str) -> Iterator[str]:
    """The lines of a program's docstring that look like commands of ours."""
    text = (ROOT / f"{module.removeprefix('unskew.').replace('.', '/')}.py").read_text("utf-8")
    told = ast.get_docstring(ast.parse(text)) or ""
    yield from (line.strip() for line in told.splitlines())


FOUND = [
    *((page.name, command) for page in PAGES for command in commands_of(page)),
    *((row.module, command) for row in PROGRAMS.values() for command in commands_in(row.module)),
]
COMMANDS = sorted(
    {
        (where, command)
        for where, command in FOUND
        if command.startswith(STARTS) and not re.search(r"VERB|\{\w+,|\| |launch --cpu", command)
    }
)


def words_of(command: str) -> list[str]:
    """The words, without comment, placeholders and what follows a redirection or a pipe."""
    words = shlex.split(PLACEHOLDER.sub("", command), comments=True)
    ends = [n for n, word in enumerate(words) if word in ("|", "||", "&&", ">", ">>")]
    return words[: ends[0]] if ends else words

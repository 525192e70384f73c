"""Promises of the pages: every command on them is one, every public name has its place."""

from __future__ import annotations

import ast
import contextlib
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

import unskew
from unskew.scripts.programs import PROGRAMS, chosen, settings_model
from unskew.settings import config_path, resolve

ROOT = Path(__file__).parents[2]
VERB_OF = {row.module.removeprefix("unskew."): verb for verb, row in PROGRAMS.items()}
pages = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "oracles" / "page_commands.py")))


def check_verb(verb: str, words: Sequence[str]) -> None:
    """The verb is known and takes these options, checked by its own settings."""
    if verb in ("--help", "--version"):
        return
    assert verb in PROGRAMS
    row = PROGRAMS[verb]
    if not row.settings:
        known = {*row.options, "--help"}
        assert {word for word in words if word.startswith("--")} <= known
        return
    while words and not words[0].startswith("-"):  # what verbs take before their options
        words = words[1:]
    with contextlib.suppress(*[SystemExit] * ("--help" in words)):
        resolve(
            settings_model(verb),
            words,
            default_config=config_path(row.config),
            prog=f"unskew {verb}",
            description="A page's command.",
        )


def check_file(words: list[str]) -> None:
    """A program of ours that runs as a file: it is there, and takes these options."""
    file, options = next((ROOT / w, words[n + 1 :]) for n, w in enumerate(words) if ".py" in w)
    assert file.is_file()
    module = file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    if module in VERB_OF:
        check_verb(VERB_OF[module], options)
        return
    said = file.read_text("utf-8")
    imported = [f"{ROOT}/{'/'.join(m.split('.')[1:])}.py" for m in _own_imports(said)]
    said += "".join(Path(name).read_text("utf-8") for name in imported if Path(name).is_file())
    for option in (word for word in options if word.startswith("--")):
        assert option[2:].split(".")[-1].split("=")[0] in said, option


def _own_imports(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("unskew."):
            yield str(node.module)


@pytest.mark.parametrize(("where", "command"), pages.COMMANDS)
def test_every_command_that_is_told_is_one(where: str, command: str) -> None:
    """A reader can type it: program, verb, settings and their values are taken as they stand."""
    words = pages.words_of(command)
    if words[0] == "unskew":
        check_verb(*chosen(words[1:]))
    elif words[0] in ("python", "accelerate", "torchrun"):
        if "-c" not in words and "-m" not in words:
            check_file(words[1:])
        for name in (words[n + 1] for n, word in enumerate(words) if word == "--config_file"):
            assert (ROOT / name).is_file()
    else:
        assert (ROOT / words[0].rstrip("/")).exists()


def test_commands_are_found() -> None:
    """So that the test above could fail: the quick start alone has several of each kind."""
    quick = [command for where, command in pages.COMMANDS if where == "quick-start.md"]
    assert any(command.startswith("unskew evaluate") for command in quick)
    assert any(command.startswith("accelerate launch") for command in quick)
    with pytest.raises(Exception, match="there is no option --stepz"):
        check_verb("train", ["--stepz", "3"])


def test_the_reference_has_every_public_name() -> None:
    """What `import unskew` offers stands in the reference, with a docstring to show."""
    said = (ROOT / "docs" / "python-reference.md").read_text("utf-8")
    for name in set(unskew.__all__) - {"StudyKeywords", "CompareKeywords"}:
        assert f"unskew.{name}" in said
    assert "`StudyKeywords`" in said and "`CompareKeywords`" in said


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Every link between pages and to files leads somewhere; scripts/docs reads modules too."""
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-q",
        "-t",
        "short",
        "-b",
        "html",
        "docs",
        str(tmp_path),
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    reference = (tmp_path / "python-reference.html").read_text("utf-8")
    assert "Measure two arms or more on the same prompts" in reference

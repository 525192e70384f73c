"""Promises of the `unskew` command: quick to answer, exact about what went wrong."""

import ast
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from unskew.errors import UserError
from unskew.scripts import cli
from unskew.scripts.programs import PROGRAMS, Program


@pytest.mark.parametrize("verb", PROGRAMS)
def test_every_verb_is_a_program(verb: str) -> None:
    """Each verb's module exists, has main(argv), and runs as a file with the same exit codes."""
    spec = importlib.util.find_spec(PROGRAMS[verb].module)
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).read_text("utf-8")
    main = next(
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    assert [argument.arg for argument in main.args.args] == ["argv"]
    assert "sys.exit(run_program(main, sys.argv[1:]))" in text


def test_the_console_command_is_the_table() -> None:
    """What pip installs as `unskew` is this table of verbs."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="unskew")
    assert entry.load() is cli.main


@pytest.mark.parametrize(
    ("verb", "hint"),
    [
        ("trian", "; perhaps you meant train"),
        ("--verison", "; perhaps you meant --version"),
        ("banana", " (verbs: demo, data, "),
    ],
)
def test_an_unknown_verb_is_wrong_use(
    verb: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, with the near one or all of them."""
    assert cli.main([verb, "--steps", "3"]) == 2
    assert f"there is no verb {verb}{hint}" in capsys.readouterr().err


def test_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    """--version names the version that is installed."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"unskew {importlib.metadata.version('unskew')}")


def test_a_verb_gets_its_words_and_gives_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The words after the verb reach its main; its code comes back; errors become codes."""
    program = ModuleType("program")

    def main(argv: Sequence[str]) -> int:
        if not argv:
            raise UserError("nothing was given")
        return len(argv)

    program.main = main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "program", program)
    monkeypatch.setitem(PROGRAMS, "data", Program("program", ""))
    assert cli.main(["data", "one"]) == 1
    assert cli.main(["data"]) == 2
    assert capsys.readouterr().err == "error: nothing was given\n"

"""Promises of help and completion: quick, whole, and the same as the programs' own."""

import contextlib
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unskew.schema import names, schema_of
from unskew.scripts import cli, completion
from unskew.scripts.programs import PROGRAMS, settings_model
from unskew.settings import config_path
from unskew.yaml_files import read_yaml

WITH_SETTINGS = [verb for verb, row in PROGRAMS.items() if row.settings]
OTHERS = [verb for verb, row in PROGRAMS.items() if not row.settings]
HELP_OF_ALL = """
import contextlib, io, json, sys
from unskew.scripts.cli import main
from unskew.scripts.programs import PROGRAMS
said = {}
for words in [["--help"], *([verb, "--help"] for verb in PROGRAMS)]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main(words)
    heavy = {"torch", "diffusers", "transformers", "pandas", "scipy"} & set(sys.modules)
    said[words[0]] = [out.getvalue(), sorted(heavy)]
print(json.dumps(said))
"""


def help_of(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main([verb, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_of_no_verb_loads_what_it_works_with() -> None:
    """Help of every verb comes without torch, diffusers, transformers, pandas and scipy."""
    command = [sys.executable, "-c", HELP_OF_ALL]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(ran.stdout)
    assert {words: heavy for words, (_, heavy) in said.items() if heavy} == {}
    assert all(f"\n  {verb} " in said["--help"][0] for verb in PROGRAMS)
    assert all(f"usage: unskew {verb}" in said[verb][0] for verb in PROGRAMS)


@pytest.mark.parametrize("verb", WITH_SETTINGS)
def test_help_is_the_programs_own(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The table names the same model, file and words as the program itself."""
    quick = help_of(verb, capsys)
    with pytest.raises(SystemExit):
        importlib.import_module(PROGRAMS[verb].module).main(["--help"])
    assert quick == capsys.readouterr().out


@pytest.mark.parametrize("verb", OTHERS)
def test_the_table_knows_the_options(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What completion offers of a program without settings stands in its help."""
    words = [*([PROGRAMS[verb].words[0]] if verb == "prompts" else []), "--help"]
    with contextlib.suppress(SystemExit):  # argparse ends so
        cli.main([verb, *words])
    said = capsys.readouterr().out
    assert all(word in said for word in (*PROGRAMS[verb].options, *PROGRAMS[verb].words))


def test_a_wrong_config_is_said_by_help_too(capsys: pytest.CaptureFixture[str]) -> None:
    """--help shows the values of the file that is named, so the file must be there."""
    assert cli.main(["train", "--config", "nowhere.yaml", "--help"]) == 2
    assert "nowhere.yaml is no file" in capsys.readouterr().err


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    ask = (
        f"source {script}; COMP_WORDS=(unskew {line}); COMP_CWORD={len(words)}; _unskew; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = [shutil.which("bash") or "bash", "-c", ask]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "unskew.bash"
    options = {verb: completion.options_of(verb) for verb in PROGRAMS}
    file.write_text(completion.bash(options), "utf-8")
    return file


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("tr",), ["train"]),
        (("prompts", ""), ["show", "--suite", "--json", "--help"]),
        (("train", "--lora.r"), ["--lora.rank"]),
        (("train", "--dtype", ""), ["auto", "bf16", "fp16", "fp32"]),
        (("evaluate", "--dry"), ["--dry_run"]),
        (("train", "--steps", ""), []),
        (("train", "--dry_run", "--lora.rank", "8", "--lora.al"), ["--lora.alpha"]),
    ],
)
def test_bash_completes(script: Path, words: tuple[str, ...], offered: list[str]) -> None:
    """Verbs, their settings by dotted name, and the values of those that have a closed list."""
    assert completed(script, *words) == offered


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_setting_is_in_the_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No setting of any verb is left out, in any shell."""
    assert completion.main([shell]) == 0
    said = capsys.readouterr().out
    for verb in WITH_SETTINGS:
        values = read_yaml(config_path(PROGRAMS[verb].config), "settings file")
        options = names(schema_of(settings_model(verb)), values)
        assert options
        assert not [name for name in options if name not in said]


def test_another_shell_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    """A shell that is not known is answered with those that are."""
    assert cli.main(["completion", "tcsh"]) == 2
    assert "bash or zsh or fish, got tcsh" in capsys.readouterr().err

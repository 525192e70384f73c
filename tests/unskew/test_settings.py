"""Promises of settings: the YAML, the command line over it, and every error at once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import hypothesis
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unskew.errors import UserError
from unskew.settings import (
    Resolved,
    Settings,
    config_path,
    resolve,
    run_program,
    write_schema,
)


class Lora(Settings):
    """How the adapter is built."""

    rank: int = pydantic.Field(16, ge=1)
    """Rank of both matrices, >= 1."""
    alpha: float | None = None
    """Scale times rank; null means the rank."""
    target_modules: tuple[str, ...] = ("to_q",)
    """Which layers."""


class Training(Settings):
    """A program's settings, with every kind of field that programs use."""

    lora: Lora
    """The adapter."""
    out: Path
    """Run folder."""
    precision: Literal["fp32", "bf16", "auto"]
    """Precision of the base."""
    learning_rate: float = pydantic.Field(1e-3, gt=0)
    """Highest rate."""
    resume: Literal["auto", "never"] | Path = "auto"
    """Where to go on from."""
    seeds: int | tuple[int, ...] = 3
    """How many, or which."""
    limit: int | None = None
    """At most so many; null means all."""
    weights: dict[str, float] = {}
    """Suite -> weight."""
    targets: dict[str, dict[str, float]] = {}
    """Attribute -> value -> share."""
    arms: tuple[Lora, ...] = ()
    """Adapters to compare."""
    by_name: dict[str, Lora] = {}
    """Adapters with names."""
    gate: bool = False
    """Whether the exit code says the verdict."""

    @pydantic.model_validator(mode="after")
    def _gate_needs_two_arms(self) -> "Training":
        if self.gate and len(self.arms) == 1:
            raise ValueError("gate needs two arms")
        return self


GOOD = """
lora: {rank: 8}
out: runs/x
precision: fp32
learning_rate: 1e-4
weights: {trained: 1, held-out_2: 2}
arms: [{rank: 2}, {rank: 4}]
by_name: {must-not_change: {rank: 3}}
"""
WEIGHTS = {"trained": 1, "held-out_2": 2}


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., Resolved[Training]]:
    """Resolve command line words over YAML text."""

    def ask(*argv: str, text: str = GOOD) -> Resolved[Training]:
        file = tmp_path / "train.yaml"
        file.write_text(text)
        return resolve(
            Training, argv, default_config=file, prog="unskew train", description="Train."
        )

    return ask


Ask = Callable[..., Resolved[Training]]


def problems(ask: Ask, *argv: str, text: str = GOOD) -> list[str]:
    with pytest.raises(UserError) as error:
        ask(*argv, text=text)
    return [line.strip() for line in str(error.value).splitlines()[1:]]


def test_the_file_alone_is_enough(asked: Ask) -> None:
    """Without words the YAML's values hold, with 1e-4 read as the number that it is."""
    resolved = asked()
    assert resolved.settings.lora.rank == 8
    assert resolved.settings.learning_rate == 1e-4
    assert resolved.settings.out == Path("runs/x")
    assert (resolved.passed, resolved.dry_run, resolved.json) == ((), False, False)


def test_the_command_line_wins_and_is_remembered(asked: Ask) -> None:
    """Named settings change, all others stay, and `passed` lists the named ones."""
    words = "--lora.rank 4 --arms.1.alpha=2.5 --gate --by_name.must-not_change.rank 6"
    resolved = asked(*words.split(), "--dry-run", "--json")
    assert set(resolved.passed) == {
        "lora.rank",
        "arms.1.alpha",
        "gate",
        "by_name.must-not_change.rank",
    }
    assert (resolved.dry_run, resolved.json) == (True, True)
    plain = asked().settings.model_dump()
    plain["lora"]["rank"], plain["arms"][1]["alpha"], plain["gate"] = 4, 2.5, True
    plain["by_name"]["must-not_change"]["rank"] = 6
    assert resolved.settings.model_dump() == plain


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--resume", "never"], "resume", "never"),
        (["--resume", "runs/x/checkpoints/step-1"], "resume", Path("runs/x/checkpoints/step-1")),
        (["--seeds", "5"], "seeds", 5),
        (["--seeds", "5", "-6"], "seeds", (5, -6)),
        (["--seeds", "[5, 6]"], "seeds", (5, 6)),
        (["--limit", "7"], "limit", 7),
        (["--limit", "null"], "limit", None),
        (["--weights", "{trained: 0.5}"], "weights", {"trained": 0.5}),
        (
            ["--weights.trained=0.5", "--weights.new", "-3"],
            "weights",
            {**WEIGHTS, "trained": 0.5, "new": -3},
        ),
        (["--targets.presentation", "{woman: 1}"], "targets", {"presentation": {"woman": 1}}),
        (["--targets.presentation.woman", "0.5"], "targets", {"presentation": {"woman": 0.5}}),
        (["--gate", "false"], "gate", False),
        (["--learning-rate", "2e-5"], "learning_rate", 2e-5),
        (["--learning_rate=3", "--learning_rate=4"], "learning_rate", 4.0),
    ],
)
def test_every_kind_of_value_can_be_given(
    asked: Ask, words: list[str], name: str, value: object
) -> None:
    """Unions, lists, null, mappings, flags and paths come in as what they are."""
    assert getattr(asked(*words).settings, name) == value


@hypothesis.settings(max_examples=25)
@given(rank=st.integers(1, 10**6), alpha=st.none() | st.floats(-1e6, 1e6), out=st.text("ab/. "))
def test_what_is_given_is_what_arrives(
    rank: int, alpha: float | None, out: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any number or path written as an option is read back as the same value."""
    file = tmp_path_factory.mktemp("settings") / "train.yaml"
    file.write_text(GOOD)
    words = [f"--lora.rank={rank}", "--lora.alpha", json.dumps(alpha), f"--out={out}x"]
    settings = resolve(Training, words, default_config=file, prog="p", description="d").settings
    assert settings.lora == Lora(rank=rank, alpha=alpha)
    assert settings.out == Path(f"{out}x")


def test_help_shows_the_files_values_and_the_docstrings(
    asked: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """--help prints what would be used now, what else is allowed, and what it means; exit 0."""
    with pytest.raises(SystemExit) as end:
        asked("--help")
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--lora.rank INTEGER>=1 Rank of both matrices, >= 1. (default: 8)" in text
    assert "--precision {fp32,bf16,auto} Precision of the base. (default: fp32)" in text
    assert "--learning_rate NUMBER>0 Highest rate. (default: 0.0001)" in text
    assert "--lora.target_modules TEXT ... Which layers. (default: to_q)" in text
    assert "--arms.1.rank" in text


def test_all_errors_of_a_file_come_at_once(asked: Ask, tmp_path: Path) -> None:
    """Each has its dotted path, what is allowed, what was given, and the file."""
    text = """
lora: {rank: 0, alfa: 3, target_modules: to_q}
precision: no
learning_rate: quick
seeds: [1, b]
weights: {trained: heavy}
arms: [{rank: 1}, 4]
"""
    file = f"({tmp_path / 'train.yaml'})"
    assert set(problems(asked, text=text)) == {
        f"lora.rank must be an integer >= 1, got 0 {file}",
        f"lora.alfa is no setting; perhaps you meant lora.alpha {file}",
        f"lora.target_modules must be a list (each text), got to_q {file}",
        f"out must be given: a path {file}",
        f"precision must be fp32 or bf16 or auto, got false: quote it to make it text {file}",
        f"learning_rate must be a number > 0, got quick {file}",
        f'seeds must be an integer or a list (each an integer), got [1, "b"] {file}',
        f"weights.trained must be a number, got heavy {file}",
        f"arms.1 must be a mapping, got 4 {file}",
    }


def test_all_errors_of_the_command_line_come_at_once(asked: Ask) -> None:
    """Wrong values, missing values and unknown options are listed together."""
    words = "--lora.rank 0 --precision no --limit --lora.target 3 --banana --dry-run maybe"
    words += " --weights.new heavy --by_name.other.rank 3"
    assert set(problems(asked, *words.split())) == {
        "lora.rank must be an integer >= 1, got 0 (command line)",
        "precision must be fp32 or bf16 or auto, got no (command line)",
        "limit must be an integer or null, got nothing (command line)",
        "there is no option --lora.target; perhaps you meant --lora.target_modules (command line)",
        "there is no option --banana (command line)",
        "weights.new must be a number, got heavy (command line)",
        "there is no option --by_name.other.rank; perhaps you meant "
        "--by_name.must-not_change.rank (command line)",
        "dry_run must be true or false, got maybe (command line)",
    }


def test_errors_of_file_and_command_line_come_together(asked: Ask) -> None:
    """A value from the command line mends the file's, and each error says where it stands."""
    text = "lora: {rank: 0, alpha: x}\nprecision: fp32\n"
    found = problems(asked, "--lora.rank", "3", "--seeds", "x", text=text)
    assert [problem.split(" ")[0] for problem in found] == ["lora.alpha", "out", "seeds"]
    assert found[-1].endswith("(command line)")
    assert "train.yaml" in found[0]


def test_what_settings_must_be_together_is_checked_on_the_whole(asked: Ask) -> None:
    """A rule over several fields is asked of file and command line together."""
    assert asked("--gate").settings.gate
    text = GOOD.replace("{rank: 2}, ", "")
    assert problems(asked, "--gate", text=text)[0].startswith("gate needs two arms")


@pytest.mark.parametrize("word", ["yes", "no", "on", "true"])
def test_a_yaml_switch_is_no_number(asked: Ask, word: str) -> None:
    """`rank: yes` is not rank 1."""
    found = problems(asked, text=GOOD.replace("rank: 8", f"rank: {word}"))
    assert len(found) == 1
    assert found[0].startswith("lora.rank must be an integer >= 1, got ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out: [", "is no YAML"),
        ("- a\n- b", "must be a mapping, got list"),
        ("out: a\nout: b", "out stands twice"),
        ("lora: {rank: 1, rank: 2}", "rank stands twice"),
        ("lora: [1, 2]", "lora must be a mapping"),
        ("out: !!python/object/apply:os.getcwd []", "is no YAML"),
    ],
)
def test_a_broken_file_is_an_error_and_runs_nothing(asked: Ask, text: str, message: str) -> None:
    """YAML's traps are errors: a key given twice, a list, a tag that would run code."""
    with pytest.raises(UserError, match=message):
        asked(text=text)


def test_another_file_can_be_named(asked: Ask, tmp_path: Path) -> None:
    """--config takes a path; a missing one is an error that names what there is."""
    other = tmp_path / "other.yaml"
    other.write_text(GOOD.replace("rank: 8", "rank: 5"))
    resolved = asked("--config", str(other))
    assert (resolved.settings.lora.rank, resolved.config) == (5, other)
    for words in (["--config", "missing.yaml"], ["--config=missing.yaml"], ["--config"]):
        with pytest.raises(UserError, match="is no file") as error:
            asked(*words)
        assert "attributes/presentation.yaml" in str(error.value)


def test_unskews_own_files_are_found_by_name(asked: Ask) -> None:
    """A packaged settings file needs no path, wherever Unskew is installed."""
    name = "attributes/presentation.yaml"
    assert config_path(name).is_file()
    with pytest.raises(UserError) as error:
        asked("--config", name)
    assert f"caveat is no setting ({config_path(name)})" in str(error.value)


def test_settings_cannot_be_changed(asked: Ask) -> None:
    """What a run was asked stays what it was asked."""
    with pytest.raises(pydantic.ValidationError):
        asked().settings.lora.rank = 3  # type: ignore[misc]


def test_editors_get_the_docstrings(tmp_path: Path) -> None:
    """The schema written for editors carries types and descriptions."""
    write_schema(Training, tmp_path / "train.json")
    schema = json.loads((tmp_path / "train.json").read_text())
    assert schema["properties"]["seeds"]["description"] == "How many, or which."
    assert schema["additionalProperties"] is False


def _raises(error: BaseException) -> Callable[[Sequence[str]], int]:
    def main(argv: Sequence[str]) -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code", "said"),
    [
        (lambda argv: 0, 0, ""),
        (lambda argv: 1, 1, ""),
        (_raises(UserError("lora.rank must be >= 1")), 2, "error: lora.rank must be >= 1\n"),
        (_raises(KeyboardInterrupt()), 130, ""),
    ],
)
def test_exit_codes_say_how_it_ended(
    main: Callable[[Sequence[str]], int], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 and 1 are the program's, 2 is the user's to mend in one plain message, 130 is Ctrl-C."""
    assert run_program(main, []) == code
    assert capsys.readouterr().err == said


def test_a_crash_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    """A defect of ours ends in 70 with its traceback."""
    assert run_program(_raises(ZeroDivisionError("x")), []) == 70
    assert "ZeroDivisionError: x" in capsys.readouterr().err


def test_sigterm_ends_in_143() -> None:
    """Termination is told apart from Ctrl-C."""

    def main(argv: Sequence[str]) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
        return 0

    assert run_program(main, []) == 143


def test_a_list_that_is_given_twice_is_refused(asked: Ask) -> None:
    """The first of both would be lost without a word; one option with both values is meant."""
    [problem] = problems(asked, "--lora.target_modules", "to_q", "--lora.target-modules=to_k")
    assert problem.startswith("lora.target_modules is given twice")


def test_a_poor_alphabet_ends_nothing() -> None:
    """Where a terminal has no arrow, its number is printed; the program goes on."""
    code = (
        "from unskew.settings import run_program; run_program(lambda _: print('.8 → .1') or 0, [])"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == r".8 \u2192 .1"

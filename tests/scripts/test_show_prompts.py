"""`unskew prompts show`: the expansion as it is, warnings beside it, errors instead of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from unskew.scripts.show_prompts import main
from unskew.settings import run_program

BLOCK: dict[str, Any] = {
    "suite": "trained",
    "role": "neutral",
    "attributes": ["presentation"],
    "templates": ["a photo of {x}", "{x} at work"],
    "subjects": {"mechanic": "a mechanic", "judge": "a judge"},
    "subject_targets": {"judge": {"presentation": {"woman": 0.5, "man": 0.25, "person": 0.25}}},
}


def write(folder: Path, *blocks: dict[str, Any]) -> str:
    file = folder / "prompts.yaml"
    file.write_text(yaml.safe_dump(list(blocks), sort_keys=False), "utf-8")
    return str(file)


def shown(file: str, *words: str) -> int:
    return run_program(main, ["show", file, *words])


def test_every_prompt_has_a_line_and_every_suite_a_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Suite, role, id, text, attributes, asked and target stand in one line a prompt."""
    spelt = {"subject": "judge", "text": "a woman judge", "asked": {"presentation": "woman"}}
    explicit = {
        "suite": "e",
        "role": "explicit",
        "attributes": ["presentation"],
        "prompts": [spelt],
    }
    assert shown(write(tmp_path, BLOCK, explicit)) == 0
    out, err = capsys.readouterr()
    head, *lines = out.splitlines()
    assert head.split() == "suite role id text attributes asked target".split()
    assert len(lines) == 5 + 1 + 2
    assert "presentation: woman 0.5, man 0.25, person 0.25" in lines[1]
    assert "presentation: woman  " in lines[4]
    assert lines[-2:] == [
        "trained (neutral): 4 prompts of 2 subjects",
        "e (explicit): 1 prompts of 1 subjects",
    ]
    assert err == ""


def test_json_holds_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Machines get every prompt whole, with ids that a study uses."""
    long = BLOCK | {"templates": ["{x} " + "very " * 99 + "tall"]}
    assert shown(write(tmp_path, long), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"trained": {"role": "neutral", "prompts": 2, "subjects": 2}}
    assert found["prompts"][0]["text"].endswith("very tall")
    assert found["prompts"][1]["target"] == {
        "presentation": {"woman": 0.5, "man": 0.25, "person": 0.25}
    }


def test_near_duplicates_and_words_that_give_it_away_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are allowed, so the exit code is 0, and each is named on stderr."""
    double = BLOCK | {"suite": "held_out", "templates": ["The photo, of {x}!"]}
    lady = BLOCK | {"suite": "lady", "templates": ["a lady who knows {x}"]}
    assert shown(write(tmp_path, BLOCK, double, lady)) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 4
    assert "'a photo of a mechanic' in trained" in warnings[0]
    assert "'The photo, of a mechanic!' in held_out say the same" in warnings[0]
    assert "'lady' names presentation = woman" in warnings[2]


def test_hostile_text_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences, new lines and right-to-left marks are written out, one line a prompt."""
    hostile = "\x1b[2J{x}\nowned\u202e " + "x" * 10_000
    assert shown(write(tmp_path, BLOCK | {"templates": [hostile]})) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\u001b[2Ja mechanic\\u000aowned\\u202e" in out
    assert len(out.splitlines()) == 1 + 2 + 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"templates": ["{x}", "{x}"]}, "stands in 'trained' already"),
        ({"subjects": {}}, "expands to no prompt"),
    ],
)
def test_duplicates_and_empty_expansions_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    message: str,
) -> None:
    """Exit code 2, the message names file and block, and nothing is printed on stdout."""
    assert shown(write(tmp_path, BLOCK | {"subject_targets": {}} | change)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "prompts.yaml, block 1" in err
    assert message in err


def test_one_suite_may_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """A file of Unskew's own is found by its name, and a suite of it by its own."""
    assert shown("prompts/occupations.yaml", "--suite", "validation", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["counts"]) == {"validation"}
    assert shown("prompts/occupations.yaml", "--suite", "heldout") == 2
    assert "no suite 'heldout'" in capsys.readouterr().err

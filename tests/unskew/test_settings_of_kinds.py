"""Promises of settings that are of several kinds, told apart by a setting `kind`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import pytest

from unskew.errors import UserError
from unskew.settings import Resolved, Settings, resolve


class Ruler(Settings):
    """Reads lengths."""

    kind: Literal["ruler"]
    """By marks."""
    marks: int = pydantic.Field(10, ge=2)
    """How many."""


class Scale(Settings):
    """Reads weights."""

    kind: Literal["scale"]
    """By a spring."""
    spring: Path
    """Where its force stands."""


class Workshop(Settings):
    """What is in a workshop."""

    tools: dict[str, Annotated[Ruler | Scale, pydantic.Field(discriminator="kind")]]
    """Name -> what measures."""


Ask = Callable[..., Resolved[Workshop]]


@pytest.fixture
def asked(tmp_path: Path) -> Ask:
    """Resolve command line words over YAML text."""

    def ask(*argv: str, text: str) -> Resolved[Workshop]:
        file = tmp_path / "tools.yaml"
        file.write_text(text)
        return resolve(Workshop, argv, default_config=file, prog="p", description="Measure.")

    return ask


GOOD = "tools: {long: {kind: ruler}, heavy: {kind: scale, spring: s.txt}}\n"


def test_each_is_read_by_its_kind(asked: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """The file, the command line and --help know what each kind has."""
    words = ["--tools.long.marks", "5", "--tools.heavy.spring=t.txt"]
    resolved = asked(*words, text=GOOD)
    assert resolved.settings.tools == {
        "long": Ruler(kind="ruler", marks=5),
        "heavy": Scale(kind="scale", spring=Path("t.txt")),
    }
    assert resolved.passed == ("tools.long.marks", "tools.heavy.spring")
    with pytest.raises(SystemExit):
        asked("--help", text=GOOD)
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--tools.long.marks INTEGER>=2 How many. (default: 10)" in text
    assert "--tools.heavy.spring PATH" in text
    assert "--tools.heavy.marks" not in text


def test_errors_name_the_setting_and_what_its_kind_allows(asked: Ask, tmp_path: Path) -> None:
    """A kind's own settings are checked, and so is the kind."""
    text = """
tools:
  a: {kind: ruler, marks: 1}
  b: {kind: scale, sprang: s.txt}
  c: {kind: clock}
  d: {marks: 3}
  e: 4
  f: {kind: ruler, marks: yes}
"""
    with pytest.raises(UserError) as error:
        asked(text=text)
    told = [line.strip() for line in str(error.value).splitlines()[1:]]
    where = f" ({tmp_path / 'tools.yaml'})"
    assert {problem.removesuffix(where) for problem in told} == {
        "tools.f.marks must be an integer >= 2, got true",
        "tools.a.marks must be an integer >= 2, got 1",
        "tools.b.spring must be given: a path",
        "tools.b.sprang is no setting; perhaps you meant tools.b.spring",
        "tools.c.kind must be ruler or scale, got clock",
        "tools.d.kind must be given: ruler or scale",
        "tools.e must be a mapping, got 4",
    }


def test_an_option_of_another_kind_is_none(asked: Ask) -> None:
    """What the one has, the other has not."""
    with pytest.raises(UserError, match=r"no option --tools\.heavy\.marks"):
        asked("--tools.heavy.marks", "3", text=GOOD)


def test_a_whole_mapping_can_be_given(asked: Ask) -> None:
    """One option replaces all of it, wherever it stands, and what alters a part comes after."""
    words = ["--tools.long.marks", "7", "--tools", "{long: {kind: ruler}}"]
    resolved = asked(*words, text=GOOD)
    assert resolved.settings.tools == {"long": Ruler(kind="ruler", marks=7)}
    assert set(resolved.passed) == {"tools", "tools.long.marks"}
    with pytest.raises(UserError, match="tools must be a mapping"):
        asked("--tools", "4", text=GOOD)

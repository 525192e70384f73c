"""Settings: a YAML file, the command line over it, every error at once.

A program's settings are a frozen pydantic model. A value is written on the command line as in
YAML, and several values after one option make a list:

    --lora.rank 8   --lora.target_modules to_q to_k   --weights '{trained: 1.0}'   --limit null
"""

from __future__ import annotations

import copy
import sys
import traceback
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pydantic
import yaml

import unskew.configs
from unskew.command_line import perhaps, read_command_line
from unskew.errors import UserError
from unskew.runs import Terminated, sigterm_raises, write_json_atomic
from unskew.schema import Schema, allowed, kinds, locate, parts, schema_of

WRONG_USE = 2
CRASHED = 70
INTERRUPTED = 130
TERMINATED = 143


class Settings(pydantic.BaseModel):
    """Base of every settings model: frozen, no unknown keys, a docstring under each field."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )


class CommonFlags(Settings):
    """The flags that every program has beside its own settings."""

    config: Path
    """YAML file of the settings below; a name like emoji/train.yaml finds Unskew's own."""
    dry_run: bool = False
    """Print the settings, check everything, do one step, and stop."""
    json_output: bool = pydantic.Field(default=False, alias="json")
    """Print the result as JSON on stdout."""


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Resolved(Generic[S]):
    """What a program was asked to do."""

    settings: S
    passed: tuple[str, ...]
    """Dotted names of the settings given on the command line."""
    config: Path
    dry_run: bool
    json: bool


def config_path(name: str) -> Path:
    """A file of the installed `unskew.configs`, such as "emoji/train.yaml"."""
    return Path(next(iter(unskew.configs.__path__))) / name


def resolve(
    model: type[S], argv: Sequence[str], *, default_config: Path, prog: str, description: str
) -> Resolved[S]:
    """Load `--config` (or the default), put the command line over it, and check the whole.

    Raises UserError that lists all that is wrong, each with its dotted path, what was given, what
    is allowed and where it stands. `--help` prints the loaded values and raises SystemExit(0).
    """
    file = _config_file(argv, default_config)
    loaded = _read_yaml(file)
    schema = schema_of(model)
    values = _checked_values(model, loaded)
    flags = schema_of(CommonFlags)["properties"]
    line = read_command_line(
        {**schema, "properties": {**flags, **schema["properties"]}},
        {"config": str(file), "dry_run": False, "json": False, **values},
        argv,
        prog=prog,
        description=description,
    )
    passed = tuple(name for name in line.given if name not in flags)
    for name in passed:
        _put(values, name, line.given[name])
    problems = list(line.problems)
    try:
        common = CommonFlags(**{"config": file, **{n: line.given[n] for n in flags if n in line.given}})
    except pydantic.ValidationError as error:
        problems += _problems(error, schema_of(CommonFlags), line.given, (), "command line")
    problems += _boolean_problems(schema, values, passed, file)
    try:
        settings = model.model_validate(values)
    except pydantic.ValidationError as error:
        problems += _problems(error, schema, values, passed, str(file))
    if problems:
        listed = "".join(f"\n  {problem}" for problem in dict.fromkeys(problems))
        raise UserError(f"{prog}: wrong settings ({prog} --help shows them all):{listed}")
    return Resolved(settings, passed, file, common.dry_run, common.json_output)

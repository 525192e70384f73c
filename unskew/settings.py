"""Settings: a YAML file, the command line over it, every error at once.

A program's settings are a frozen pydantic model. A value is written on the command line as in
YAML, and several values after one option make a list:

    --lora.rank 8   --lora.target_modules to_q to_k   --targets.season '{winter: 0.5, summer: 0.5}'
"""

from __future__ import annotations

import io
import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import pydantic

import unskew.configs
from unskew.command_line import perhaps, read_command_line
from unskew.disk import trouble
from unskew.errors import UserError
from unskew.runs import Terminated, sigterm_raises, write_json_atomic
from unskew.schema import Schema, allowed, chosen, inside, kinds, locate, names, parts, schema_of
from unskew.yaml_files import read_yaml

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

    def tell(self, told: Mapping[str, Any], *lines: str) -> None:
        """Print lines for a reader; with --json, `told` for a program and lines on stderr."""
        if self.json:
            print(json.dumps(told, indent=2))
        for line in lines:
            print(line, file=sys.stderr if self.json else sys.stdout)


def config_path(name: str) -> Path:
    """A file of the installed `unskew.configs`, such as "emoji/train.yaml"."""
    return Path(next(iter(unskew.configs.__path__))) / name


def resolve(
    model: type[S], argv: Sequence[str], *, default_config: Path, prog: str, description: str
) -> Resolved[S]:
    """Load `--config` (or the default), put the command line over it, and check the whole.

    Raises UserError that lists all that is wrong, each with its dotted path, what is allowed, what
    was given and where it stands. `--help` prints the loaded values and raises SystemExit(0).
    """
    file = _config_file(argv, default_config)
    loaded = _read_yaml(file)
    schema, flags = schema_of(model), schema_of(CommonFlags)["properties"]
    values = _defaults_filled_in(model, loaded)
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
    asked = {**line.given, "config": file}
    common, wrong_flags = _validate(CommonFlags, {n: asked[n] for n in flags if n in asked})
    settings, wrong_values = _validate(model, values)
    problems = [f"{problem} (command line)" for problem in (*line.problems, *wrong_flags.values())]
    for path, problem in {**_booleans(schema, loaded), **wrong_values}.items():
        over = any(path == name or path.startswith(f"{name}.") for name in passed)
        if path in wrong_values or not over:
            problems.append(f"{problem} ({'command line' if over else file})")
    if problems or settings is None or common is None:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(f"{prog}: wrong settings, see {prog} --help:{listed}")
    return Resolved(settings, passed, file, common.dry_run, common.json_output)


def resolve_given(
    model: type[S], given: Mapping[str, Any], *, config: str | Path, prog: str
) -> Resolved[S]:
    """As `resolve`, with settings as Python values in place of a command line.

    `given` has dotted names, such as "suites.trained.seeds"; a mapping replaces the whole of what
    the file says there. Raises UserError that lists all that is wrong.
    """
    file = _config_file(["--config", str(config)], Path(config))
    loaded = _read_yaml(file)
    values = _defaults_filled_in(model, loaded)
    for name, value in given.items():
        _put(values, name, _plain(value))
    settings, wrong = _validate(model, values)
    if wrong or settings is None:
        listed = "".join(f"\n  {problem}" for problem in wrong.values())
        raise UserError(f"{prog}: wrong settings over those of {file}:{listed}")
    return Resolved(settings, tuple(given), file, dry_run=False, json=False)


def run_program(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Call a program's main and turn how it ended into an exit code.

    0 done or gate passed and 1 gate failed are main's own; 2 the user's to mend, 70 a crash of
    ours (with traceback), 130 interrupted, 143 terminated.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal's poor alphabet must end nothing
            stream.reconfigure(errors="backslashreplace")
    try:
        with sigterm_raises():
            return main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USE
    except Terminated:
        return TERMINATED
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if told := trouble(error):
            print(f"error: {told}", file=sys.stderr)
            return WRONG_USE
        traceback.print_exc()
        return CRASHED


def write_schema(model: type[Settings], file: Path) -> None:
    """JSON schema of a program's settings, for editors that check and complete YAML."""
    write_json_atomic(file, model.model_json_schema())


def _config_file(argv: Sequence[str], default: Path) -> Path:
    """The last `--config` among the words, as a path or as the name of a file of Unskew's own."""
    name = None
    for word, after in pairwise([*argv, ""]):
        if word == "--config" or word.startswith("--config="):
            name = after if word == "--config" else word.partition("=")[2]
    if name is None:
        return default
    if Path(name).is_file():
        return Path(name)
    if config_path(name).is_file():
        return config_path(name)
    own = sorted(f.relative_to(config_path("")).as_posix() for f in config_path("").rglob("*.yaml"))
    raise UserError(
        f"--config {name or '(nothing)'} is no file: give a YAML file of yours, or one of "
        f"Unskew's own: {', '.join(own)}"
    )


def _read_yaml(file: Path) -> dict[str, Any]:
    loaded = read_yaml(file, "settings file")
    if not isinstance(loaded, dict | None):
        raise UserError(f"settings file {file} must be a mapping, got {type(loaded).__name__}")
    return loaded or {}


def _defaults_filled_in(model: type[S], loaded: dict[str, Any]) -> dict[str, Any]:
    """Every setting's value as plain lists and mappings; the file's own where they are wrong."""
    settings, _ = _validate(model, loaded)
    values: dict[str, Any] = _plain(settings.model_dump(by_alias=True) if settings else loaded)
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    *tables, last = name.split(".")
    here: Any = values
    for table in tables:
        here = here[int(table)] if isinstance(here, list) else here.setdefault(table, {})
    here[int(last) if isinstance(here, list) else last] = value


def _validate(model: type[S], values: dict[str, Any]) -> tuple[S | None, dict[str, str]]:
    """The model, or None with dotted path -> what is wrong there."""
    try:
        return model.model_validate(values), {}
    except pydantic.ValidationError as error:
        schema = schema_of(model)
        problems: dict[str, str] = {}
        for detail in error.errors():
            path, problem = _problem(detail, schema, values)
            problems.setdefault(path, problem)
        return None, problems


def _problem(detail: Mapping[str, Any], schema: Schema, values: object) -> tuple[str, str]:
    """Dotted path, and what is wrong there, of one error of pydantic's."""
    path, part, given = locate(schema, detail["loc"], values)
    match detail["type"]:
        case "extra_forbidden":
            path = f"{path}.{detail['loc'][-1]}".lstrip(".")
            return path, f"{path} is no setting{perhaps(path, names(schema, values))}"
        case "missing":
            return path, f"{path} must be given: {allowed(part)}"
        case "union_tag_not_found" | "union_tag_invalid":
            tag = part["discriminator"]["propertyName"]
            known = allowed(chosen(part, None)["properties"][tag])
            if not isinstance(given, dict) or tag not in given:
                return f"{path}.{tag}", f"{path}.{tag} must be given: {known}"
            return f"{path}.{tag}", f"{path}.{tag} must be {known}, got {_shown(given[tag])}"
        case "value_error" | "assertion_error":
            said = str(detail["ctx"]["error"])
            return path, f"{path}: {said}, got {_shown(given)}" if path else said
    unquoted = isinstance(given, bool | int | float) and "string" in kinds(part)
    advice = ": quote it to make it text" if unquoted else ""
    return path, f"{path} must be {allowed(part)}, got {_shown(given)}{advice}"


def _shown(value: object) -> str:
    return value or "''" if isinstance(value, str) else json.dumps(value, default=str)


def _booleans(schema: Schema, loaded: Any, prefix: str = "") -> dict[str, str]:
    """Dotted path -> problem for each true or false where a number is due.

    YAML reads yes, no, on and off as these, and pydantic takes them for 1 and 0.
    """
    problems = {}
    for name, part in (parts(schema, loaded) or {}).items():
        value = inside(loaded, name)
        may_be = kinds(part)
        if isinstance(value, bool) and may_be & {"integer", "number"} and "boolean" not in may_be:
            problems[prefix + name] = f"{prefix}{name} must be {allowed(part)}, got {_shown(value)}"
        elif isinstance(value, dict | list):
            problems |= _booleans(part, value, f"{prefix}{name}.")
    return problems

"""The command line over a table of settings, read by tyro.

tyro sees a mirror of the settings whose leaves take any words, with the loaded values as defaults:
it prints the help and sorts words to options. A mapping is one option, and each key of it may be
given as one too. What the words mean is left to the settings model, so that all that is wrong can
be said at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
import yaml
from tyro.constructors import PrimitiveConstructorSpec

from unskew.schema import Schema, allowed, branches, inside, kinds, locate, names, parts

MUST_BE_GIVEN = "none, must be given"
METAVARS = {"array": "...", "object": "'{...}'", "boolean": "[true|false]"}


@dataclass(frozen=True)
class CommandLine:
    """What was asked for on the command line."""

    given: dict[str, Any]
    """Dotted name -> value, texts still to be read as what the setting is."""
    problems: list[str]


@dataclass(frozen=True)
class _Words:
    """What stood after an option."""

    words: tuple[str, ...]


def read_command_line(
    schema: Schema,
    values: Mapping[str, Any],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
) -> CommandLine:
    """Sort `argv` to the schema's settings. `--help` prints itself and raises SystemExit(0).

    `values` are the loaded ones, shown as defaults.
    """
    mirror: object
    mirror, unknown = tyro.cli(
        _group(schema, values),
        args=list(argv),
        prog=prog,
        description=description,
        return_unknown_args=True,
        use_underscores=True,
    )
    options = list(_given(mirror, schema, values))
    known = names(schema, values)
    problems: list[str] = []
    for option, words in _options(unknown):
        name = option.lstrip("-")
        path, part, _ = locate(schema, name.split("."), values)
        if path == name and any(name.startswith(f"{mapping}.") for mapping in known):
            options.append((name, part, words))
        elif path == name and any(
            isinstance(branch.get("additionalProperties"), dict) for branch in branches(part)
        ):
            options.insert(0, (name, part, words))  # the whole of it, before what alters a part
        elif option:
            hint = perhaps(name.replace("-", "_"), known, "--")
            problems.append(f"there is no option {option}{hint}")
        else:
            problems.append(f"nothing may stand before the first option, got {' '.join(words)}")
    given: dict[str, Any] = {}
    for path, part, words in options:
        if "array" in kinds(part) and _times(path, argv) > 1:
            problems.append(f"{path} is given twice: write all its values after one --{path}")
        try:
            given[path] = _value(part, words)
        except ValueError as error:
            problems.append(f"{path} must be {allowed(part)}, {error}")
    return CommandLine(given, problems)


def _times(path: str, argv: Sequence[str]) -> int:
    """How often an option stands among the words."""
    names = (word.partition("=")[0] for word in argv if word.startswith("--"))
    return sum(name[2:].replace("-", "_") == path for name in names)


def _group(schema: Schema, value: object) -> type:
    """A dataclass that mirrors one table of settings."""
    fields = []
    for number, (name, part) in enumerate(parts(schema, value).items()):
        here = inside(value, name, MUST_BE_GIVEN)
        is_table = bool(parts(part, here))
        kind = _group(part, here) if is_table else _leaf(part)
        default = dataclasses.field(default_factory=kind if is_table else _constant(here))
        about = tyro.conf.arg(name=name, help=part.get("description", ""))
        fields.append((f"_{number}", Annotated[kind, about], default))
    group = dataclasses.make_dataclass("Group", fields)
    group.__doc__ = str(schema.get("description", " "))
    return group


def _given(
    mirror: object, schema: Schema, value: object, prefix: str = ""
) -> Iterator[tuple[str, Schema, tuple[str, ...]]]:
    """Dotted name, schema and words of each option that was given."""
    for number, (name, part) in enumerate(parts(schema, value).items()):
        inner = getattr(mirror, f"_{number}")
        if isinstance(inner, _Words):
            yield f"{prefix}{name}", part, inner.words
        elif dataclasses.is_dataclass(inner):
            yield from _given(inner, part, inside(value, name), f"{prefix}{name}.")


def _constant(value: object) -> Any:
    return lambda: value


def _leaf(schema: Schema) -> Any:
    return Annotated[
        Any,
        PrimitiveConstructorSpec(
            nargs="*",
            metavar=_metavar(schema),
            instance_from_str=lambda words: _Words(tuple(words)),
            is_instance=lambda value: True,
            str_from_instance=_shown,
        ),
    ]


def _metavar(schema: Schema) -> str:
    """How help shows what may stand after an option: INTEGER>=1, {auto,never}|PATH."""
    return "|".join(dict.fromkeys(map(_branch_metavar, branches(schema))))


def _branch_metavar(branch: Schema) -> str:
    if "enum" in branch:
        return "{" + ",".join(map(str, branch["enum"])) + "}"
    kind = branch.get("type", "any")
    if "const" in branch or kind == "null":
        return str(branch.get("const", "null"))
    if kind == "array":
        return f"{_metavar(branch.get('items', {}))} ..."
    words = allowed(branch).removeprefix("an ").removeprefix("a ")
    return METAVARS.get(kind) or words.upper().replace(" AND ", ",").replace(" ", "")


def _shown(value: Any) -> list[str]:
    if isinstance(value, list | tuple) and not any(isinstance(v, dict | list) for v in value):
        return [str(v) for v in value] or ["[]"]
    if isinstance(value, list | dict):
        return [yaml.safe_dump(value, default_flow_style=True, sort_keys=False).strip()]
    return [
        "null" if value is None else str(value).lower() if value in (True, False) else str(value)
    ]


def _value(schema: Schema, words: tuple[str, ...]) -> Any:
    """What the words after an option say, for the model to check. Raises ValueError."""
    may_be = kinds(schema)
    only = words[0] if len(words) == 1 else None
    if only is not None and only[0:1] in ("{", "[") and may_be != {"string"}:
        try:
            return yaml.safe_load(only)
        except yaml.YAMLError:
            if "string" not in may_be:
                raise ValueError(f"got {only}, which is no YAML") from None
    if only in ("null", "None") and "null" in may_be:
        return None
    if "array" in may_be and (only is None or not _is_one(schema, only)):
        return list(words)
    if not words and "boolean" in may_be:
        return True
    if only is None:
        raise ValueError(f"got {' '.join(words)}" if words else "got nothing")
    return only


def _is_one(schema: Schema, word: str) -> bool:
    """Whether a word is a value by itself where a list is allowed too ("auto", or a number)."""
    for branch in branches(schema):
        kind = branch.get("type")
        names = branch.get("enum", [branch["const"]] if "const" in branch else None)
        if names is not None and word in map(str, names):
            return True
        if names is None and kind in ("integer", "number", "string"):
            return True
    return False


def _options(words: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(option, what stands after it) of words that tyro did not know; "" before the first."""
    option, after = "", list[str]()
    for word in words:
        if not re.match(r"-+[^\W\d]", word):  # -0.5 is no option
            after.append(word)
            continue
        if option or after:
            yield option, tuple(after)
        option, equals, value = word.partition("=")
        after = [value] if equals else []
    if option or after:
        yield option, tuple(after)


def perhaps(name: str, known: Sequence[str], before: str = "") -> str:
    """The end of a message: "; perhaps you meant X", or nothing where no name is near."""
    leaves = {path.rpartition(".")[2]: path for path in reversed(known)}
    near = difflib.get_close_matches(name, known, n=1)
    near = near or [leaves[leaf] for leaf in difflib.get_close_matches(name, leaves, n=1)]
    return f"; perhaps you meant {before}{near[0]}" if near else ""

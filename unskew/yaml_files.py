"""YAML that people write: read safely, a key that stands twice refused, every mistake named."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from unskew.errors import UserError

M = TypeVar("M", bound=pydantic.BaseModel)
DUE = {
    "string_type": "text",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "float_type": "a number",
}
SHOWN = 80
"""Characters of a wrong value that a message repeats."""


class StrictModel(pydantic.BaseModel):
    """What a part of a file may say: closed, and nothing is taken for something else.

    YAML reads no, yes, on and off as false and true, and 7 as a number: where text is due, both
    are errors.
    """

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error, where YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            where = f"line {node.start_mark.line + 1}"
            raise yaml.YAMLError(f"{', '.join(twice)} stands twice in the mapping of {where}")
        return super().construct_mapping(node, deep)


def read_yaml(file: Path, what: str) -> Any:
    """What a file holds. Raises UserError, opening with `what`, when it is missing or no YAML."""
    try:
        return yaml.load(file.read_text("utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"{what} {file} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UserError(f"{what} {file} is no YAML: {error}") from None


def checked(model: type[M], given: object, where: str) -> M:
    """`given` as the model. Raises UserError that says all that is wrong, opening with `where`."""
    try:
        return model.model_validate(given)
    except pydantic.ValidationError as error:
        problems = dict.fromkeys(_problem(detail, model) for detail in error.errors())
    raise UserError(f"{where}: {'; '.join(problems)}")


def _problem(detail: Any, model: type[pydantic.BaseModel]) -> str:
    path, given = _dotted(detail["loc"]), detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            known = ", ".join(model.model_fields)
            return f"{path} is no key here (allowed: {known})"
        case "missing":
            return f"{path} must be given"
        case "value_error":
            return f"{path}: {detail['ctx']['error']}".removeprefix(": ")
    due = DUE.get(detail["type"]) or detail["msg"].removeprefix("Input should be ")
    said = f"{path or 'it'} must be {due}, got {_shown(given)}"
    if path.endswith(".[key]"):
        said = f"{path.removesuffix('.[key]')} has a key that is no text: {_shown(given)}"
    if isinstance(given, bool) and detail["type"] == "string_type":
        return f"{said} (YAML reads no, yes, on and off as false and true): quote it"
    if isinstance(given, int | float) and detail["type"] == "string_type":
        return f"{said}: quote it to make it text"
    return said


def _dotted(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."

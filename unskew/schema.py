"""What a setting may be, in words, from the JSON schema of its model.

One description serves `--help`, error messages and editors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pydantic

Schema = Mapping[str, Any]

TYPES = {
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "a mapping",
}
BOUNDS = {
    "minimum": ">= {}",
    "exclusiveMinimum": "> {}",
    "maximum": "<= {}",
    "exclusiveMaximum": "< {}",
    "minLength": "of {} or more characters",
    "pattern": "matching {}",
    "minItems": "of {} or more",
}


def schema_of(model: type[pydantic.BaseModel]) -> Schema:
    """The model's JSON schema with every reference replaced by what it refers to."""
    schema = model.model_json_schema()
    return _inlined(schema, schema.get("$defs", {}))  # type: ignore[no-any-return]


def _inlined(part: Any, definitions: Schema) -> Any:
    if isinstance(part, list):
        return [_inlined(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        target = definitions[part["$ref"].rpartition("/")[2]]
        part = {**target, **{key: value for key, value in part.items() if key != "$ref"}}
    return {k: _inlined(v, definitions) for k, v in part.items() if k != "$defs"}


def branches(schema: Schema) -> Sequence[Schema]:
    """The alternatives of a union, or the schema alone."""
    return schema.get("anyOf") or schema.get("oneOf") or [schema]


def chosen(schema: Schema, value: object) -> Schema:
    """Of a tagged union the alternative that the value's tag names; any other schema as it is.

    Where the tag is missing or unknown, one with the settings of all alternatives.
    """
    tagged, tag = _tagged(schema)
    if not tagged:
        return schema
    given = inside(value, tag)
    if isinstance(given, str) and given in tagged:
        return tagged[given]
    every = {name: p for branch in tagged.values() for name, p in branch["properties"].items()}
    every[tag] = {"type": "string", "enum": list(tagged)}
    return {"type": "object", "properties": every}


def _tagged(schema: Schema) -> tuple[dict[str, Schema], str]:
    """Tag -> alternative of a tagged union, and the setting that holds the tag; else nothing."""
    tag = schema.get("discriminator", {}).get("propertyName", "")
    return {
        branch["properties"][tag]["const"]: branch for branch in schema["oneOf"]
    } if tag else {}, tag


def kinds(schema: Schema) -> set[str]:
    """The JSON types that a value may have."""
    return {branch.get("type", "string") for branch in branches(schema)}


def allowed(schema: Schema) -> str:
    """What a value may be, to follow the word "be": "an integer >= 1", "auto or a path"."""
    return " or ".join(dict.fromkeys(_allowed(branch) for branch in branches(schema)))


def _allowed(branch: Schema) -> str:
    if "enum" in branch:
        return " or ".join(str(value) for value in branch["enum"])
    if "const" in branch:
        return str(branch["const"])
    kind = branch.get("type")
    if branch.get("format") in ("path", "file-path", "directory-path"):
        words = "a path"
    elif kind == "array":
        items = branch.get("items") or {"anyOf": branch.get("prefixItems", [{}])}
        words = f"a list (each {allowed(items)})"
    elif kind == "object" and isinstance(branch.get("additionalProperties"), dict):
        words = f"a mapping (each value {allowed(branch['additionalProperties'])})"
    else:
        words = TYPES.get(str(kind), "any value")
    bounds = [text.format(branch[key]) for key, text in BOUNDS.items() if key in branch]
    return " ".join([words, " and ".join(bounds)]) if bounds else words


def parts(schema: Schema, value: object) -> dict[str, Schema]:
    """Name -> schema of the settings inside this one, given what is there; none for a leaf.

    A model has its fields, a list of models its numbers, a mapping of models its keys. Any other
    list or mapping is a leaf.
    """
    schema = chosen(schema, value)
    for branch in branches(schema):
        absent = value is None and len(branches(schema)) > 1
        if "properties" in branch and not absent:
            return dict(branch["properties"])
        if isinstance(value, list) and _is_model(branch.get("items")):
            return {str(number): branch["items"] for number in range(len(value))}
        keys = list(map(str, value)) if isinstance(value, dict) else ["."]
        dotted = any("." in key for key in keys)  # no dotted path leads through such a key
        if _is_model(branch.get("additionalProperties")) and not dotted:
            model: Mapping[str, Any] = branch["additionalProperties"]
            return {key: model for key in keys}  # noqa: C420  # fromkeys loses the type
    return {}


def _is_model(schema: object) -> bool:
    return isinstance(schema, dict) and any("properties" in part for part in branches(schema))


def inside(value: object, name: str, absent: object = None) -> Any:
    """What a list or mapping of loaded values holds at a name; `absent` where it holds nothing."""
    if isinstance(value, list) and name.isdigit() and int(name) < len(value):
        return value[int(name)]
    return value.get(name, absent) if isinstance(value, Mapping) else absent


def names(schema: Schema, value: object, prefix: str = "") -> list[str]:
    """Dotted names of all settings that are no table themselves."""
    found = []
    for name, part in parts(schema, value).items():
        inner = names(part, inside(value, name), f"{prefix}{name}.")
        found += inner or [f"{prefix}{name}"]
    return found


def locate(
    schema: Schema, location: Sequence[int | str], value: object
) -> tuple[str, Schema, object]:
    """The dotted path, schema and value of the deepest setting that an error's location names.

    pydantic puts the tried types of a union into a location; those end it, but a tag only says
    which alternative is meant.
    """
    path: list[str] = []
    for part in location:
        tagged, _ = _tagged(schema)
        if part in tagged:
            schema = tagged[str(part)]
            continue
        schema = chosen(schema, value)
        below = next(_below(schema, part), None)
        if below is None:
            break
        path.append(str(part))
        schema, value = below, inside(value, str(part))
    return ".".join(path), schema, value


def _below(schema: Schema, part: int | str) -> Iterator[Schema]:
    for branch in branches(schema):
        if isinstance(part, int) and isinstance(branch.get("items"), dict):
            yield branch["items"]
        elif part in branch.get("properties", {}):
            yield branch["properties"][part]
        elif isinstance(part, str) and isinstance(branch.get("additionalProperties"), dict):
            yield branch["additionalProperties"]

"""Prompts in named suites, expanded from templates and subjects.

A prompt file is a list of blocks. A block names its suite and role and gives either `templates`
x `subjects`, or `prompts` spelt out with what each asks for:

    - suite: trained
      role: neutral
      attributes: [presentation]
      templates: ["a picture of {x}"]
      subjects: {mechanic: a mechanic}
    - suite: explicit
      role: explicit
      attributes: [presentation]
      prompts: [{subject: mechanic, text: a woman mechanic, asked: {presentation: woman}}]
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml
from numpy.typing import NDArray

from unskew.attributes import SUBJECT, load_attribute, target_shares
from unskew.errors import UserError

Role = Literal["neutral", "explicit", "control"]
BLOCK_KEYS = {"suite", "role", "attributes", "templates", "subjects", "prompts", "targets"}


@dataclass(frozen=True)
class Prompt:
    """One prompt of a suite."""

    id: str
    """Readable and stable: the start of the text and a hash of all of it. Names a folder."""
    text: str
    suite: str
    subject: str
    attributes: tuple[str, ...]
    """The attributes measured on its pictures."""
    asked: Mapping[str, str] = field(hash=False)
    """Attribute -> value that the words ask for; always holds the subject."""
    targets: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, compare=False)
    """Attribute -> (K,) wanted shares, where they differ from the attribute's own target."""


@dataclass(frozen=True)
class Suite:
    """Prompts that play one role in a study."""

    name: str
    role: Role
    prompts: tuple[Prompt, ...]


def prompt_id(text: str) -> str:
    """A folder name for a prompt: up to 48 plain characters, then 6 of the text's sha256."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48].strip("-")
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:6]}".lstrip("-")


def load_suites(path: Path, only: Sequence[str] | None = None) -> tuple[Suite, ...]:
    """Read and expand a prompt file; `only` keeps the suites of those names, in file order.

    Raises UserError for a missing file, an unknown suite or value, a prompt that stands twice
    (suites are disjoint), or a block that expands to nothing.
    """
    if not path.is_file():
        raise UserError(f"prompt file {path} does not exist: give a YAML file of suites")
    blocks = yaml.safe_load(path.read_text("utf-8"))
    if not isinstance(blocks, list):
        raise UserError(f"{path} must be a list of blocks, each with suite and role")
    roles: dict[str, Role] = {}
    prompts: dict[str, list[Prompt]] = {}
    seen: dict[str, str] = {}
    for number, block in enumerate(blocks, 1):
        where = f"{path}, block {number}"
        name, role = _check_block(block, where)
        if roles.setdefault(name, role) != role:
            raise UserError(f"{where}: suite {name!r} is {roles[name]} above and {role} here")
        for prompt in _expand(block, where):
            if prompt.text in seen:
                raise UserError(
                    f"{where}: {prompt.text!r} stands in {seen[prompt.text]!r} already; "
                    "suites share no prompt"
                )
            seen[prompt.text] = name
            prompts.setdefault(name, []).append(prompt)
    unknown = sorted(set(only or ()) - set(roles))
    if unknown:
        raise UserError(f"{path} has no suite {unknown[0]!r} (it has: {', '.join(roles)})")
    return tuple(
        Suite(name, roles[name], tuple(prompts[name]))
        for name in roles
        if only is None or name in only
    )


def _check_block(block: Any, where: str) -> tuple[str, Role]:
    if not isinstance(block, dict) or set(block) - BLOCK_KEYS:
        raise UserError(f"{where}: a block may have {sorted(BLOCK_KEYS)}, got {block!r:.200}")
    if block.get("role") not in get_args(Role):
        raise UserError(
            f"{where}: role must be one of {list(get_args(Role))}, got {block.get('role')!r}"
        )
    if not isinstance(block.get("suite"), str):
        raise UserError(f"{where}: suite must be a name, got {block.get('suite')!r}")
    return block["suite"], block["role"]


def _expand(block: Mapping[str, Any], where: str) -> list[Prompt]:
    attributes = {id: load_attribute(id) for id in block.get("attributes", [])}
    targets = {
        id: target_shares(given, attributes[id].values, f"{where}: targets.{id}")
        for id, given in block.get("targets", {}).items()
    }
    spelt = [
        {"subject": subject, "text": template.replace("{x}", phrase), "asked": {}}
        for template in block.get("templates", [])
        for subject, phrase in block.get("subjects", {}).items()
    ] + block.get("prompts", [])
    if not spelt:
        raise UserError(f"{where}: expands to no prompt; give templates and subjects, or prompts")
    for row in spelt:
        for attribute, value in row.get("asked", {}).items():
            if attribute not in attributes or value not in attributes[attribute].values:
                raise UserError(
                    f"{where}: {row['text']!r} asks for {attribute} = {value!r} "
                    f"(allowed: { ({k: list(a.values) for k, a in attributes.items()}) })"
                )
    return [
        Prompt(
            id=prompt_id(row["text"]),
            text=row["text"],
            suite=block["suite"],
            subject=row["subject"],
            attributes=tuple(attributes),
            asked={SUBJECT: row["subject"], **row.get("asked", {})},
            targets=targets,
        )
        for row in spelt
    ]

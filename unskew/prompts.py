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

`asked` may stand on a block too, for all of its prompts. `targets` (attribute -> shares) on a block
are the suite's, `subject_targets` those of single subjects, which go before. A study takes several
files; blocks with the same suite name are one suite, wherever they stand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import unskew.configs
from unskew.attributes import SUBJECT, Attribute, load_attribute, target_shares
from unskew.errors import UserError
from unskew.yaml_files import StrictModel, checked, read_yaml

Role = Literal["neutral", "explicit", "must_not_change", "control"]
ASKING: tuple[Role, ...] = ("explicit", "must_not_change")
"""Roles whose prompts ask for a value that must come."""
Targets = Mapping[str, NDArray[np.float64]]
"""Attribute -> (K,) wanted shares."""


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
    targets: Targets = field(default_factory=dict, compare=False)
    """Where the wanted shares differ from the attribute's own target."""


@dataclass(frozen=True)
class Suite:
    """Prompts that play one role in a study."""

    name: str
    role: Role
    prompts: tuple[Prompt, ...]


class _PromptRow(StrictModel):
    subject: str
    text: str
    asked: dict[str, str] = {}


class _Block(StrictModel):
    suite: str
    role: Role
    note: str = ""
    """For those who read the file."""
    attributes: list[str] = []
    templates: list[str] = []
    subjects: dict[str, str] = {}
    prompts: list[_PromptRow] = []
    asked: dict[str, str] = {}
    targets: dict[str, Any] = {}
    subject_targets: dict[str, dict[str, Any]] = {}


def prompt_id(text: str) -> str:
    """A folder name for a prompt: up to 48 plain characters, then 6 of the text's sha256."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48].strip("-")
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:6]}".lstrip("-")


def prompt_file(path: Path) -> Path:
    """The path, or where there is no such file one of Unskew's own: prompts/emoji.yaml."""
    own = Path(next(iter(unskew.configs.__path__))) / path
    return own if not path.exists() and own.is_file() else path


def load_suites(
    files: Path | Sequence[Path], only: Sequence[str] | None = None
) -> tuple[Suite, ...]:
    """Read and expand prompt files; `only` keeps the suites of those names, in the files' order.

    Raises UserError for a missing file, an unknown suite or value, a prompt that stands twice
    (suites are disjoint), two that have one id, or a block that expands to nothing.
    """
    files = [files] if isinstance(files, Path) else list(files)
    roles: dict[str, Role] = {}
    prompts: dict[str, list[Prompt]] = {}
    seen: dict[str, str] = {}
    text_of: dict[str, str] = {}
    for where, block in _blocks(files):
        name, role = block.suite, block.role
        if roles.setdefault(name, role) != role:
            raise UserError(f"{where}: suite {name!r} is {roles[name]} above and {role} here")
        for prompt in _expand(block, where):
            if prompt.text in seen:
                raise UserError(
                    f"{where}: {prompt.text!r} stands in {seen[prompt.text]!r} already; "
                    "suites share no prompt"
                )
            if (other := text_of.setdefault(prompt.id, prompt.text)) != prompt.text:
                raise UserError(
                    f"{where}: {prompt.text!r} and {other!r} have one id by chance ({prompt.id}), "
                    "so their pictures would lie in one folder: change a word of either"
                )
            seen[prompt.text] = name
            prompts.setdefault(name, []).append(prompt)
    unknown = sorted(set(only or ()) - set(roles))
    if unknown:
        given = ", ".join(map(str, files))
        raise UserError(f"{given} has no suite {unknown[0]!r} (it has: {', '.join(roles)})")
    return tuple(
        Suite(name, roles[name], tuple(prompts[name]))
        for name in roles
        if only is None or name in only
    )


def with_targets(suites: Sequence[Suite], targets: Mapping[str, Any]) -> tuple[Suite, ...]:
    """The suites with a study's own targets: "attribute" or "attribute@suite" -> shares.

    One for a suite replaces what its prompt file says; one for an attribute everywhere applies
    where neither says anything. Raises UserError for what no prompt measures.
    """
    measured = {a: load_attribute(a) for s in suites for p in s.prompts for a in p.attributes}
    known = {f"{a}@{s.name}" for s in suites for p in s.prompts for a in p.attributes}
    shares = {}
    for key, given in targets.items():
        attribute, _, _ = key.partition("@")
        if key not in known and key not in measured:
            raise UserError(
                f"targets.{key} is measured on no prompt of this study (allowed: "
                f"{', '.join([*measured, *sorted(known)])})"
            )
        shares[key] = target_shares(given, measured[attribute].values, f"targets.{key}")

    def own(prompt: Prompt) -> Targets:
        found = dict(prompt.targets)
        for attribute in prompt.attributes:
            if attribute in shares:
                found.setdefault(attribute, shares[attribute])
            if f"{attribute}@{prompt.suite}" in shares:
                found[attribute] = shares[f"{attribute}@{prompt.suite}"]
        return found

    return tuple(
        replace(suite, prompts=tuple(replace(p, targets=own(p)) for p in suite.prompts))
        for suite in suites
    )


def _blocks(files: Sequence[Path]) -> Iterator[tuple[str, _Block]]:
    if not files:
        raise UserError("no prompt file was given: give one or more YAML files of suites")
    for path in files:
        if not path.is_file():
            raise UserError(f"prompt file {path} does not exist: give a YAML file of suites")
        blocks = read_yaml(path, "prompt file")
        if not isinstance(blocks, list) or not blocks:
            raise UserError(f"{path} must be a list of blocks, each with suite and role")
        for number, given in enumerate(blocks, 1):
            where = f"{path}, block {number}"
            block = checked(_Block, given, where)
            _check_block(block, where)
            yield where, block


def _check_block(block: _Block, where: str) -> None:
    """Raise UserError for what every part allows and the whole does not."""
    if not re.fullmatch(r"[\w-]+", block.suite):
        raise UserError(
            f"{where}: suite must be a name of letters, digits, _ and -, got {block.suite!r}"
        )
    if bool(block.templates) != bool(block.subjects) or not (block.templates or block.prompts):
        raise UserError(f"{where}: expands to no prompt; give templates and subjects, or prompts")
    without = [template for template in block.templates if "{x}" not in template]
    if without:
        raise UserError(f"{where}: template {without[0]!r} has no {{x}} for the subject's words")
    strangers = sorted(set(block.subject_targets) - _subjects(block))
    if strangers:
        raise UserError(f"{where}: subject_targets.{strangers[0]} is no subject of the block")


def _subjects(block: _Block) -> set[str]:
    return {*block.subjects, *(row.subject for row in block.prompts)}


def _expand(block: _Block, where: str) -> list[Prompt]:
    attributes = {id: load_attribute(id) for id in dict.fromkeys(block.attributes)}
    targets = _targets(block.targets, attributes, f"{where}: targets")
    by_subject = {
        subject: _targets(given, attributes, f"{where}: subject_targets.{subject}")
        for subject, given in block.subject_targets.items()
    }
    rows = [
        _PromptRow(subject=subject, text=template.replace("{x}", phrase))
        for template in block.templates
        for subject, phrase in block.subjects.items()
    ] + block.prompts
    prompts = []
    for row in rows:
        asked = {**block.asked, **row.asked}
        _check_row(row, asked, block.role, attributes, where)
        prompts.append(
            Prompt(
                id=prompt_id(row.text),
                text=row.text,
                suite=block.suite,
                subject=row.subject,
                attributes=tuple(attributes),
                asked={SUBJECT: row.subject, **asked},
                targets={**targets, **by_subject.get(row.subject, {})},
            )
        )
    return prompts


def _targets(given: Mapping[str, Any], attributes: Mapping[str, Attribute], where: str) -> Targets:
    strangers = sorted(set(given) - set(attributes))
    if strangers:
        raise UserError(
            f"{where}.{strangers[0]} is not measured on the block (its attributes: "
            f"{list(attributes)})"
        )
    return {
        id: target_shares(shares, attributes[id].values, f"{where}.{id}")
        for id, shares in given.items()
    }


def _check_row(
    row: _PromptRow,
    asked: Mapping[str, str],
    role: Role,
    attributes: Mapping[str, Attribute],
    where: str,
) -> None:
    if not row.text.strip() or not row.subject.strip():
        raise UserError(f"{where}: a prompt needs words and a subject, got {row.text!r:.200}")
    for attribute, value in asked.items():
        if attribute not in attributes or value not in attributes[attribute].values:
            raise UserError(
                f"{where}: {row.text!r:.200} asks for {attribute} = {value!r} "
                f"(allowed: { ({k: list(a.values) for k, a in attributes.items()}) })"
            )
    if bool(asked) != (role in ASKING):
        does = f"asks for {dict(asked)}" if asked else "asks for nothing"
        raise UserError(
            f"{where}: {row.text!r:.200} is {role} and {does}: prompts of the roles "
            f"{' and '.join(ASKING)} have `asked`, others have none"
        )

"""Licences: which the hub knows, and which may stand on an adapter of this base and this data.

A check of the plain cases, so that nobody publishes against one by mistake. It is no legal advice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from unskew.errors import UserError

OTHER = "other"
OPENRAIL = ("creativeml-openrail-m", "openrail", "openrail++", "bigscience-openrail-m")
"""Their rules of use must be passed on with whatever is derived."""
_CC = ("cc-by", "cc-by-sa", "cc-by-nc", "cc-by-nc-sa", "cc-by-nd", "cc-by-nc-nd")
KNOWN = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "wtfpl", "zlib"),
    *("cc0-1.0", "pddl", "mpl-2.0", "gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0"),
    *(f"{kind}-{version}" for kind in _CC for version in ("2.0", "3.0", "4.0")),
    *OPENRAIL,
    OTHER,
)
"""By the hub's ids; what is not here is `other`, with a name and a link."""
_COPYLEFT = ("gpl-", "agpl-")


def check_known(licence: str | None) -> str | None:
    """The licence as it was. Raises ValueError for one that the hub has no id for."""
    if licence is not None and licence not in KNOWN:
        raise ValueError(f"must be one of {', '.join(KNOWN)}")
    return licence


def conflicts(licence: str, of: str, theirs: str) -> Iterator[str]:
    """What keeps `licence` from standing on something made from `theirs`, the licence of `of`."""
    if "-nd-" in theirs:
        yield f"{of} is under {theirs}, which allows no derived works: ask its owner"
        return
    if "-nc-" in theirs and "-nc-" not in licence and licence != OTHER:
        yield (
            f"{of} is under {theirs}, for non-commercial use only, but license is {licence}: "
            "give one with -nc-"
        )
    alike = "-sa-" in theirs or theirs.startswith(_COPYLEFT)
    if alike and licence != theirs and licence != OTHER:
        yield f"{of} is under {theirs}, which asks for the same on what is made from it"
    if theirs in OPENRAIL and licence not in (*OPENRAIL, OTHER):
        yield (
            f"{of} is under {theirs}, whose rules of use go with what is made from it, but "
            f"license is {licence}: give {theirs}, or other with a licence that has them"
        )


def asks_for_names(licence: str) -> bool:
    """Whether whoever passes it on must name its authors."""
    return licence.startswith("cc-by")


def licences_of(metadata: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(licences, sources) that the rows of a dataset's metadata.jsonl name, each once.

    Raises UserError where a row cannot be read.
    """
    licences: dict[str, None] = {}
    sources: dict[str, None] = {}
    for number, line in enumerate(metadata.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            found = (row.get("license"), row.get("source"))
        except (ValueError, AttributeError) as error:
            raise UserError(f"{metadata}: line {number} is no JSON object ({error})") from None
        for kept, value in zip((licences, sources), found, strict=True):
            if isinstance(value, str) and value.strip():
                kept.setdefault(value.strip())
    return tuple(name.lower() for name in licences), tuple(sources)


def check_licences(
    licence: str, base: str, data: Sequence[str], attribution: Sequence[str]
) -> list[str]:
    """All that is wrong between an adapter's licence and those of what it is made from."""
    problems = []
    if not base:
        problems.append("base_license must be given: the base has no card that says it")
    if not data:
        problems.append("data_license must be given: the dataset has no `license` column")
    theirs = [("the base", base)] if base else []
    theirs += [("the dataset", name) for name in data]
    for of, name in theirs:
        if name not in KNOWN:
            problems.append(
                f"{of} is under {name!r}, which the hub has no id for: give "
                f"{'base' if of == 'the base' else 'data'}_license (other, where none fits)"
            )
            continue
        problems += conflicts(licence, of, name)
        if asks_for_names(name) and not attribution:
            problems.append(f"{of} is under {name}, so attribution must say whom to name")
    return problems

"""The checks of `unskew verify`: what each looks at, and what it finds wrong and where."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unskew.adapters import WEIGHTS_FILE
from unskew.bases import resolve_base
from unskew.errors import UserError
from unskew.evaluate.schema import Results, load_results
from unskew.evaluate.summary import summary
from unskew.kohya import KOHYA_FILE
from unskew.pipelines import base_sha256
from unskew.runs import sha256_file
from unskew.scripts.belonging import header
from unskew.scripts.bundle_cells import redraw
from unskew.scripts.bundle_schema import (
    BUNDLE,
    CARD,
    CELLS,
    CHECKSUMS,
    RESULTS,
    SUMMARY,
    TRAINING,
    Cells,
    Checksums,
    Facts,
    load_part,
)
from unskew.scripts.card_metadata import check_metadata
from unskew.scripts.formats import format_differences
from unskew.scripts.model_card import CARD_VERSION, render_card

TOLERANCE = 4.0
"""Largest mean absolute difference, in grey levels of 255, of a picture that was drawn again on
another machine from the study's."""
SHOWN = 5
OF_THE_HUB = (".gitattributes",)
"""Files that the hub adds by itself."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    said: str
    """What was looked at, in words."""
    problems: tuple[str, ...]
    """What is wrong and where; empty where all is well."""


@dataclass(frozen=True)
class Bundle:
    """What a bundle says, read once."""

    folder: Path
    facts: Facts
    training: dict[str, object]
    results: Results | None


CACHE = Path("runs/cache")
"""Where a base of one file is unpacked, as `unskew train` does."""


def verify(
    folder: Path, cells: int, base: str | None = None, base_config: Path | None = None
) -> Iterator[Check]:
    """The checks of a bundle, one after the other.

    Raises UserError, before the first, where drawing is asked for and the base cannot be had.
    """
    bundle, unread = _read(folder)
    found = _base(bundle, base, base_config) if bundle and bundle.facts.measured and cells else None
    yield _hashes(folder)
    if bundle is None:
        yield Check("contents", "what its files say", unread)
        return
    yield _belongs(bundle)
    yield _card(bundle)
    yield _formats(bundle)
    if found is not None:
        yield _cells(bundle, found, cells)


def _read(folder: Path) -> tuple[Bundle | None, tuple[str, ...]]:
    """The bundle, or why it cannot be read."""
    try:
        facts = load_part(Facts, folder / BUNDLE)
        training = json.loads((folder / TRAINING).read_text("utf-8"))
        results = load_results(folder / RESULTS) if facts.measured else None
    except (UserError, OSError, ValueError) as error:
        return None, (str(error),)
    return Bundle(folder, facts, training, results), ()


def _hashes(folder: Path) -> Check:
    """Every file is there, is what it was, and no other is."""
    try:
        known = load_part(Checksums, folder / CHECKSUMS).files
    except UserError as error:
        return Check("hashes", CHECKSUMS, (str(error),))
    problems = []
    for name, due in known.items():
        file = folder / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif file.stat().st_size != due.size:
            problems.append(f"{name} has {file.stat().st_size} bytes, published were {due.size}")
        elif (sha256 := sha256_file(file)) != due.sha256:
            problems.append(
                f"{name} has changed: sha256 {sha256[:12]}..., published was {due.sha256[:12]}..."
            )
    there = {
        f.relative_to(folder).as_posix()
        for f in folder.rglob("*")
        if f.is_file() and ".cache" not in f.relative_to(folder).parts
    }
    strangers = sorted(there - set(known) - {CHECKSUMS, *OF_THE_HUB})
    problems += [f"{name} was not published with it" for name in strangers]
    return Check("hashes", f"{len(known)} files", _few(problems))


def _belongs(bundle: Bundle) -> Check:
    """Files, results and settings are of one adapter on one base."""
    folder, facts, results = bundle.folder, bundle.facts, bundle.results
    problems = []
    due = {WEIGHTS_FILE: facts.adapter_sha256, KOHYA_FILE: facts.kohya_sha256}
    for name, sha256 in due.items():
        if not (folder / name).is_file():
            continue  # which the hashes tell
        if sha256_file(folder / name) != sha256:
            problems.append(f"{BUNDLE} is of another {name}")
        problems += list(_header_problems(folder / name, facts))
    trained = bundle.training.get("facts")
    if not isinstance(trained, dict) or trained.get("adapter_sha256") != facts.adapter_sha256:
        problems.append(f"{TRAINING} is of another adapter")
    if results and facts.measured:
        problems += list(_of_this_adapter(results, facts))
    if results is None and not facts.refusals:
        problems.append(f"{BUNDLE} calls proven what has no study")
    measured = f"measured as arm {facts.measured.arm!r}" if facts.measured else "never measured"
    return Check("belonging", f"adapter {facts.adapter_sha256[:12]}..., {measured}", _few(problems))


def _header_problems(file: Path, facts: Facts) -> Iterator[str]:
    try:
        said = header(file)
    except UserError as error:
        yield str(error)
        return
    for key, due in (("base", facts.base.sha256), ("dataset", facts.dataset.sha256)):
        if said.get(f"unskew_{key}_sha256") != due:
            yield f"{file.name} says that it was trained on another {key} than {BUNDLE}"


def _of_this_adapter(results: Results, facts: Facts) -> Iterator[str]:
    measured = facts.measured
    assert measured is not None
    arm = results.arms.get(measured.arm)
    if arm is None or results.baseline != measured.baseline:
        yield f"{RESULTS} compares {' and '.join(results.arms)}, not what {BUNDLE} says"
        return
    worn = [(one.get("sha256"), one.get("weight")) for one in arm.facts.get("adapters", ())]
    if worn != [(facts.adapter_sha256, measured.weight)]:
        named = ", ".join(str(sha256)[:12] for sha256, _ in worn) or "none"
        yield (
            f"{RESULTS}: arms.{measured.arm}: the results are of adapter {named}... at weight "
            f"{', '.join(f'{weight:g}' for _, weight in worn)}, not of {facts.adapter_sha256[:12]}"
            f"... at {measured.weight:g}"
        )
    if results.gate.passed is False and not facts.refusals:
        yield f"{RESULTS}: the gate failed, but {BUNDLE} calls the adapter proven"


def _card(bundle: Bundle) -> Check:
    """Card and summary say what the results say."""
    folder, facts = bundle.folder, bundle.facts
    name, said = "card", f"{CARD} written again from {RESULTS}, {TRAINING} and {BUNDLE}"
    if facts.card_version != CARD_VERSION:
        return Check(
            name,
            said,
            (
                f"the card has the words of version {facts.card_version}, this Unskew writes "
                f"{CARD_VERSION}: check it with unskew {facts.code.unskew}",
            ),
        )
    due = {CARD: render_card(facts, bundle.training, bundle.results)}
    if bundle.results:
        due[SUMMARY] = summary(bundle.results)
    problems = [p for file, text in due.items() for p in _text_problems(folder / file, text)]
    return Check(name, said, (*problems, *check_metadata(due[CARD], folder)))


def _text_problems(file: Path, due: str) -> Iterator[str]:
    if not file.is_file():
        yield f"{file.name} is missing"
        return
    found = file.read_text("utf-8", errors="replace").splitlines()
    wanted = due.splitlines()
    for number in range(max(len(found), len(wanted))):
        here = found[number] if number < len(found) else "(nothing)"
        there = wanted[number] if number < len(wanted) else "(nothing)"
        if here != there:
            yield f"{file.name}, line {number + 1}: {here[:120]!r}, but it is {there[:120]!r}"
            return


def _formats(bundle: Bundle) -> Check:
    """Both files of the adapter are the same adapter."""
    one, other = bundle.folder / WEIGHTS_FILE, bundle.folder / KOHYA_FILE
    problems = format_differences(one, other, bundle.facts.base.family)
    return Check("formats", f"{one.name} against {other.name}", _few(problems))


def _base(bundle: Bundle, given: str | None, config: Path | None) -> Path:
    """The base's folder. Raises UserError where it is not to be had, or another one."""
    facts = bundle.facts.base
    try:
        revision = None if given else facts.revision
        folder = resolve_base(given or facts.id, revision=revision, config=config, cache=CACHE)
        sha256 = base_sha256(folder)
    except UserError as error:
        raise UserError(
            f"the base {facts.name} cannot be had, so nothing can be drawn again ({error}): give "
            "--base with the one that you have, or --cells 0"
        ) from None
    if sha256 != facts.sha256:
        raise UserError(
            f"base {given or facts.id} is not the one that was studied (sha256 {sha256[:12]}..., "
            f"studied was {facts.sha256[:12]}...): give --base with that one, or --cells 0"
        )
    return folder


def _cells(bundle: Bundle, base: Path, wanted: int) -> Check:
    """A sample of the study's pictures, drawn again."""
    name = "pictures"
    try:
        cells = load_part(Cells, bundle.folder / CELLS)
        drawn = list(redraw(cells, bundle.folder / WEIGHTS_FILE, base, bundle.folder, wanted))
    except UserError as error:
        return Check(name, "a sample drawn again", (str(error),))
    same, most = sum(one.same for one in drawn), max((one.difference for one in drawn), default=0)
    problems = [
        f"{one.arm}, {one.cell.text!r}, seed {one.cell.seed}: differs by {one.difference:.1f} grey "
        f"levels on average (allowed: {TOLERANCE:g}) from {one.cell.reference[one.arm]}"
        for one in drawn
        if one.difference > TOLERANCE
    ]
    if not drawn:
        problems.append(f"{CELLS} keeps no cells to draw again")
    said = (
        f"{len(drawn)} drawn again, {same} the same bit by bit, the others within {most:.2f} grey "
        "levels"
        if same < len(drawn)
        else f"{len(drawn)} drawn again, all the same bit by bit"
    )
    return Check(name, said, _few(problems))


def _few(problems: Sequence[str]) -> tuple[str, ...]:
    more = len(problems) - SHOWN
    return (*problems[:SHOWN], *([f"and {more} more"] if more > 0 else []))

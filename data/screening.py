"""From gathered to screened: every picture looked at once, judged, and written down.

All cores look; the looks are kept in `.work/looks.jsonl` in the order of gathering, and a build
that goes on takes from there what has not changed since. Then one pass over that file judges, for a
duplicate can only be told when all are known.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unskew.ahead import ahead
from unskew.data.build_setup import Setup
from unskew.data.duplicates import Known, Print, Twin, find_duplicates
from unskew.data.gather import Gathered
from unskew.data.label import row_of, split_of
from unskew.data.ledger import Ledger, Line, read_lines
from unskew.data.looking import Look, look_at
from unskew.data.rows import Row
from unskew.data.screen import ScreenSettings, kind_of, reason_against
from unskew.data.sources import AnySource, name_of

LOOKS = "looks.jsonl"
FaceCounter = Callable[[NDArray[np.uint8]], int]


@dataclass(frozen=True)
class Judged:
    """One gathered picture and what became of it."""

    name: str
    file: Path | None
    look: Look
    reason: str | None
    """Why it was left out; None where it is kept."""
    twin: tuple[str, Path] | None
    """Name and file of the picture that it is a duplicate of."""
    row: Row | None
    """What it became; None where it was left out."""


def look_over(
    pictures: Iterator[tuple[int, Gathered]],
    setup: Setup,
    count_faces: FaceCounter | None,
    progress: Callable[[], object] = lambda: None,
) -> Path:
    """Look at every (number of its source, picture) that was not looked at before; the ledger."""
    with Ledger(setup.work / LOOKS) as ledger:
        left: Iterator[tuple[int, Gathered]] = iter(())
        for item in pictures:
            former = ledger.next()
            known = _known(item)
            if former is None or {key: former.get(key) for key in known} != known:
                left = chain([item], pictures)
                break
            ledger.keep()
            progress()

        def look(item: tuple[int, Gathered]) -> Line:
            picture = item[1]
            known = _known(item)  # before its bytes are read: a change meanwhile is seen next time
            seen = Look(problem=picture.problem)
            if picture.file is not None:
                seen = look_at(picture.file, count_faces)
            return {**known, "look": _brief(seen)}

        for line in ahead(look, left, os.cpu_count() or 1):
            ledger.append(line)
            progress()
    return ledger.path


def judge(
    looks: Path,
    sources: Sequence[AnySource],
    settings: ScreenSettings,
    setup: Setup,
    held_out: Collection[str] = (),
) -> Iterator[Judged]:
    """What became of every picture, in the order of gathering.

    Of duplicates one of a subject `held_out` is kept before others, so that it is not trained on
    under another name.
    """
    twins, names = _twins(looks, sources, settings, setup, held_out)
    for number, line in enumerate(read_lines(looks)):
        look = Look(**line["look"])
        source = sources[line["source"]]
        name = _full_name(source, line)
        file = Path(line["file"]) if line["file"] else None
        reason = reason_against(look, settings)
        twin = twins.get(number)
        shown = None
        if reason is None and twin is not None:
            shown = names[twin.of]
            reason = _against_twin(twin, shown[0])
        row: Row | str = reason or ""
        if reason is None and line["file"]:
            row = row_of(name, look, line["file"], line["fields"], source, setup)
            reason = row if isinstance(row, str) else None
        yield Judged(name, file, look, reason, shown, row if isinstance(row, Row) else None)


def record_of(judged: Judged) -> Line:
    """What stands of a picture in screened.jsonl."""
    return {
        "picture": judged.name,
        "kept": judged.reason is None,
        "reason": judged.reason,
        "duplicate_of": judged.twin[0] if judged.twin else None,
        "width_px": judged.look.width_px,
        "height_px": judged.look.height_px,
        "sha256": judged.look.sha256 or None,
    }


def counted(reasons: Counter[str]) -> list[str]:
    """Lines that say how many were left out for what, the most first."""
    return [f"  {count} {reason}" for reason, count in reasons.most_common()]


def count_reason(reasons: Counter[str], judged: Judged) -> None:
    """Count why a picture was left out."""
    if judged.reason is not None:
        reasons[kind_of(judged.reason)] += 1


def _twins(
    looks: Path,
    sources: Sequence[AnySource],
    settings: ScreenSettings,
    setup: Setup,
    held_out: Collection[str],
) -> tuple[dict[int, Twin], dict[int, tuple[str, Path]]]:
    """Number -> what it duplicates; and name and file of what is duplicated."""
    known = Known(settings.near_bits, settings.near_levels, near=settings.near_duplicates)
    twins = find_duplicates(_prints(looks, sources, settings, setup, held_out), known)
    originals = {twin.of for twin in twins.values()}
    names = {
        number: (_full_name(sources[line["source"]], line), Path(line["file"]))
        for number, line in enumerate(read_lines(looks))
        if number in originals
    }
    return twins, names


def _prints(
    looks: Path,
    sources: Sequence[AnySource],
    settings: ScreenSettings,
    setup: Setup,
    held_out: Collection[str],
) -> Iterator[Print]:
    """Of the pictures that nothing else speaks against: what is left out duplicates nothing."""
    for number, line in enumerate(read_lines(looks)):
        look = Look(**line["look"])
        if reason_against(look, settings) is None:
            source = sources[line["source"]]
            split = split_of(line["fields"].get(source.columns.split))
            if held_out and line["file"]:
                row = row_of(
                    _full_name(source, line), look, line["file"], line["fields"], source, setup
                )
                split = "held_out" if isinstance(row, Row) and row.subject in held_out else split
            yield Print(number, look.sha256, look.luminance_hash, look.colours, split)


def _against_twin(twin: Twin, of: str) -> str:
    if twin.exact:
        return f"duplicate: the same bytes as {of}"
    return f"near duplicate: looks the same as {of}"


def _full_name(source: AnySource, line: Line) -> str:
    return f"{name_of(source)}/{line['name']}"


def _known(item: tuple[int, Gathered]) -> Line:
    """All that the line of a picture says beside its look; its size and time tell a change."""
    source, picture = item
    try:
        stat = picture.file.stat() if picture.file is not None else None
    except OSError:
        stat = None
    return {
        "source": source,
        "name": picture.name,
        "file": None if picture.file is None else str(picture.file),
        "bytes": None if stat is None else stat.st_size,
        "mtime_ns": None if stat is None else stat.st_mtime_ns,
        "fields": dict(picture.fields),
        "problem": picture.problem,
    }


def _brief(look: Look) -> dict[str, Any]:
    """Its fields without those that say nothing."""
    return {name: value for name, value in asdict(look).items() if value not in ("", None)}

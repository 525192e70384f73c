"""What the benchmark of the statistics found, as the Markdown blocks of docs/statistics.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

WITHIN = (0.93, 0.97)
MEAN_WITHIN = (0.945, 0.955)
NONE = "-"

Rows = Sequence[Mapping[str, Any]]


def blocks_of(report: Mapping[str, Any]) -> dict[str, str]:
    """Row of the page -> its block, for each part that was done."""
    makers: dict[str, Callable[[Any], Iterator[str]]] = {
        "grid": _grid,
        "these_prompts": _grid,
        "outside": _every_cell,
        "power": _power,
        "published": _published,
        "readings": _readings,
    }
    commit = f"Commit {report['commit']}."
    return {
        part: "\n".join([commit, "", *make(report[part])]) + "\n"
        for part, make in makers.items()
        if part in report
    }


def _grid(rows: Rows) -> Iterator[str]:
    """A summary, then a table with a line for each situation and target."""
    covered = [row["covered"] for row in rows]
    mean = sum(covered) / len(covered)
    out = [c for c in covered if not WITHIN[0] <= c <= WITHIN[1]]
    nulls = [row for row in rows if row["null"]]
    yield (
        f"{len(rows)} kinds of studies, {rows[0]['studies']:,} of each. Coverage of the 95 % "
        f"interval: mean {_percent(mean)} (wanted {_percent(MEAN_WITHIN[0])} to "
        f"{_percent(MEAN_WITHIN[1])}), lowest {_percent(min(covered))}, highest "
        f"{_percent(max(covered))}; {len(out)} outside of {_percent(WITHIN[0], 0)} to "
        f"{_percent(WITHIN[1], 0)}."
    )
    if nulls:
        found = [row["found"] for row in nulls]
        small = [row["p_small"] for row in nulls]
        yield (
            f"Where nothing changed ({len(nulls)} kinds), an interval excludes 0 in "
            f"{_percent(sum(found) / len(found))} of studies (at most 5.5 % wanted; highest kind "
            f"{_percent(max(found))}), and p is at most .05 in {_percent(sum(small) / len(small))} "
            f"(highest {_percent(max(small))})."
        )
    yield ""
    sizes = sorted({(row["prompts"], row["seeds"]) for row in rows})
    yield "| what happens | target | " + " | ".join(f"{p} x {s}" for p, s in sizes) + " |"
    yield "| --- | --- |" + " ---: |" * len(sizes)
    by_line: dict[tuple[str, str], dict[tuple[int, int], float]] = {}
    for row in rows:
        line = by_line.setdefault((row["situation"], _target(row["target"])), {})
        line[row["prompts"], row["seeds"]] = row["covered"]
    for (situation, target), line in by_line.items():
        cells = " | ".join(_percent(line[size]) if size in line else NONE for size in sizes)
        yield f"| {situation} | {target} | {cells} |"


def _every_cell(rows: Rows) -> Iterator[str]:
    yield (
        "| what happens | target | prompts x seeds | covered | interval below / above the truth | "
        "excludes 0 | p <= .05 | mean width |"
    )
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for row in rows:
        above = 1 - row["covered"] - row["missed_low"]
        yield (
            f"| {row['situation']} | {_target(row['target'])} | {row['prompts']} x {row['seeds']} "
            f"| {_percent(row['covered'])} | {_percent(row['missed_low'])} / {_percent(above)} "
            f"| {_percent(row['found'])} | {_percent(row['p_small'])} | {row['width']:.3f} |"
        )


def _power(rows: Rows) -> Iterator[str]:
    yield (
        "| target | prompts x seeds | smallest change seen | of the baseline's imbalance | seen in "
        "simulated studies (80 % wanted) |"
    )
    yield "| --- | ---: | ---: | ---: | ---: |"
    for row in rows:
        size = f"{row['prompts']} x {row['seeds']}"
        if row["change"] is None:
            yield f"| {_target(row['target'])} | {size} | none | {NONE} | {NONE} |"
            continue
        yield (
            f"| {_target(row['target'])} | {size} | {row['change']:.3f} "
            f"| {_percent(row['share'], 0)} of {row['baseline']:g} | {_percent(row['seen'])} |"
        )


def _published(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"Counts: {found['source']}."
    yield ""
    yield (
        "| arm | prompts | pictures | unreadable | mean \\|2p - 1\\|, as published | imbalance | "
        "gap |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for arm, row in found["arms"].items():
        yield (
            f"| {arm} | {row['prompts']} | {row['pictures']:,} | {_percent(row['unreadable'])} | "
            f"{row['plug_in']:.3f} | {row['imbalance']:.3f} | {row['gap']:.3f} |"
        )


def _readings(found: Mapping[str, Any]) -> Iterator[str]:
    where = found["machine"]
    yield (
        f"{where['date']}, {where['device']} ({where['cores']} cores), {where['system']}: "
        f"{found['readings']:,} readings ({found['arms']} arms x {found['prompts']:,} prompts x "
        f"{found['seeds']} seeds x {found['attributes']} attributes) from readings.parquet to "
        f"results.json in {found['seconds']:.0f} s, with a peak of {found['memory_gib']:.2f} GiB, "
        f"of which {found['memory_before_gib']:.2f} are the libraries (60 s and 2 GB wanted, the "
        "report included)."
    )


def _percent(share: float, digits: int = 1) -> str:
    return f"{share * 100:.{digits}f} %"


def _target(target: Sequence[float]) -> str:
    return " / ".join(f"{share:g}".lstrip("0") for share in target)

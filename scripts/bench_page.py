"""What a benchmark found as Markdown, and its place in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unskew.errors import UserError
from unskew.runs import write_text_atomic

PARTS = ("data", "encode", "target", "forward", "backward", "optimizer", "other")
"""A step's parts in their order. "target" is the frozen base's own prediction, ours only."""
NONE = "-"


def put(page: Path, row: str, block: str) -> None:
    """Replace what stands between the row's two markers. Raises UserError where they are missing.

    The markers are lines of their own: `<!-- row -->` and `<!-- end of row -->`.
    """
    start, end = f"<!-- {row} -->\n", f"<!-- end of {row} -->"
    text = page.read_text("utf-8") if page.is_file() else ""
    before, found, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise UserError(
            f"{page} has no place for row {row!r}: put the lines {start.strip()} and {end} where "
            "it is to stand"
        )
    write_text_atomic(page, f"{before}{start}{block}{end}{after}")


def block_of(report: Mapping[str, Any]) -> str:
    """A report's Markdown: where and when, then a table of both loops."""
    where = report["machine"]
    threads = f", {where['threads']} threads" if where["kind"] == "cpu" else ""
    lines = [
        f"{where['date']}, {where['device']} ({where['cores']} cores{threads}), {where['system']}, "
        f"torch {where['torch']}; batch {report['batch']}, {report['resolution_px']} px, "
        f"{report['repeats']} repeats of {report['steps']} steps in turns, "
        f"commit {report['commit']}.",
        "",
        f"| | ours{_dtype(report, 'ours')} | plain loop{_dtype(report, 'plain')} | ours / plain | "
        "wanted |",
        "| --- | --- | --- | --- | --- |",
        *_lines(report),
    ]
    return "\n".join(lines) + "\n"


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    wanted, ratio = report["wanted"], report["ratio"]
    yield _line(
        "images/s, median (lowest to highest)",
        [_spread(_of(report, loop, "images_per_second")) for loop in ("ours", "plain")],
        _spread(ratio),
        f"at least {wanted['ratio']:g}" if wanted["ratio"] else NONE,
    )
    for reached in (report["effect"] or {}).get("reached", []):
        whole = reached["fall"] == 1
        yield _line(
            f"seconds to {reached['fall']:.0%} of the fall: a mean imbalance of "
            f"{reached['imbalance']:.2f}",
            [_number(reached[f"{loop}_s"], ".3g", "not reached") for loop in ("ours", "plain")],
            _number(reached["share"], ".2f"),
            f"at most {wanted['effect_share']:g}" if whole and wanted["effect_share"] else NONE,
        )
    yield _line(
        "peak memory, GiB",
        [_number(_of(report, loop, "memory_gib"), ".2f") for loop in ("ours", "plain")],
        NONE,
        f"at most {wanted['memory_gib']:g}" if wanted["memory_gib"] else NONE,
    )
    yield _line(
        "TFLOP a step",
        [_number(_of(report, loop, "tflop_per_step"), ".3g") for loop in ("ours", "plain")],
    )
    yield _line(
        "TFLOP/s, of the device's peak",
        [_utilisation(_of(report, loop)) for loop in ("ours", "plain")],
    )
    yield _line(
        f"ms of a step: {' / '.join(PARTS)}",
        [_parts(_of(report, loop, "seconds_per_step")) for loop in ("ours", "plain")],
    )
    yield _line(
        "seconds of encoding before the first step",
        [_number(_of(report, loop, "encoding_s"), ".1f") for loop in ("ours", "plain")],
    )


def _of(report: Mapping[str, Any], loop: str, name: str | None = None) -> Any:
    figures = report["loops"].get(loop)
    return figures if figures is None or name is None else figures[name]


def _dtype(report: Mapping[str, Any], loop: str) -> str:
    dtype = _of(report, loop, "dtype")
    return f" ({dtype})" if dtype else ""


def _line(title: str, loops: Sequence[str], ratio: str = NONE, wanted: str = NONE) -> str:
    ours, plain = loops
    return f"| {title} | {ours} | {plain} | {ratio} | {wanted} |"


def _number(value: float | None, form: str, absent: str = NONE) -> str:
    return absent if value is None else f"{value:{form}}"


def _spread(spread: Mapping[str, float] | None) -> str:
    if spread is None:
        return NONE
    return f"{spread['median']:.3g} ({spread['min']:.3g} to {spread['max']:.3g})"


def _utilisation(figures: Mapping[str, Any] | None) -> str:
    if figures is None or figures["utilisation"] is None:
        return NONE
    done, peak = figures["tflop_per_s"], figures["peak_tflop_per_s"]
    return f"{done:.3g} of {peak:.3g}: {figures['utilisation']:.0%}"


def _parts(seconds: Mapping[str, float] | None) -> str:
    if seconds is None:
        return NONE
    return " / ".join(f"{1000 * seconds.get(part, 0.0):.3g}" for part in PARTS)

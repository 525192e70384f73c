"""What a card says of synthesis: what each cell cost, and who checked it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from unskew.data.card_own import plain
from unskew.data.rows import Tries

COST = "synthesis-cost.csv"
DEAREST = 20
"""Cells that the card lists by themselves."""


def cost_section(tries: Sequence[Tries], said: Sequence[str]) -> str:
    """Markdown: what was drawn for how many pictures, by subject, and the dearest cells."""
    kept, drawn = sum(t.kept for t in tries), sum(t.tries for t in tries)
    short = [t for t in tries if t.kept < t.wanted]
    lines = [
        f"{kept:,} pictures were kept of {drawn:,} that the base drew for {len(tries):,} cells, "
        f"one in {drawn / max(1, kept):.1f}. A cell that is rarely drawn right shows what the "
        "base makes of it at its luckiest.",
        "",
        *(f"- {plain(line)}" for line in said),
    ]
    if short:
        none = sum(t.kept == 0 for t in short)
        lines.append(
            f"- {len(short):,} cells lack pictures, {none:,} of them all: their tries were used "
            "up, or those of another cell of their subject, which is then left out, not drawn on"
        )
    lines += ["", "| subject | cells | kept | drawn | other subject | other value | screened |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for subject in dict.fromkeys(t.subject for t in tries):
        own = [t for t in tries if t.subject == subject]
        sums = [
            sum(n)
            for n in zip(
                *((t.kept, t.tries, t.other_subject, t.other_value, t.screened_out) for t in own),
                strict=True,
            )
        ]
        lines.append(f"| {plain(subject)} | {len(own)} | {' | '.join(map(str, sums))} |")
    lines += ["", f"The dearest cells; `{COST}` has all:", ""]
    lines += ["| subject | values | wanted | kept | drawn |", "| --- | --- | ---: | ---: | ---: |"]
    dearest = sorted(tries, key=lambda t: t.tries / max(t.kept, 0.5), reverse=True)[:DEAREST]
    lines += [
        f"| {plain(t.subject)} | {plain(', '.join(t.labels.values()))} | {t.wanted} | {t.kept} | "
        f"{t.tries} |"
        for t in dearest
    ]
    return "\n".join(lines)


def cost_table(tries: Sequence[Tries]) -> bytes:
    """CSV with a row a cell."""
    attributes = list(dict.fromkeys(a for t in tries for a in t.labels))
    counts = ("wanted", "kept", "tries", "other_subject", "other_value", "screened_out")
    text = io.StringIO()
    writer = csv.DictWriter(text, ["subject", *attributes, *counts], lineterminator="\n")
    writer.writeheader()
    for t in tries:
        row = {count: getattr(t, count) for count in counts}
        writer.writerow({"subject": t.subject, **t.labels, **row})
    return text.getvalue().encode()

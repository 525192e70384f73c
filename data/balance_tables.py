"""How balanced rows are, before and after: as a table and as a picture."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from unskew.attributes import Attribute
from unskew.data.rows import Row
from unskew.data.targets import Goal

COLOURS = (
    "#4c72b0",
    "#dd8452",
    "#55a868",
    "#c44e52",
    "#8172b3",
    "#937860",
    "#da8bc3",
    "#8c8c8c",
    "#ccb974",
    "#64b5cd",
)
UNKNOWN = "#e0e0e0"
WIDTH_PX, BAR_PX, LINE_PX, LEFT_PX = 900, 26, 40, 190


@dataclass(frozen=True)
class Balance:
    """How often a value is shown, before and after; shares are of the rows that have a value."""

    attribute: str
    value: str
    target: float
    """Mean over the subjects that have the attribute, each counted once."""
    before: float
    before_lowest: float
    """In the subject that shows it least."""
    before_highest: float
    after: float
    after_lowest: float
    after_highest: float
    pictures: int
    """That show it after, each counted once."""


def balance_rows(
    before: Sequence[Row],
    after: Iterable[tuple[Row, float]],
    goals: Mapping[str, Goal],
    attributes: Sequence[Attribute],
) -> tuple[Balance, ...]:
    """The table, over the subjects in `goals`; `after` are rows with their weights."""
    after = list(after)
    old = _shown(((row, 1.0) for row in before), goals)
    new = _shown(after, goals)
    names: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row, _ in after:
        for cell_value in row.cell:
            names[cell_value].add(row.name)
    table = []
    for attribute in attributes:
        owners = [(s, a) for s, g in goals.items() for a in g.attributes if a.id == attribute.id]
        for k, value in enumerate(attribute.values):
            target = sum(float(a.target[k]) for _, a in owners) / max(1, len(owners))
            sums = [_share(shown, attribute.id, value) for shown in (old, new)]
            pictures = len(names[attribute.id, value])
            table.append(Balance(attribute.id, value, target, *sums[0], *sums[1], pictures))
    return tuple(table)


def table_lines(table: Sequence[Balance]) -> list[str]:
    """The table for a terminal."""
    head = f"{'attribute':<20}{'value':<14}{'target':>8}{'before':>8}{'after':>8}" + (
        f"{'by subject':>17}{'pictures':>10}"
    )
    return [head] * bool(table) + [
        f"{b.attribute:<20}{b.value:<14}{b.target:>8.1%}{b.before:>8.1%}{b.after:>8.1%}"
        f"{f'{b.after_lowest:.1%} - {b.after_highest:.1%}':>17}{b.pictures:>10}"
        for b in table
    ]


def balance_picture(table: Sequence[Balance]) -> bytes:
    """PNG: for each attribute a bar of its shares before, one after, and the target's."""
    ids = list(dict.fromkeys(b.attribute for b in table))
    image = Image.new("RGB", (WIDTH_PX, max(1, len(ids)) * 5 * LINE_PX), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    y = 8
    for id in ids:
        own = [b for b in table if b.attribute == id]
        draw.text((8, y), id, fill="black", font=ImageFont.load_default(18))
        _legend(draw, font, own, y)
        for name, shares in (
            ("before", [b.before for b in own]),
            ("after", [b.after for b in own]),
            ("target", [b.target for b in own]),
        ):
            y += LINE_PX
            draw.text((40, y + 4), name, fill="black", font=font)
            _bar(draw, font, y, shares)
        y += 2 * LINE_PX
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def _bar(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    y: int,
    shares: Sequence[float],
) -> None:
    wide = WIDTH_PX - LEFT_PX - 20
    draw.rectangle((LEFT_PX, y, LEFT_PX + wide, y + BAR_PX), fill=UNKNOWN)
    at = float(LEFT_PX)
    for k, share in enumerate(shares):
        end = at + share * wide
        if share > 0:
            draw.rectangle((at, y, end, y + BAR_PX), fill=COLOURS[k % len(COLOURS)])
        if share >= 0.07:
            draw.text((at + 4, y + 4), f"{share:.0%}", fill="white", font=font)
        at = end


def _legend(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    own: Sequence[Balance],
    y: int,
) -> None:
    x = float(LEFT_PX)
    for k, b in enumerate(own):
        draw.rectangle((x, y + 4, x + 14, y + 18), fill=COLOURS[k % len(COLOURS)])
        draw.text((x + 18, y + 2), b.value, fill="black", font=font)
        x += 34 + draw.textlength(b.value, font=font)


Shown = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Attribute -> subject -> value -> how often."""


def _shown(rows: Iterable[tuple[Row, float]], goals: Mapping[str, Goal]) -> Shown:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row, weight in rows:
        if row.subject not in goals:
            continue
        for attribute, value in row.cell:
            by_value = found.setdefault(attribute, {}).setdefault(row.subject, {})
            by_value[value] = by_value.get(value, 0.0) + weight
    return found


def _share(shown: Shown, attribute: str, value: str) -> tuple[float, float, float]:
    """Share of the value over all, in the subject that shows it least, and in that with most."""
    subjects = shown.get(attribute, {})
    totals = {s: sum(by_value.values()) for s, by_value in subjects.items()}
    here = {s: by_value.get(value, 0.0) for s, by_value in subjects.items()}
    within = [here[s] / totals[s] for s in subjects if totals[s] > 0] or [0.0]
    total = sum(totals.values())
    return (sum(here.values()) / total if total else 0.0), min(within), max(within)

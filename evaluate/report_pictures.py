"""The report's pictures: what each cell showed in every arm, small enough to embed.

A page holds a bounded number of pixels: the first seeds of every prompt, as many as fit, the same
ones in every arm. Which ones depends on the study's size only, never on what they show.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from unskew.attributes import SUBJECT
from unskew.evaluate.pictures import (
    PictureError,
    PictureFiles,
    picture_files,
    read_picture,
)
from unskew.evaluate.report_words import plain, prompt_words
from unskew.evaluate.schema import PromptRow, Results

PIXELS = 16_000_000
"""Embedded in all: about 5.5 MB of HTML at this quality, 3,900 pictures of 64 px."""
THUMBNAIL_PX = 128
"""Larger pictures are shrunk to this width and height at most."""
WEBP_QUALITY = 85
TOP_PROMPTS = 8
TOP_SEEDS = 8
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Picture:
    """One picture of one arm, and what the classifier read."""

    arm: str
    uri: str
    """A data: URI; empty when the file is missing or broken."""
    reading: str
    """ "woman, pale"."""
    changed: tuple[str, ...]
    """The values read here and not in the baseline's picture of this seed."""


@dataclass(frozen=True)
class Pair:
    """One seed: the baseline's picture first, then every other arm's."""

    seed: int
    pictures: tuple[Picture, ...]

    @property
    def changed(self) -> bool:
        """Whether any arm's picture reads otherwise than the baseline's."""
        return any(picture.changed for picture in self.pictures)


@dataclass(frozen=True)
class Strip:
    """The pairs of one prompt."""

    prompt_id: str
    text: str
    suite: str
    subject: str
    pairs: tuple[Pair, ...]

    @property
    def n_changed(self) -> int:
        """How many of the pairs shown read otherwise."""
        return sum(pair.changed for pair in self.pairs)


@dataclass(frozen=True)
class Example:
    """A strip that the page opens with, and the value that the baseline leans to there."""

    strip: Strip
    value: str
    before: float
    after: tuple[tuple[str, float], ...]
    """(arm, share) of every other arm. Shares are over all seeds."""
    target: float


@dataclass(frozen=True)
class Gallery:
    """All strips, and how much of the study they show."""

    top: tuple[Example, ...]
    strips: tuple[Strip, ...]
    n_shown: int
    n_planned: int
    """Pairs shown, and pairs in the study."""
    sampled: bool
    """Whether there were too many prompts even for one seed each, so that some are left out."""

    @property
    def subjects(self) -> list[str]:
        """The subjects that strips show, in alphabetical order."""
        return sorted({strip.subject for strip in self.strips})

    @property
    def suites(self) -> list[str]:
        """The suites that strips show, in the study's order."""
        return list(dict.fromkeys(strip.suite for strip in self.strips))


@dataclass(frozen=True)
class _Source:
    """Where a study's pictures lie and what was read on them."""

    files: PictureFiles
    arms: tuple[str, ...]
    seeds: Mapping[str, tuple[int, ...]]
    suites: Mapping[str, str]
    facts: Mapping[str, tuple[str, str]]
    """Prompt id -> (text, subject), of neutral prompts."""
    shown: Mapping[tuple[str, str, int], Mapping[str, str]]
    """(arm, prompt id, seed) -> attribute -> the value read, or "unreadable"."""

    def strip(self, prompt_id: str, limit: int) -> Strip | None:
        """The first pairs of a prompt; None when none of them has a picture."""
        pairs = [self._pair(prompt_id, seed) for seed in self.seeds[prompt_id][:limit]]
        pairs = [pair for pair in pairs if any(picture.uri for picture in pair.pictures)]
        if not pairs:
            return None
        text, subject = self.facts.get(
            prompt_id, (prompt_words(prompt_id), self._usual_subject(prompt_id))
        )
        return Strip(prompt_id, text, self.suites[prompt_id], subject, tuple(pairs))

    def _pair(self, prompt_id: str, seed: int) -> Pair:
        before = self.shown.get((self.arms[0], prompt_id, seed), {})
        pictures = []
        for arm in self.arms:
            now = self.shown.get((arm, prompt_id, seed), {})
            values = [plain(value) for attribute, value in now.items() if attribute != SUBJECT]
            pictures.append(
                Picture(
                    arm=arm,
                    uri=_thumbnail(self.files.root(arm), self.files.file(arm, prompt_id, seed)),
                    reading=", ".join(values or [plain(now.get(SUBJECT, "not read"))]),
                    changed=tuple(
                        plain(now[a]) for a in now if a in before and now[a] != before[a]
                    ),
                )
            )
        return Pair(seed, tuple(pictures))

    def _usual_subject(self, prompt_id: str) -> str:
        read = [
            self.shown.get((self.arms[0], prompt_id, seed), {}).get(SUBJECT, UNREADABLE)
            for seed in self.seeds[prompt_id]
        ]
        return max(sorted(set(read)), key=read.count)


def load_gallery(folder: Path, results: Results, readings: pd.DataFrame) -> Gallery:
    """The pictures of a study folder; prompts without a single picture are left out."""
    source = _source(picture_files(folder), results, readings)
    every, per_prompt = _budget(source)
    found = (source.strip(prompt_id, per_prompt) for prompt_id in list(source.seeds)[::every])
    strips = tuple(strip for strip in found if strip)
    return Gallery(
        top=_most_skewed(source, results),
        strips=strips,
        n_shown=sum(len(strip.pairs) for strip in strips),
        n_planned=sum(len(seeds) for seeds in source.seeds.values()),
        sampled=every > 1,
    )


def _source(files: PictureFiles, results: Results, readings: pd.DataFrame) -> _Source:
    shown: dict[tuple[str, str, int], dict[str, str]] = {}
    columns = readings[["arm", "prompt_id", "seed", "attribute", "value", "readable"]]
    for arm, prompt_id, seed, attribute, value, readable in columns.itertuples(index=False):
        read = shown.setdefault((str(arm), str(prompt_id), int(seed)), {})
        read[str(attribute)] = str(value) if readable else UNREADABLE
    suites = dict(zip(readings["prompt_id"], readings["suite"], strict=True))
    seeds = readings.groupby("prompt_id", sort=False)["seed"].unique()
    return _Source(
        files=files,
        arms=(results.baseline, *(arm for arm in results.arms if arm != results.baseline)),
        seeds={str(id): tuple(sorted(int(s) for s in seeds[id])) for id in seeds.index},
        suites={str(id): str(suite) for id, suite in suites.items()},
        facts={
            prompt.prompt_id: (prompt.text, prompt.subject)
            for row in results.representation
            for prompt in row.per_prompt
        },
        shown=shown,
    )


def _most_skewed(source: _Source, results: Results) -> tuple[Example, ...]:
    """The examples that the page opens with.

    The baseline alone chooses: from every attribute and suite in turn the prompt that it skews
    most, each subject once. What the other arms made of them has no say.
    """
    prompts: dict[tuple[str, str], dict[str, list[tuple[str, PromptRow]]]] = {}
    for row in results.representation:
        same = prompts.setdefault((row.attribute, row.suite), {})
        for prompt in row.per_prompt:
            same.setdefault(prompt.prompt_id, []).append((row.arm, prompt))
    queues = [
        sorted(same.values(), key=lambda arms: -(arms[0][1].baseline.imbalance or 0))
        for same in prompts.values()
    ]
    chosen: dict[str, Example] = {}
    while any(queues):
        for queue in queues:
            while queue and len(chosen) < TOP_PROMPTS:
                arms = queue.pop(0)
                prompt = arms[0][1]
                strip = source.strip(prompt.prompt_id, TOP_SEEDS)
                if strip is not None and prompt.baseline.shares and prompt.subject not in chosen:
                    chosen[prompt.subject] = _example(strip, arms)
                    break
        if len(chosen) == TOP_PROMPTS:
            break
    return tuple(chosen.values())


def _example(strip: Strip, arms: Sequence[tuple[str, PromptRow]]) -> Example:
    prompt = arms[0][1]
    before = prompt.baseline.shares
    value = max(prompt.target, key=lambda v: before.get(v, 0) - prompt.target[v])
    after = (
        (arm, row.treated.shares.get(value, 0.0))
        for arm, row in arms
        if row.treated and row.treated.shares
    )
    return Example(strip, value, before.get(value, 0.0), tuple(after), prompt.target[value])


def _budget(source: _Source) -> tuple[int, int]:
    """(take every n-th prompt, this many seeds of each), so that the page stays within PIXELS."""
    width, height = _first_size(source)
    pixels = min(width, THUMBNAIL_PX) * min(height, THUMBNAIL_PX)
    fits = max(1, PIXELS // (pixels * len(source.arms)))
    every = max(1, -(-len(source.seeds) // fits))
    return every, max(1, fits // max(1, -(-len(source.seeds) // every)))


def _first_size(source: _Source) -> tuple[int, int]:
    for prompt_id, seeds in source.seeds.items():
        for arm in source.arms:
            file = source.files.file(arm, prompt_id, seeds[0])
            try:
                if file is not None:
                    height, width, _ = read_picture(file).shape
                    return width, height
            except PictureError:
                continue
    return THUMBNAIL_PX, THUMBNAIL_PX


def _thumbnail(root: Path, file: Path | None) -> str:
    """A WebP data: URI; empty for a file that is missing, broken or outside of its folder."""
    try:
        if file is None or not file.resolve().is_relative_to(root.resolve()):
            return ""
        small = Image.fromarray(read_picture(file))
    except (PictureError, OSError, ValueError):
        return ""
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=WEBP_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

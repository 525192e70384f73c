"""The report's pictures: what each cell showed in every arm.

A page has a bounded number of pictures: the first seeds of every prompt, as many as fit, the same
ones in every arm. Which ones depends on the study's size only, never on what they show. Where they
all fit inside the page they are in it, else they are files beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from unskew.attributes import SUBJECT
from unskew.evaluate.pictures import PictureFiles, picture_files
from unskew.evaluate.report_words import plain, prompt_words
from unskew.evaluate.schema import PromptRow, Results
from unskew.evaluate.thumbnails import FOLDER, THUMBNAIL_PX, Thumbnails, first_size

PIXELS = 16_000_000
"""Embedded at most: about 5.5 MB of HTML at this quality, 3,900 pictures of 64 px."""
MOST_PICTURES = 50_000
"""On a page, in it or beside it: more would make a browser slow."""
COLUMNS = ["arm", "prompt_id", "suite", "seed", "attribute", "value", "readable"]
"""What the report needs of readings.parquet."""
TOP_PROMPTS = 8
TOP_SEEDS = 8
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Picture:
    """One picture of one arm, and what the classifier read."""

    arm: str
    uri: str
    """A data: URI or a relative path; empty when the file is missing or broken."""
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
    beside: str
    """The folder beside the page that holds the pictures; empty where the page does."""

    @property
    def subjects(self) -> list[str]:
        """The subjects that strips show, in alphabetical order."""
        return sorted({strip.subject for strip in self.strips})

    @property
    def suites(self) -> list[str]:
        """The suites that strips show, in the study's order."""
        return list(dict.fromkeys(strip.suite for strip in self.strips))


class _Readings:
    """What was read on each picture, looked up prompt by prompt: most prompts are never asked."""

    def __init__(self, table: pd.DataFrame) -> None:
        names = ("arm", "seed", "attribute", "value", "readable")
        self._columns = [table[name].to_numpy() for name in names]
        self._rows = {str(id): at for id, at in table.groupby("prompt_id").indices.items()}

    def of(self, prompt_id: str) -> dict[tuple[str, int], dict[str, str]]:
        """(arm, seed) -> attribute -> the value read, or "unreadable"."""
        shown: dict[tuple[str, int], dict[str, str]] = {}
        at = self._rows.get(prompt_id, np.empty(0, dtype=np.int64))
        for arm, seed, attribute, value, readable in zip(
            *(column[at] for column in self._columns), strict=True
        ):
            read = shown.setdefault((str(arm), int(seed)), {})
            if isinstance(attribute, str):  # else the picture is there, and nothing of it was read
                read[str(attribute)] = str(value) if readable else UNREADABLE
        return shown


@dataclass(frozen=True)
class _Source:
    """Where a study's pictures lie and what was read on them."""

    arms: tuple[str, ...]
    seeds: Mapping[str, tuple[int, ...]]
    suites: Mapping[str, str]
    facts: Mapping[str, tuple[str, str]]
    """Prompt id -> (text, subject), of neutral prompts."""
    readings: _Readings

    def strip(self, prompt_id: str, limit: int, thumbnails: Thumbnails) -> Strip | None:
        """The first pairs of a prompt; None when none of them has a picture."""
        shown = self.readings.of(prompt_id)
        pairs = [
            self._pair(prompt_id, seed, shown, thumbnails) for seed in self.seeds[prompt_id][:limit]
        ]
        pairs = [pair for pair in pairs if any(picture.uri for picture in pair.pictures)]
        if not pairs:
            return None
        text, subject = self.facts.get(
            prompt_id, (prompt_words(prompt_id), self._usual_subject(prompt_id, shown))
        )
        return Strip(prompt_id, text, self.suites[prompt_id], subject, tuple(pairs))

    def _pair(
        self,
        prompt_id: str,
        seed: int,
        shown: Mapping[tuple[str, int], Mapping[str, str]],
        thumbnails: Thumbnails,
    ) -> Pair:
        before = shown.get((self.arms[0], seed), {})
        pictures = []
        for arm in self.arms:
            now = shown.get((arm, seed), {})
            values = [plain(value) for attribute, value in now.items() if attribute != SUBJECT]
            pictures.append(
                Picture(
                    arm=arm,
                    uri=thumbnails.uri((arm, prompt_id, seed)),
                    reading=", ".join(values or [plain(now.get(SUBJECT, "not read"))]),
                    changed=tuple(
                        plain(now[a]) for a in now if a in before and now[a] != before[a]
                    ),
                )
            )
        return Pair(seed, tuple(pictures))

    def _usual_subject(
        self, prompt_id: str, shown: Mapping[tuple[str, int], Mapping[str, str]]
    ) -> str:
        read = [
            shown.get((self.arms[0], seed), {}).get(SUBJECT, UNREADABLE)
            for seed in self.seeds[prompt_id]
        ]
        return max(sorted(set(read)), key=read.count)


def load_gallery(study: Path, results: Results, readings: pd.DataFrame) -> Gallery:
    """The pictures of a study folder; prompts without a single picture are left out.

    `readings` has COLUMNS. Writes the thumbnails that the page cannot hold.
    """
    source, files = _source(results, readings), picture_files(study)
    n_planned = sum(len(seeds) for seeds in source.seeds.values())
    if not (files.images.is_dir() or files.elsewhere):
        return Gallery((), (), 0, n_planned, sampled=False, beside="")
    every, per_prompt, inline = _budget(source, files)
    thumbnails = Thumbnails(study, inline)
    prompts = list(source.seeds)[::every]
    thumbnails.make(
        (arm, id, seed)
        for id in prompts
        for seed in source.seeds[id][:per_prompt]
        for arm in source.arms
    )
    found = (source.strip(id, per_prompt, thumbnails) for id in prompts)
    strips = tuple(strip for strip in found if strip)
    return Gallery(
        top=_most_skewed(source, results, Thumbnails(study, inline=True)),
        strips=strips,
        n_shown=sum(len(strip.pairs) for strip in strips),
        n_planned=n_planned,
        sampled=every > 1,
        beside="" if inline or not strips else "images" if thumbnails.small else FOLDER,
    )


def _source(results: Results, readings: pd.DataFrame) -> _Source:
    first = readings.drop_duplicates("prompt_id")
    seeds = readings[["prompt_id", "seed"]].drop_duplicates().groupby("prompt_id", sort=False)
    return _Source(
        arms=(results.baseline, *(arm for arm in results.arms if arm != results.baseline)),
        seeds={str(id): tuple(sorted(map(int, part))) for id, part in seeds["seed"]},
        suites=dict(zip(map(str, first["prompt_id"]), map(str, first["suite"]), strict=True)),
        facts={
            prompt.prompt_id: (prompt.text, prompt.subject)
            for row in results.representation
            for prompt in row.per_prompt
        },
        readings=_Readings(readings),
    )


def _most_skewed(source: _Source, results: Results, thumbnails: Thumbnails) -> tuple[Example, ...]:
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
                strip = source.strip(prompt.prompt_id, TOP_SEEDS, thumbnails)
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


def _budget(source: _Source, files: PictureFiles) -> tuple[int, int, bool]:
    """(take every n-th prompt, this many seeds of each, whether they fit inside the page)."""
    width, height = first_size(files)
    pixels = min(width, THUMBNAIL_PX) * min(height, THUMBNAIL_PX)
    most_seeds = max(map(len, source.seeds.values()), default=0)
    pictures = len(source.arms) * sum(map(len, source.seeds.values()))
    inline = pictures * pixels <= PIXELS
    fits = max(1, MOST_PICTURES // len(source.arms))
    every = max(1, -(-len(source.seeds) // fits))
    n_prompts = max(1, -(-len(source.seeds) // every))
    per_prompt = most_seeds if pictures <= MOST_PICTURES else max(1, fits // n_prompts)
    return every, per_prompt, inline

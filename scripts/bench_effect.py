"""Seconds of training until pictures are as balanced as is asked: what a user waits for.

Both loops start on the same base and get the same number of seconds, in turns; each one's learning
rate falls to zero over the steps that fit into them. Now and then the clocks stand still, a prompt
suite is drawn with the LoRA as it is, and its imbalance is read.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch.nn import Parameter

from unskew.adapters import attach
from unskew.attributes import Attribute, load_attribute
from unskew.evaluate.classifiers.exemplar import fit_folder
from unskew.evaluate.generate import Cell, Sampler, TextStates, draw_batch, plan_batches
from unskew.evaluate.stats import Floats, count_values, imbalance
from unskew.pipelines import choose_dtype, load_base
from unskew.prompts import Prompt, load_suites
from unskew.scripts.bench_loops import Loop
from unskew.scripts.bench_meters import seconds_of
from unskew.scripts.plain_loop import no_section
from unskew.train.options import LoraSettings

Imbalances = Mapping[str, float | None]
"""Attribute -> mean imbalance over a suite's prompts, None where too little could be read."""
Reader = Callable[[Mapping[str, Parameter]], Imbalances]
"""From a LoRA's weights to what the base draws with them."""
FALLS = (0.5, 0.75, 0.9, 1.0)
"""Parts of the plain loop's fall in imbalance, from the base's to what it ends at."""


@dataclass(frozen=True)
class Reading:
    """What was drawn after so much training."""

    steps: int
    seconds: float
    """Of training until then, the encoding of pictures and captions among it."""
    imbalance: Imbalances

    @property
    def mean(self) -> float | None:
        """Over the attributes, what training chooses weights by; None where one is unreadable."""
        values = list(self.imbalance.values())
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None


@dataclass(frozen=True)
class Judge:
    """What is drawn for a reading, and how it is read."""

    prompts: Path
    """A prompt file, as a study takes it."""
    suite: str
    seeds: int
    """Pictures a prompt."""
    exemplars: Path
    sampler: Sampler


def make_reader(base: Path, lora: LoraSettings, judge: Judge, device: torch.device) -> Reader:
    """Draws on a pipeline of its own, alike for both loops, on noise that is always the same.

    Raises UserError when the suite or the exemplars are missing.
    """
    [suite] = load_suites(judge.prompts, [judge.suite])
    attributes = {a: load_attribute(a) for p in suite.prompts for a in p.attributes}
    classifier = fit_folder(judge.exemplars, {id: a.values for id, a in attributes.items()})
    pipe = load_base(base, device, choose_dtype(device)[0])
    kept = attach({"unet": pipe.unet}, **lora.model_dump(exclude={"components"}))
    cells = [Cell(prompt, seed) for prompt in suite.prompts for seed in range(judge.seeds)]
    states = TextStates(pipe, judge.sampler.guidance > 1)

    def read(weights: Mapping[str, Parameter]) -> Imbalances:
        with torch.no_grad():
            for name, weight in weights.items():
                kept[f"unet.{name}"].copy_(weight)
        codes: dict[str, list[Any]] = {id: [] for id in attributes}
        for part in plan_batches(cells, judge.sampler.batch):
            told = states([cell.prompt.text for cell in part])
            readings = classifier.read(draw_batch(pipe, part, judge.sampler, told), [*codes])
            for id, reading in readings.items():
                codes[id] += reading.value_n.tolist()
        return imbalances(codes, suite.prompts, judge.seeds, attributes)

    return read


def imbalances(
    codes: Mapping[str, Sequence[int]],
    prompts: Sequence[Prompt],
    seeds: int,
    attributes: Mapping[str, Attribute],
) -> Imbalances:
    """Mean over the prompts of the imbalance that the studies report, by attribute.

    `codes` are the values read, prompt after prompt and seed after seed, -1 where unreadable; what
    follows them pads a batch. None where no prompt has two readable pictures.
    """
    found: dict[str, float | None] = {}
    for id, attribute in attributes.items():
        codes_ps = np.array(codes[id][: len(prompts) * seeds]).reshape(len(prompts), seeds)
        own = np.array([id in prompt.attributes for prompt in prompts])
        counts_pk = count_values(codes_ps[own], len(attribute.values))
        targets = [p.targets.get(id, attribute.target) for p in prompts if id in p.attributes]
        values_p = imbalance(counts_pk, np.array(targets))
        known_p = values_p[np.isfinite(values_p)]
        found[id] = float(known_p.mean()) if len(known_p) else None
    return found


def follow(
    loop: Loop, steps: int, readings: int, read: Reader, device: torch.device
) -> Iterator[Reading]:
    """Train for `steps` steps; read before the first, then `readings` times.

    Each comes after twice the steps of the one before, since most of an effect comes early. What
    was encoded before the first step took its seconds before the first reading. Nothing happens
    between two readings but when the next is asked for.
    """
    done, seconds = 0, loop.encoding_s
    for number in range(readings + 1):
        share = 2.0 ** (number - readings) if number else 0.0
        upcoming = range(done, max(done, math.ceil(steps * share)))
        if upcoming:
            seconds += seconds_of(partial(_train, loop, upcoming), 1, device)
        done = upcoming.stop
        reading = Reading(done, seconds, read(loop.parameters))
        print(f"{loop.name}: {reading}", file=sys.stderr, flush=True)
        yield reading


def _train(loop: Loop, steps: range) -> None:
    for step in steps:
        loop.step(step, no_section)


def pooled(courses: Sequence[Sequence[Reading]]) -> list[Reading]:
    """One course of several training seeds': means over them, reading by reading.

    They are of the same steps. An attribute is None where one seed's could not be read.
    """
    return [_mean_of(some) for some in zip(*courses, strict=True)]


def _mean_of(readings: Sequence[Reading]) -> Reading:
    imbalance: dict[str, float | None] = {}
    for id in readings[0].imbalance:
        values = [reading.imbalance[id] for reading in readings]
        known = [value for value in values if value is not None]
        imbalance[id] = float(np.mean(known)) if len(known) == len(values) else None
    [steps] = {reading.steps for reading in readings}
    return Reading(steps, float(np.mean([reading.seconds for reading in readings])), imbalance)


def smoothed(readings: Sequence[Reading]) -> Floats:
    """(n,) mean imbalance of each reading, were there no chance in which pictures are read.

    Training makes it fall; where a reading is above the one before, both are taken for their mean
    (isotonic regression, Barlow et al. 1972), so that no lucky reading counts as an arrival.
    """
    fit = isotonic_regression([reading.mean for reading in readings], increasing=False)
    return np.asarray(fit.x, dtype=np.float64)


def seconds_to(readings: Sequence[Reading], goal: float) -> float | None:
    """Seconds at which the smoothed imbalance first is at `goal` or below; None if it never is.

    Between the reading before and that one it is taken to fall in a straight line.
    """
    values = smoothed(readings)
    arrived = np.flatnonzero(values <= goal)
    if not len(arrived):
        return None
    first = int(arrived[0])
    if first == 0:
        return readings[0].seconds
    before, after = readings[first - 1].seconds, readings[first].seconds
    fallen = (values[first - 1] - goal) / (values[first - 1] - values[first])
    return float(before + (after - before) * fallen)


def compare(ours: Sequence[Reading], plain: Sequence[Reading]) -> list[dict[str, float | None]]:
    """Seconds of both to parts of the plain loop's fall in imbalance, and ours as a share of its.

    A row for each of `FALLS`, so nobody picks a goal. It may come to where it ends before its end,
    and that is when it counts. Empty where pictures could not be read; seconds and share are None
    where ours never arrives.
    """
    if any(reading.mean is None for reading in (*ours, *plain)):
        return []
    course = smoothed(plain)
    return [_arrivals(ours, plain, fall, course[0], course[-1]) for fall in FALLS]


def _arrivals(
    ours: Sequence[Reading], plain: Sequence[Reading], fall: float, start: float, end: float
) -> dict[str, float | None]:
    goal = float(end if fall == 1 else start + fall * (end - start))
    mine, other = seconds_to(ours, goal), seconds_to(plain, goal)
    share = mine / other if mine is not None and other else None
    return {"fall": fall, "imbalance": goal, "ours_s": mine, "plain_s": other, "share": share}

"""What a study will take: pictures, time, memory and disk, from one batch of every arm."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unskew.evaluate.arms import Wardrobe
from unskew.evaluate.cells import StudyPlan
from unskew.evaluate.generate import Cell, TextStates, draw_batch, missing_batches, plan_batches
from unskew.evaluate.inputs import Study
from unskew.evaluate.pictures import png_of, read_picture
from unskew.evaluate.power import Outlook, smallest_change
from unskew.evaluate.samplers import use_sampler
from unskew.pipelines import load_base

GIB = 2**30
READ_AT_MOST = 16
"""Pictures that the classifiers are timed on."""


@dataclass(frozen=True)
class Seen:
    """How small an improvement this study would see, at a baseline that is thought of."""

    attribute: str
    suite: str
    n_clusters: int
    """Subjects; where these have one prompt each, prompts."""
    n_seeds: int
    baseline: float
    """Imbalance that the baseline is taken to have."""
    change: float | None
    """Smallest change in imbalance seen by 80 of 100 such studies, below 0; None where not even the
    end of all skew would be."""


@dataclass(frozen=True)
class Forecast:
    """What is left to do, and what that takes in one process."""

    planned: int
    to_draw: int
    minutes: float
    """Of drawing and reading; loading and the statistics come on top."""
    memory_gib: float
    """The most that this process held so far, which has drawn a batch of every arm: of a GPU's
    in tensors, else the largest resident size."""
    disk_gib: float
    """Of the pictures that are to be drawn, as PNG."""
    disk_free_gib: float
    smallest_changes: tuple[Seen, ...]
    """Of the primaries, or where none is declared of all attributes on neutral suites."""


def dry_run(study: Study, as_json: bool) -> int:
    """Load everything, draw one batch of every arm in memory, read it, and tell what is to come."""
    batches = plan_batches(study.cells, study.settings.batch)
    to_draw = sum(
        len(set(part))
        for arm in study.settings.drawn
        for part in missing_batches(batches, study.images / arm)
    )
    drawing, reading, size, drawn = 0.0, 0.0, 0, 0
    for images, seconds in _one_batch_of_each(study, batches[0]):
        drawn += len(images)
        drawing += seconds
        size += sum(len(png_of(image)) for image in images)
        reading = _seconds_of_reading(study, batches[0], list(images[:READ_AT_MOST]))
    if not drawn:
        reading = _seconds_of_reading(study, *_some_found(study))
    planned = len(study.cells) * len(study.plan.arms)
    seconds = drawing * to_draw / max(drawn, 1) + reading * planned
    forecast = Forecast(
        planned=planned,
        to_draw=to_draw,
        minutes=round(seconds / 60, 3),
        memory_gib=round(_peak_memory(study.device) / GIB, 2),
        disk_gib=round(size / max(drawn, 1) * to_draw / GIB, 3),
        disk_free_gib=round(shutil.disk_usage(_existing(study.settings.out)).free / GIB, 1),
        smallest_changes=smallest_changes(study.plan),
    )
    if as_json:
        print(json.dumps(asdict(forecast)))
        return 0
    what = "one batch of each arm" if drawn else "nothing"
    print(
        f"dry run: {what} drawn; {forecast.to_draw} of {forecast.planned} pictures "
        f"are to be drawn: about {forecast.minutes:.1f} minutes with reading all, "
        f"{forecast.memory_gib:.1f} GiB of memory, {forecast.disk_gib:.2f} GiB of disk "
        f"({forecast.disk_free_gib:.0f} free)"
    )
    for seen in forecast.smallest_changes:
        print(_said(seen))
    if forecast.disk_gib > forecast.disk_free_gib:
        print("warning: the pictures will not fit this disk: give --out a folder on another one")
    return 0


def smallest_changes(plan: StudyPlan) -> tuple[Seen, ...]:
    """What the study can see, by attribute and suite; none for an audit.

    Left out are suites whose seeds are the unit, since what these see hangs on their own prompts,
    and targets of one value.
    """
    found = []
    for suite, role in plan.suite_roles.items() if plan.treated else ():
        for id, attribute in plan.attributes.items():
            prompts = [p for p in plan.prompts_of(suite) if id in p.attributes]
            asked = (id, suite) in plan.primaries or not plan.primaries
            if role != "neutral" or not prompts or not asked or plan.is_fixed(suite, prompts):
                continue
            targets = [p.targets.get(id, attribute.target) for p in prompts]
            target = tuple(np.mean(targets, axis=0).tolist())
            subjects, seeds = len({p.subject for p in prompts}), plan.seeds[suite]
            outlook = Outlook(target)
            with contextlib.suppress(ValueError):  # one value alone is wanted: no skew around it
                seen = smallest_change(outlook, subjects, seeds)
                change = seen.change if seen else None
                found.append(Seen(id, suite, subjects, seeds, outlook.baseline, change))
    return tuple(found)


def _said(seen: Seen) -> str:
    what = f"{seen.attribute}@{seen.suite}: {seen.n_clusters} prompts or subjects x {seen.n_seeds}"
    if seen.change is None:
        told = "seeds see nothing for certain, not even that all skew is gone: ask for more"
    else:
        told = f"seeds see a change of {seen.change:.2f} four times in five"
    return f"{what} {told} (if the baseline's imbalance is {seen.baseline})"


def _one_batch_of_each(
    study: Study, part: tuple[Cell, ...]
) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """(pictures, seconds) of a batch of every arm that is drawn here."""
    if study.base is None:
        return
    pipe = load_base(study.base, study.device, study.dtype)
    use_sampler(pipe, study.settings.sampler)
    wardrobe = Wardrobe(pipe)
    for arm in study.settings.drawn.values():
        with wardrobe.wearing(arm):
            started = time.perf_counter()
            states = TextStates(pipe, study.sampler.guidance > 1)
            words = [arm.rewritten(cell.prompt.id, cell.prompt.text) for cell in part]
            images_nhwc = draw_batch(pipe, part, study.sampler, states(words))
            yield images_nhwc, time.perf_counter() - started


def _some_found(study: Study) -> tuple[tuple[Cell, ...], list[NDArray[np.uint8]]]:
    """A few whole pictures of the first arm from a folder."""
    found = next(iter(study.found.values()))
    cells = [cell for cell in found.files if cell not in found.broken][:READ_AT_MOST]
    return tuple(cells), [read_picture(found.files[cell]) for cell in cells]


def _seconds_of_reading(
    study: Study, cells: tuple[Cell, ...], images: list[NDArray[np.uint8]]
) -> float:
    """Seconds that reading and measuring a picture takes."""
    asked = {attribute for cell in cells for attribute in cell.prompt.attributes}
    started = time.perf_counter()
    for reader in study.readers:
        wanted = [attribute for attribute in reader.attributes if attribute in asked]
        if wanted and images:
            reader.classifier.read(images, wanted)
    if images:
        study.meter.see(images)
    return (time.perf_counter() - started) / max(len(images), 1)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        most: int = torch.cuda.max_memory_allocated(device)
        return most
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(part for part in (folder.absolute(), *folder.absolute().parents) if part.exists())

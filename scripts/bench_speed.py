"""How fast loops train, in turns, and what a step of each goes into."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from unskew.scripts.bench_loops import Loop
from unskew.scripts.bench_meters import (
    Clock,
    Spread,
    flops_of,
    measured_peak,
    peak_memory,
    seconds_of,
)
from unskew.scripts.bench_options import BenchSettings
from unskew.scripts.plain_loop import Section, no_section
from unskew.train.surroundings import DTYPES

Step = Callable[[Section], object]
"""A loop's next step, telling of its parts."""
SPEED = (
    "images_per_second",
    "seconds_per_step",
    "tflop_per_step",
    "tflop_per_s",
    "peak_tflop_per_s",
    "utilisation",
)


def speed(
    loops: Sequence[Loop],
    settings: BenchSettings,
    batch: int,
    device: torch.device,
    memory: Mapping[str, float],
) -> tuple[dict[str, dict[str, Any]], Spread | None]:
    """Each loop's figures by its name, and the first's images/s over the second's, if there is one.

    `memory` is the peak of each in GiB, where that is known already.
    """
    steps = {loop.name: stepper(loop) for loop in loops}
    for name, step in steps.items():
        for _ in range(settings.warmup):
            step(no_section)
        if len(loops) == 1:
            memory = {name: peak_memory(device) / 2**30}
    rates = take_turns(steps, settings, batch, device)
    peaks = peaks_of(loops, settings, device)
    figures = {
        loop.name: {
            "dtype": loop.dtype,
            "loading_s": loop.loading_s,
            "encoding_s": loop.encoding_s,
            "memory_gib": memory.get(loop.name),
            **dict.fromkeys(SPEED),
        }
        for loop in loops
    }
    if not settings.repeats:
        return figures, None
    for loop in loops:
        figures[loop.name] |= speed_figures(
            steps[loop.name], rates[loop.name], settings.steps, batch, peaks[loop.dtype], device
        )
    if len(loops) == 1:
        return figures, None
    first, second = (rates[loop.name] for loop in loops)
    return figures, Spread.of([a / b for a, b in zip(first, second, strict=True)])


def stepper(loop: Loop) -> Step:
    """A loop's steps, one after the other."""
    numbers = itertools.count()
    return lambda section: loop.step(next(numbers), section)


def take_turns(
    steps: Mapping[str, Step], settings: BenchSettings, batch: int, device: torch.device
) -> dict[str, list[float]]:
    """Images/s of each repeat; who begins changes from one to the next."""
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(settings.repeats):
        for name in sorted(steps, reverse=repeat % 2 == 1):
            seconds = seconds_of(_plainly(steps[name]), settings.steps, device)
            rates[name].append(settings.steps * batch / seconds)
            say(
                f"repeat {repeat + 1} of {settings.repeats}, {name}: {rates[name][-1]:.3g} images/s"
            )
    return rates


def peaks_of(
    loops: Sequence[Loop], settings: BenchSettings, device: torch.device
) -> dict[str, float]:
    """TFLOP/s of the device in each precision that a loop has; a given one is the first loop's."""
    if not settings.repeats:
        return {}
    given = {loops[0].dtype: settings.peak_tflops}
    return {
        dtype: given.get(dtype) or measured_peak(device, DTYPES[dtype]) / 1e12
        for dtype in sorted({loop.dtype for loop in loops})
    }


def speed_figures(
    step: Step, rates: Sequence[float], steps: int, batch: int, peak: float, device: torch.device
) -> dict[str, Any]:
    """SPEED, of a loop that was timed. The parts of a step are timed apart, in as many steps."""
    clock = Clock(device)
    whole = seconds_of(lambda: step(clock.section), steps, device)
    parts = {**clock.seconds, "other": whole - sum(clock.seconds.values())}
    flops, spread = flops_of(_plainly(step)) / 1e12, Spread.of(rates)
    per_second = flops * spread.median / batch
    return {
        "images_per_second": asdict(spread),
        "seconds_per_step": {name: seconds / steps for name, seconds in parts.items()},
        "tflop_per_step": flops,
        "tflop_per_s": per_second,
        "peak_tflop_per_s": peak,
        "utilisation": per_second / peak,
    }


def _plainly(step: Step) -> Callable[[], object]:
    return lambda: step(no_section)


def say(text: str) -> None:
    """How far it is, on stderr: stdout is for results."""
    print(text, file=sys.stderr, flush=True)

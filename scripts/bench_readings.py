"""How long the statistics of a large table of readings take, and how much memory."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from unskew.attributes import Attribute
from unskew.evaluate.cells import StudyPlan
from unskew.evaluate.results import summarise, write_results
from unskew.prompts import Prompt
from unskew.scripts.bench_meters import machine, peak_memory
from unskew.scripts.bench_statistics_options import ReadingsSettings

BEFORE, AFTER = 0.8, 0.6
"""Share of an attribute's first value in the baseline and in the other arms."""
UNREADABLE = 0.05


def time_readings(settings: ReadingsSettings, seed: int) -> dict[str, Any]:
    """Seconds and peak memory from readings.parquet to results.json, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="unskew-bench-") as folder:
        write_readings(settings, Path(folder), seed)
        found: dict[str, Any] = _alone(summarise_readings, settings, Path(folder), seed)
    return {**found, "machine": machine(torch.device("cpu")), **settings.model_dump()}


def _alone(work: Callable[..., Any], *given: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, given)


def plan_of(settings: ReadingsSettings) -> StudyPlan:
    """One neutral suite whose prompts measure every attribute."""
    attributes = {}
    for n in range(settings.attributes):
        values = tuple(f"value {k}" for k in range(2 + n % 4))
        uniform = np.full(len(values), 1 / len(values))
        attributes[f"attribute {n}"] = Attribute(f"attribute {n}", "made up", values, uniform, "-")
    arms = ("baseline", *(f"arm {n}" for n in range(1, settings.arms)))
    prompts = tuple(
        Prompt(f"prompt-{n}", f"prompt {n}", "suite", f"subject {n}", tuple(attributes), {})
        for n in range(settings.prompts)
    )
    return StudyPlan(
        baseline=arms[0],
        arms=arms,
        prompts=prompts,
        suite_roles={"suite": "neutral"},
        attributes=attributes,
        seeds={"suite": settings.seeds},
    )


def write_readings(settings: ReadingsSettings, folder: Path, seed: int) -> None:
    """A readings.parquet of random answers to this plan."""
    plan, rng = plan_of(settings), np.random.default_rng(seed)
    parts = []
    for arm in plan.arms:
        share = BEFORE if arm == plan.baseline else AFTER
        for attribute in plan.attributes.values():
            shape = (settings.prompts, settings.seeds)
            others = rng.integers(1, len(attribute.values), shape)
            code = np.where(rng.random(shape) < share, 0, others).ravel()
            prompts = np.repeat([p.id for p in plan.prompts], settings.seeds)
            seeds = np.tile(np.arange(settings.seeds), settings.prompts)
            hashes = [f"{arm} {p} {s}".ljust(64, "0") for p, s in zip(prompts, seeds, strict=True)]
            part = {
                "arm": arm,
                "prompt_id": prompts,
                "suite": "suite",
                "seed": seeds,
                "attribute": attribute.id,
                "value": np.array(attribute.values, dtype=object)[code],
                "readable": rng.random(len(code)) >= UNREADABLE,
                "classifier": "made up",
                "image_sha256": hashes,
            }
            parts.append(pd.DataFrame(part))
    pd.concat(parts).to_parquet(folder / "readings.parquet", index=False)


def summarise_readings(settings: ReadingsSettings, folder: Path, seed: int) -> dict[str, Any]:
    """What `time_readings` measures, of this process."""
    plan = plan_of(settings)
    before = peak_memory(torch.device("cpu"))
    started = time.perf_counter()
    readings = pd.read_parquet(folder / "readings.parquet")
    results = summarise(readings, plan)
    write_results(results, folder / "results.json")
    return {
        "readings": len(readings),
        "seconds": time.perf_counter() - started,
        "memory_gib": peak_memory(torch.device("cpu")) / 2**30,
        "memory_before_gib": before / 2**30,
    }

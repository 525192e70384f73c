"""How long statistics and report take on a large study, and how much memory.

python scripts/bench_report.py                            # 1,000,000 readings, no pictures
python scripts/bench_report.py --prompts 1000 --pictures  # 1,000 prompts x 20 seeds, with pictures
python scripts/bench_report.py --prompts 50               # tiny

The readings are made up, an adapter that halves the skew; what is measured is `summarise`,
`write_results` and `write_report`, as a study runs them. Prints a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from unskew.attributes import SUBJECT, load_attribute
from unskew.evaluate.cells import StudyPlan
from unskew.evaluate.classify import SCHEMA
from unskew.evaluate.report import write_report
from unskew.evaluate.results import summarise, write_results
from unskew.prompts import Prompt, prompt_id
from unskew.runs import open_run
from unskew.settings import run_program

ARMS = ("base", "adapter")
ATTRIBUTES = ("gender_presentation", "age_group", "season")
SUITES = ("trained", "held_out")
PICTURE_PX = 64


def main(argv: Sequence[str]) -> int:
    """Make a study up, time its statistics and its report, and print what they took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=6250, help="in all, over two suites")
    parser.add_argument("--seeds", type=int, default=20, help="pictures a prompt and arm")
    parser.add_argument("--pictures", action="store_true", help="draw a picture for every cell")
    parser.add_argument("--out", type=Path, help="a new folder to keep the study in")
    arguments = parser.parse_args(list(argv))
    plan = _plan(arguments.prompts, arguments.seeds)
    readings = _readings(plan)
    scratch = nullcontext(arguments.out) if arguments.out else tempfile.TemporaryDirectory()
    with scratch as name:
        folder = Path(name) / "study" if not arguments.out else arguments.out
        run = open_run(folder, program="bench_report", settings={}, passed=(), inputs={})
        readings.to_parquet(folder / "readings.parquet")
        if arguments.pictures:
            _draw(plan, folder / "images")
        before_mb = _peak_mb()
        started = time.perf_counter()
        results = summarise(readings, plan)
        write_results(results, folder / "results.json")
        summarised = time.perf_counter()
        report = write_report(folder)
        ended = time.perf_counter()
        run.finish("complete")
        measured = {
            "readings": len(readings),
            "prompts": len(plan.prompts),
            "seeds": arguments.seeds,
            "pictures": len(ARMS) * len(plan.prompts) * arguments.seeds * arguments.pictures,
            "statistics_s": round(summarised - started, 1),
            "report_s": round(ended - summarised, 1),
            "total_s": round(ended - started, 1),
            "peak_mb": round(_peak_mb()),
            "peak_before_mb": round(before_mb),
            "results_mb": round((folder / "results.json").stat().st_size / 1e6, 1),
            "report_mb": round(report.stat().st_size / 1e6, 1),
        }
    print(json.dumps(measured))
    return 0


def _plan(n_prompts: int, n_seeds: int) -> StudyPlan:
    texts = [f"a photo of person number {number} at work" for number in range(n_prompts)]
    prompts = tuple(
        Prompt(
            id=prompt_id(text),
            text=text,
            suite=SUITES[number % len(SUITES)],
            subject=f"subject-{number}",
            attributes=ATTRIBUTES,
            asked={SUBJECT: f"subject-{number}"},
        )
        for number, text in enumerate(texts)
    )
    return StudyPlan(
        baseline=ARMS[0],
        arms=ARMS,
        prompts=prompts,
        suite_roles=dict.fromkeys(SUITES, "neutral"),
        attributes={id: load_attribute(id) for id in ATTRIBUTES},
        seeds=dict.fromkeys(SUITES, n_seeds),
        primaries=tuple((ATTRIBUTES[0], suite) for suite in SUITES),
    )


def _readings(plan: StudyPlan) -> pd.DataFrame:
    """The table of readings.parquet: every cell read, one in a hundred unreadable."""
    chance = np.random.default_rng(0)
    prompts = np.array([prompt.id for prompt in plan.prompts], dtype=object)
    suites = np.array([prompt.suite for prompt in plan.prompts], dtype=object)
    n_seeds = plan.seeds[SUITES[0]]
    lean_p = chance.beta(0.6, 0.6, len(prompts))
    parts = []
    for arm, strength in zip(ARMS, (1.0, 0.5), strict=True):
        share_p = 0.5 + strength * (lean_p - 0.5)
        where = np.repeat(np.arange(len(prompts)), n_seeds)
        seeds = np.tile(np.arange(n_seeds), len(prompts))
        pictures = np.array([f"{arm} {cell}" for cell in range(len(where))], dtype=object)
        for attribute in (SUBJECT, *ATTRIBUTES):
            readable = chance.random(len(where)) > 0.01
            if attribute == SUBJECT:
                values = np.array([p.subject for p in plan.prompts], dtype=object)[where]
            else:
                names = np.array(plan.attributes[attribute].values, dtype=object)
                first = chance.random(len(where)) < share_p[where]
                others = chance.integers(1, len(names), len(where))
                values = names[np.where(first, 0, others)]
            values[~readable] = None
            parts.append(
                pd.DataFrame(
                    {
                        "arm": arm,
                        "prompt_id": prompts[where],
                        "suite": suites[where],
                        "seed": seeds,
                        "attribute": attribute,
                        "value": values,
                        "readable": readable,
                        "probabilities": None,
                        "warning": None,
                        "classifier": "made up",
                        "image_sha256": pictures,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)[SCHEMA.names]


def _draw(plan: StudyPlan, images: Path) -> None:
    """Noise in one colour a prompt: as hard to compress as a picture is."""
    chance = np.random.default_rng(0)
    for arm in ARMS:
        for prompt in plan.prompts:
            folder = images / arm / prompt.id
            folder.mkdir(parents=True)
            tint = chance.integers(0, 200, 3)
            for seed in range(plan.seeds[prompt.suite]):
                pixels = tint + chance.integers(0, 56, (PICTURE_PX, PICTURE_PX, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(
                    folder / f"{seed}.png", compress_level=1
                )


def _peak_mb() -> float:
    """Most memory this process has held so far, in MB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

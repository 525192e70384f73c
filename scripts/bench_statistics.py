"""Simulate studies whose truth is known, and count how often the statistics say it.

    python scripts/bench_statistics.py                             # all of it; about half an hour
    python scripts/bench_statistics.py --studies 200 --parts grid  # roughly; a minute or two
    python scripts/bench_statistics.py --write docs/statistics.md  # the page's tables
    python scripts/bench_statistics.py --parts readings            # a million readings, timed
    python scripts/bench_statistics.py --dry-run                   # what would be done, how long
    the same command again                                         # goes on where it was stopped

Each study is drawn as pictures are: prompts from a population, noise that both arms share in part,
values cut from it, some of them unreadable. The functions that estimate are those of a study.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unskew.errors import UserError
from unskew.evaluate import power, spread, stats
from unskew.evaluate.power import Outlook
from unskew.runs import git_state, write_json_atomic
from unskew.scripts import bench_simulations
from unskew.scripts.bench_page import put
from unskew.scripts.bench_power import power_row
from unskew.scripts.bench_published import published_rows
from unskew.scripts.bench_readings import time_readings
from unskew.scripts.bench_simulations import SITUATIONS, Cell, coverage
from unskew.scripts.bench_statistics_options import GridSettings, StatisticsSettings
from unskew.scripts.bench_statistics_page import blocks_of
from unskew.settings import config_path, resolve, run_program

SOURCES = (stats, spread, power, bench_simulations)
"""What a finished cell depends on beside its settings."""


@dataclass(frozen=True)
class Job:
    """One kind of study and what is done with it."""

    part: str
    key: str
    about: Mapping[str, Any]
    work: Callable[[int], Any]
    """From a number of studies to what was found."""
    studies: int
    cost: float
    """Pictures drawn and numbers resampled, for telling the time that is left."""


def main(argv: Sequence[str]) -> int:
    """Simulate what is not finished yet, print Markdown (or JSON), write the page if asked; 0."""
    resolved = resolve(
        StatisticsSettings,
        argv,
        default_config=config_path("bench/study/statistics.yaml"),
        prog="bench_statistics",
        description=(__doc__ or "").splitlines()[0],
    )
    settings = resolved.settings
    if "published" in settings.parts and not settings.published.is_file():
        raise UserError(
            f"published: {settings.published} does not exist: start this in the repository's "
            "folder, or leave `published` out of parts"
        )
    jobs = list(jobs_of(settings))
    if resolved.dry_run:
        return dry_run(settings, jobs)
    report: dict[str, Any] = simulate(settings, jobs)
    if "published" in settings.parts:
        report["published"] = published_rows(settings.published)
    if "readings" in settings.parts:
        report["readings"] = time_readings(settings.readings, settings.seed)
    state = git_state()
    report["commit"] = (state["commit"] or "unknown")[:12] + " with changes" * bool(state["dirty"])
    report["settings"] = settings.model_dump(mode="json")
    blocks = blocks_of(report)
    print(json.dumps(report, indent=2) if resolved.json else "\n".join(blocks.values()))
    if settings.write:
        for row, block in blocks.items():
            put(settings.write, row, block)
    return 0


def jobs_of(settings: StatisticsSettings) -> Iterator[Job]:
    """Every kind of study that is asked for."""
    grids = {"grid": settings.grid, "outside": settings.outside}
    for part, grid in {**grids, "these_prompts": settings.these_prompts}.items():
        if part in settings.parts:
            for cell in cells_of(grid, settings, fixed=part == "these_prompts"):
                yield job_of(part, cell, settings)
    if "power" in settings.parts:
        for target in settings.power.targets:
            for prompts, seeds in settings.power.designs:
                yield power_job(target, prompts, seeds, settings)


def cells_of(grid: GridSettings, settings: StatisticsSettings, fixed: bool) -> Iterator[Cell]:
    """The combinations of a grid."""
    for situation in grid.situations:
        for target in grid.targets:
            for prompts in grid.prompts:
                for seeds in grid.seeds:
                    yield Cell(
                        situation=SITUATIONS[situation],
                        target=target,
                        prompts=prompts,
                        seeds=seeds,
                        fixed=fixed,
                        correlation=settings.correlation,
                        unreadable=settings.unreadable,
                    )


def job_of(part: str, cell: Cell, settings: StatisticsSettings) -> Job:
    """The coverage of one kind of study."""
    studies, seed = settings.studies, settings.seed

    def work(studies: int) -> dict[str, Any]:
        return asdict(coverage(cell, studies, seed))

    pictures = len(cell.clusters_p) * cell.seeds * len(cell.target)
    cost = studies * (pictures + (0 if cell.fixed else stats.RESAMPLES / 20 * cell.prompts))
    about = {**asdict(cell), "situation": cell.situation.title, "null": cell.situation.null}
    return Job(part, cell.key(studies, seed), about, work, studies, cost)


def power_job(
    target: tuple[float, ...], prompts: int, seeds: int, settings: StatisticsSettings
) -> Job:
    """How often the smallest change is seen."""
    studies, seed = settings.power.studies, settings.seed
    outlook = Outlook(target, correlation=settings.correlation)

    def work(studies: int) -> dict[str, Any]:
        return power_row(outlook, prompts, seeds, studies, seed)

    about = {**asdict(outlook), "prompts": prompts, "seeds": seeds}
    key = hashlib.sha256(repr((about, studies, seed)).encode()).hexdigest()[:16]
    cost = studies * (prompts * seeds * len(target) + stats.RESAMPLES / 20 * prompts)
    return Job("power", key, about, work, studies, cost)


def simulate(settings: StatisticsSettings, jobs: Sequence[Job]) -> dict[str, Any]:
    """Part -> what was found for each of its jobs, in their order; finished ones are read."""
    # Their numbers are those of this code: after a change of it nothing is finished.
    code = "".join(Path(str(module.__file__)).read_text("utf-8") for module in SOURCES)
    file = settings.out / f"{hashlib.sha256(code.encode()).hexdigest()[:12]}.json"
    done: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    report: dict[str, Any] = {}
    total = sum(job.cost for job in jobs if job.key not in done)
    form = "{desc} {percentage:3.0f}% [{elapsed} so far, {remaining} left]"
    with tqdm(total=total, bar_format=form, disable=None) as bar:
        for n, job in enumerate(jobs, 1):
            if job.key not in done:
                bar.set_description(f"{n}/{len(jobs)} {job.part}")
                done[job.key] = job.work(job.studies)
                file.parent.mkdir(parents=True, exist_ok=True)
                write_json_atomic(file, done)
                bar.update(job.cost)
            report.setdefault(job.part, []).append({**job.about, **done[job.key]})
    return report


def dry_run(settings: StatisticsSettings, jobs: Sequence[Job]) -> int:
    """Say what there is to do, do the first of it on a hundredth, and tell the time of all."""
    print(settings.model_dump_json(indent=2))
    counts = {part: sum(job.part == part for job in jobs) for part in settings.parts}
    print("kinds of studies: " + ", ".join(f"{part} {n}" for part, n in counts.items()))
    if not jobs:
        return 0
    first = jobs[0]
    less = max(20, first.studies // 50)
    first.work(less)  # what is made once only is made here
    started = time.perf_counter()
    first.work(less)
    seconds = (time.perf_counter() - started) * first.studies / less
    minutes = seconds / first.cost * sum(job.cost for job in jobs) / 60
    print(f"dry run: {less} studies of the first kind done; about {minutes:.0f} minutes for all")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

"""The study engine: arms x suites x seeds x attributes, run to a result.

Draw what is missing, read every picture, compute the statistics, write the report. The programs
`audit` and `paired` are openings onto `run_study`, `compare` onto `carry_out`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from tqdm import tqdm

from unskew.errors import UserError
from unskew.evaluate.arms import Wardrobe
from unskew.evaluate.classify import (
    ArmPictures,
    ReadingAhead,
    read_arm,
    read_part,
    write_readings,
)
from unskew.evaluate.corrected import with_labels
from unskew.evaluate.forecast import dry_run
from unskew.evaluate.generate import Cell, draw, missing_batches, plan_batches
from unskew.evaluate.inputs import Study, control_cells, look_over
from unskew.evaluate.options import OF_READING
from unskew.evaluate.options import StudySettings as StudySettings
from unskew.evaluate.pairs import write_pairs
from unskew.evaluate.pictures import write_elsewhere
from unskew.evaluate.report import write_report
from unskew.evaluate.results import Results, summarise, write_results
from unskew.evaluate.reuse import DRAWINGS, drawings
from unskew.evaluate.samplers import use_sampler
from unskew.evaluate.summary import write_summary
from unskew.pipelines import load_base
from unskew.processes import Processes, join_processes, started_alone
from unskew.runs import Run, open_run
from unskew.settings import Resolved

OF_DRAWING = ("device", "dtype", DRAWINGS)
"""Facts that are of the pictures, and not of whoever reads them later."""
Work = list[tuple[str, int]]
"""(arm, number of the batch) of what is to be drawn."""


@dataclass(frozen=True)
class Judged:
    """What a study found, and the readings that it found it in."""

    results: Results
    readings: pd.DataFrame


def run_study(
    resolved: Resolved[StudySettings],
    program: str,
    tell: Callable[[Results], Iterable[str]] | None = None,
) -> int:
    """Run a study to its report. Exit code 0, or 1 when its gate failed.

    `tell` makes the lines that the terminal gets of the results. With --json these are all that
    stdout gets; the rest goes to stderr.
    """
    if resolved.dry_run:
        return run_dry(resolved)

    def conclude(_: Study, judged: Judged) -> None:
        if tell:
            print("\n".join(tell(judged.results)))

    with redirect_stdout(sys.stderr) if resolved.json else nullcontext():
        judged = carry_out(resolved, program, conclude=conclude)
    if judged is None:
        return 0
    if resolved.json:
        print(judged.results.model_dump_json(indent=2))
    return 0 if judged.results.gate.passed is not False else 1


def run_dry(resolved: Resolved[StudySettings]) -> int:
    """Check all, draw a batch of every arm in memory, and tell what is to come; writes nothing."""
    processes = join_processes()
    study = look_over(resolved.settings)
    _say(study, processes)
    return dry_run(study, resolved.json) if processes.is_first else 0


def carry_out(
    resolved: Resolved[StudySettings],
    program: str,
    prepare: Callable[[Study], None] | None = None,
    conclude: Callable[[Study, Judged], None] | None = None,
) -> Judged | None:
    """What the study found; None in processes that only draw.

    Several processes deal the batches among them; the first one reads, judges and reports. In its
    folder it does `prepare` before anything is drawn, and `conclude` after the report.
    """
    processes = join_processes()
    started = time.perf_counter()
    study = look_over(resolved.settings)
    _say(study, processes)
    run = processes.only_first(lambda: _begin(resolved, study, program))
    with run or nullcontext():
        if prepare:
            processes.only_first(partial(prepare, study))
        seconds = {"look": time.perf_counter() - started}
        draw_arms(study, processes, seconds)
        processes.part()
        if run is None:
            return None
        judged = judge(study, run, seconds)
        if conclude:
            conclude(study, judged)
        total = time.perf_counter() - started
        rounded = {name: round(took, 1) for name, took in seconds.items()}
        run.finish("complete", {"seconds": round(total, 1), "seconds_of": rounded})
    for row in judged.results.unmeasured:
        print(f"not measured: {row.attribute} on {row.suite}: {row.why}")
    print(f"report: {run.folder / 'report.html'}")
    for reason in judged.results.gate.reasons:
        print(f"gate: {'holds' if reason.passed else 'FAILS'}: {reason.said}")
    return judged


def _say(study: Study, processes: Processes) -> None:
    for word in (started_alone(), *study.words):
        if word:
            processes.say(word)


def _begin(resolved: Resolved[StudySettings], study: Study, program: str) -> Run:
    return open_run(
        study.settings.out,
        program=program,
        settings=study.plan.settings,
        passed=resolved.passed,
        inputs=study.inputs,
        facts=partial(_facts, study),
        may_change=OF_READING if study.settings.relabel else (),
    )


def _facts(study: Study, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the manifest says of how pictures are drawn: of those that are there, how they were.

    Raises UserError where some are there and the others would be drawn otherwise.
    """
    now = {**study.facts, DRAWINGS: drawings(study)}
    drawn = (before or {}).get(DRAWINGS, {})
    changed = [arm for arm, how in now[DRAWINGS].items() if drawn.get(arm, how) != how]
    batches = plan_batches(study.cells, study.settings.batch)
    missing = [arm for arm, _ in _missing(study, batches)]
    if before is None or len(missing) == len(now[DRAWINGS]) * len(batches):
        return now
    if lacking := [arm for arm in missing if arm in changed]:
        there, here = (f"{f.get('device')}, dtype {f.get('dtype')}" for f in (before, now))
        raise UserError(
            f"{study.settings.out}: {len(lacking)} batches of pictures are missing, and those that "
            f"are there were drawn otherwise (there: {there}; here: {here}): go on where it was "
            "begun, or give another folder; one study does not mix the two"
        )
    return {**now, **{key: before[key] for key in OF_DRAWING if key in before}}


def draw_arms(study: Study, processes: Processes, seconds: dict[str, float]) -> None:
    """Draw what is missing of the arms that are drawn here, and wait until all of it is there."""
    batches = plan_batches(study.cells, study.settings.batch)
    work = processes.from_first(lambda: _missing(study, batches))
    mine = processes.share(work)
    if mine and study.base is not None:
        started = time.perf_counter()
        pipe = load_base(study.base, study.device, study.dtype)
        use_sampler(pipe, study.settings.sampler)
        seconds["load"] = time.perf_counter() - started
        wardrobe = Wardrobe(pipe)
        with _reading_ahead(study, processes), _bar(batches, mine, processes) as bar:
            for arm in dict.fromkeys(arm for arm, _ in mine):
                bar.set_description(arm)
                own = [batches[n] for name, n in mine if name == arm]
                _draw_arm(study, wardrobe, arm, own, bar)
        seconds["draw"] = time.perf_counter() - started - seconds["load"]
    processes.wait()
    if processes.is_first and (left := _missing(study, batches)):
        raise RuntimeError(f"{len(left)} batches were not drawn, the first of arm {left[0][0]}")


def _missing(study: Study, batches: Sequence[tuple[Cell, ...]]) -> Work:
    number = {part: n for n, part in enumerate(batches)}
    return [
        (arm, number[part])
        for arm in study.settings.drawn
        for part in missing_batches(batches, study.images / arm)
    ]


def _draw_arm(
    study: Study, wardrobe: Wardrobe, name: str, batches: Sequence[tuple[Cell, ...]], bar: Any
) -> None:
    arm, settings = study.settings.arms[name], study.settings
    negative = settings.negative_prompt if arm.negative_prompt is None else arm.negative_prompt
    with wardrobe.wearing(arm) as heard:
        for drawn in draw(
            wardrobe.pipe,
            batches,
            study.sampler,
            study.images / name,
            lambda prompt: arm.rewritten(prompt.id, prompt.text),
            negative,
            heard,
        ):
            bar.update(drawn)


def _bar(batches: Sequence[tuple[Cell, ...]], mine: Work, processes: Processes) -> Any:
    """Pictures drawn, how many a second, and when this process will be done."""
    total = sum(len(set(batches[n])) for _, n in mine)
    disable = None if processes.is_first else True
    return tqdm(total=total, unit="picture", smoothing=0.05, disable=disable)


def _reading_ahead(study: Study, processes: Processes) -> Any:
    if study.device.type == "cpu" or not processes.is_first:
        return nullcontext()
    arms = {arm: study.images / arm for arm in study.settings.drawn}

    def look(pictures: ArmPictures, part: Sequence[Cell]) -> None:
        read_part(pictures, part, study.readers, study.settings.out / "readings")
        study.meter.look(pictures, part)

    return ReadingAhead(arms, study.cells, look)


def judge(study: Study, run: Run, seconds: dict[str, float]) -> Judged:
    """Read every picture, compute the results and write the report."""
    started = time.perf_counter()
    pictures = {arm: study.pictures(arm) for arm in study.plan.arms}
    kept = run.folder / "readings"
    tables = [read_arm(pictures[arm], study.cells, study.readers, kept) for arm in pictures]
    readings = write_readings(tables, run.folder / "readings.parquet")
    measured = study.meter.measure(study.cells, pictures, control_cells(study))
    seconds["read"] = time.perf_counter() - started
    results = summarise(readings, study.plan, measured.features, measured)
    results = with_labels(results, readings, run.folder)
    write_results(results, run.folder / "results.json")
    seconds["compute"] = time.perf_counter() - started - seconds["read"]
    write_elsewhere(run.folder, {arm: (f.folder, f.names()) for arm, f in study.found.items()})
    if neutral := study.cells_of("neutral"):
        write_pairs({arm: p.files for arm, p in pictures.items()}, neutral, run.folder)
    write_summary(results, run.folder / "summary.md")
    write_report(run.folder)
    seconds["report"] = time.perf_counter() - started - seconds["read"] - seconds["compute"]
    return Judged(results, readings)

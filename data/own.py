"""Build a balanced, captioned dataset from pictures of yours, or let the base draw them.

unskew data build --config my-photos.yaml --dry-run   # what there is, and what would be taken
unskew data build --config my-photos.yaml             # writes the dataset
unskew data build --synthesis.most_tries 6            # tiny: Emoji World drawn by its own base
the same command again                                # goes on where it stopped
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext, redirect_stdout
from typing import Any

import yaml

from unskew.data.assembly import Assembly, assemble, assembly_lines
from unskew.data.build_setup import Setup
from unskew.data.checking import load_checkers
from unskew.data.collect import PAGE, RECORD, Plan, collect
from unskew.data.imagefolder import Folder, write_imagefolder
from unskew.data.label_check import PAGE as LABEL_PAGE
from unskew.data.label_check import agreement, write_check
from unskew.data.own_options import BuildSettings
from unskew.data.row_captions import captioner
from unskew.data.rows import Row, Wanted
from unskew.data.synthesis import base_of, synthesise
from unskew.data.synthesis_card import COST, cost_section, cost_table
from unskew.data.synthesis_options import said_of_judge
from unskew.data.targets import balanced_attributes
from unskew.errors import UserError
from unskew.pipelines import check_base, choose_device
from unskew.processes import join_processes
from unskew.runs import held
from unskew.settings import Resolved, config_path, resolve, run_program


def main(argv: Sequence[str]) -> int:
    """Collect, balance, draw what is missing, and write. Returns 0."""
    asked = resolve(
        BuildSettings,
        argv,
        default_config=config_path("emoji/synthesis.yaml"),
        prog="unskew data build",
        description=(__doc__ or "").split("\n")[0],
    )
    with redirect_stdout(sys.stderr) if asked.json else nullcontext():
        summary = build(asked)
    if asked.json and summary is not None:
        print(json.dumps(summary, indent=2))
    return 0


def build(asked: Resolved[BuildSettings]) -> dict[str, Any] | None:
    """What was built, as JSON; None in processes that only helped."""
    settings = asked.settings
    _check(settings)
    processes = join_processes()
    attributes = {a.id: a for a in balanced_attributes(settings.balance)}
    _check_subjects(settings, tuple(attributes))
    device = choose_device()[0]
    setup = Setup(settings.out, attributes, settings.subjects, processes, device)
    captioner(settings.captions, tuple(attributes.values()), settings.seed)
    if settings.synthesis is not None:
        load_checkers(settings.synthesis, tuple(attributes), setup)
        check_base(base_of(settings.synthesis))
    summary = None
    with ExitStack() as until_end:
        processes.only_first(lambda: until_end.enter_context(held(setup.work)))
        held_out = settings.splits.held_out
        plan = Plan(settings.sources, settings.screen, settings.label, held_out)
        rows = list(collect(plan, setup))
        sections = processes.from_first(lambda: _checked(rows, settings, setup))
        assembly = assemble(rows, (), settings, also=settings.subjects, sections=sections)
        extras: dict[str, bytes] = {}
        if assembly.missing and not asked.dry_run:
            assembly, extras = _drawn(rows, assembly, settings, setup, sections)
        if processes.is_first:
            print("\n".join(assembly_lines(assembly)))
            if asked.dry_run:
                print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), end="")
                print(f"dry run: no dataset was written; see {setup.work / PAGE}")
            else:
                extras |= {name: (setup.work / name).read_bytes() for name in (RECORD, PAGE)}
                _write(assembly, extras, asked.passed)
            summary = _summary(assembly)
    processes.part()
    return summary


def _checked(rows: Sequence[Row], settings: BuildSettings, setup: Setup) -> dict[str, str]:
    """The page for a person's check is written; the card's part on what persons said."""
    sample = write_check(rows, settings.label.check_pictures, setup)
    if sample is not None:
        setup.processes.say(f"labels to check by eye: {setup.work / LABEL_PAGE}")
    checked = settings.label.checked
    return {"Labels checked by persons": agreement(sample, checked)} if checked else {}


def _drawn(
    rows: Sequence[Row],
    assembly: Assembly,
    settings: BuildSettings,
    setup: Setup,
    sections: Mapping[str, str],
) -> tuple[Assembly, dict[str, bytes]]:
    """The dataset's plan with what the base drew, and the table of what it cost."""
    if settings.synthesis is None:
        raise UserError("synthesis must be given where balance.by is synthesis: name the base")
    known = {(row.subject, tuple(sorted(row.cell))) for row in rows if row.is_known}
    wanted = [
        Wanted(
            m.subject,
            m.labels,
            assembly.wordings(m),
            m.count,
            there=(m.subject, tuple(sorted(m.labels.items()))) in known,
        )
        for m in assembly.missing
    ]
    said = said_of_judge(settings.synthesis)
    for line in said:
        setup.processes.say(line)
    made = synthesise(settings.synthesis, settings.screen, setup, wanted)
    bare = made.bare
    for subject, cells in bare.items():
        setup.processes.say(f"left out: {subject}, of which {cells} cells have no picture")
    there = {row.subject for row in (*rows, *made.rows)}
    if bare:
        leave_out = (*settings.balance.leave_out, *(s for s in bare if s in there))
        balance = settings.balance.model_copy(update={"leave_out": leave_out})
        settings = settings.model_copy(update={"balance": balance})
    also = {s: own for s, own in settings.subjects.items() if s not in bare}
    whole = assemble(
        [*rows, *made.rows],
        (),
        settings,
        also=also,
        drawn=True,
        before=rows,
        sections={**sections, "What drawing cost": cost_section(made.tries, said)},
    )
    return whole, {COST: cost_table(made.tries)}


def _write(assembly: Assembly, extras: Mapping[str, bytes], passed: Sequence[str]) -> None:
    for number, folder in enumerate(assembly.folders):
        whole: Folder = folder
        if number == 0:
            whole = dataclasses.replace(folder, extras={**folder.extras, **extras})
        written = write_imagefolder(whole, passed)
        print(f"{folder.path}: {'written' if written else 'complete already, nothing to do'}")


def _check(settings: BuildSettings) -> None:
    problems = []
    draws = settings.balance.by == "synthesis"
    if not settings.sources and not draws:
        problems.append("sources must name at least one, or balance.by must be synthesis")
    if draws and settings.synthesis is None:
        problems.append("synthesis must be given where balance.by is synthesis: name the base")
    if not settings.sources and not settings.subjects:
        problems.append("subjects must say what is to be drawn where there are no sources")
    if problems:
        raise UserError("unskew data build: " + "; ".join(problems))


def _check_subjects(settings: BuildSettings, attributes: tuple[str, ...]) -> None:
    for subject, own in settings.subjects.items():
        for id in own:
            if id not in attributes:
                raise UserError(
                    f"subjects.{subject} names {id!r}, which is not balanced (allowed: "
                    f"{', '.join(attributes) or 'none'}): add it to balance.attributes"
                )


def _summary(assembly: Assembly) -> dict[str, Any]:
    return {
        "folders": {
            str(f.path): {"pictures": len(f.pictures), "rows": len(f.rows)}
            for f in assembly.folders
        },
        "left_out": dict(assembly.left_out),
        "missing": sum(m.count for m in assembly.missing),
    }


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

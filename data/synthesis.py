"""Synthesis: the base draws what balancing is missing, until every cell has it or tries run out.

A try is one picture: of a cell's wordings in turn, from the noise of (wording, seed) as a study
would draw it. Tries are drawn in rounds, every round in fixed batches that processes deal among
them; which tries a round has follows from what was seen of the rounds before, so a build that goes
on, or is shared, draws the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unskew.attributes import SUBJECT
from unskew.bases import resolve_base
from unskew.data.build_setup import Setup
from unskew.data.checking import Verdict, check, load_checkers
from unskew.data.duplicates import Known
from unskew.data.rows import Drawn, Row, Tries, Wanted
from unskew.data.screen import ScreenSettings
from unskew.data.synthesis_options import SynthesisSettings
from unskew.errors import UserError
from unskew.evaluate.classify import Reader
from unskew.evaluate.generate import Cell, Sampler, draw, missing_batches, plan_batches
from unskew.evaluate.inputs import DTYPES
from unskew.evaluate.samplers import use_sampler
from unskew.pipelines import base_sha256, check_base, choose_dtype, load_base
from unskew.prompts import Prompt, prompt_id

GROWTH = 2
"""A round draws at most this many times what a cell has been tried so far."""
SPARE = 1.2
"""A round draws so much more than the rate so far says is needed."""
ALONE = 27
"""Of a subject's cells without a picture after so many tries, one goes on alone."""


@dataclass
class _State:
    """One cell's tries so far."""

    wanted: Wanted
    prompts: tuple[Prompt, ...]
    tries: int = 0
    good: list[tuple[Cell, Verdict]] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def lacks(self) -> int:
        return self.wanted.count - len(self.good)

    @property
    def is_bare(self) -> bool:
        """Whether there is no picture of it at all, drawn or not."""
        return not self.good and not self.wanted.there

    def cell(self, number: int, first_seed: int) -> Cell:
        """The try of this number."""
        turn, wording = divmod(number, len(self.prompts))
        return Cell(self.prompts[wording], first_seed + turn)

    def next_tries(self, most: int) -> int:
        """How many the next round draws; 0 where it has enough, or had its tries."""
        if self.lacks <= 0:
            return 0
        rate = (len(self.good) + 0.5) / (self.tries + 1)
        needed = self.lacks if not self.tries else math.ceil(SPARE * self.lacks / rate)
        return min(needed, max(GROWTH * self.tries, self.lacks), most - self.tries)


@dataclass(frozen=True)
class Synthesised:
    """What was drawn."""

    rows: tuple[Row, ...]
    """Pictures that show what was asked, by cell in the order wanted, at most as many as wanted."""
    tries: tuple[Tries, ...]
    """What each cell cost, in the same order."""
    bare: Mapping[str, int] = field(default_factory=dict)
    """Subject -> cells of which there is no picture at all, of subjects that have such cells."""


def synthesise(
    settings: SynthesisSettings, screen: ScreenSettings, setup: Setup, wanted: Sequence[Wanted]
) -> Synthesised:
    """Draw what is wanted, check and screen it; the same in every process.

    Raises UserError for a base or classifier that cannot be used, and, unless `when_short` is
    "leave_out", where cells still lack pictures after `most_tries`.
    """
    if not wanted:
        return Synthesised((), ())
    _check_wordings(wanted)
    artist = _Artist(settings, setup)
    asked = dict.fromkeys(attribute for one in wanted for attribute in one.labels)
    checkers = load_checkers(settings, tuple(asked), setup)
    states = [_State(one, _prompts(one)) for one in wanted]
    folder = setup.work / "synthesis" / artist.key(wanted, screen, checkers)
    known = Known(screen.near_bits, screen.near_levels, near=screen.near_duplicates)
    number = 0
    while plan := _plan(states, settings):
        round_folder = folder / f"round-{number:03d}"
        cells = [state.cell(n, settings.first_seed) for state, n in plan]
        artist.draw(cells, round_folder, f"round {number + 1}")
        kept = folder / "readings"
        verdicts = check(cells, round_folder, checkers, screen, settings.floor, setup, kept)
        for (state, _), cell, verdict in zip(plan, cells, verdicts, strict=True):
            _note(state, cell, verdict.after(known))
        number += 1
        full = sum(state.lacks <= 0 for state in states)
        setup.processes.say(
            f"round {number}: {len(plan)} pictures drawn, {full} of {len(states)} cells are full"
        )
    _say(states, setup)
    if settings.when_short == "stop":
        _check_all_there(states)
    rows = [
        artist.row(state, cell, seen, checkers) for state in states for cell, seen in state.good
    ]
    bare = Counter(state.wanted.subject for state in states if state.is_bare)
    return Synthesised(tuple(rows), tuple(_tries(state) for state in states), bare)


def base_of(settings: SynthesisSettings) -> Path:
    """The folder of the base that draws. Raises UserError where it cannot be had."""
    return resolve_base(
        settings.base,
        revision=settings.base_revision,
        config=settings.base_config,
        cache=settings.cache,
    )


def _plan(states: Sequence[_State], settings: SynthesisSettings) -> list[tuple[_State, int]]:
    """(cell, number of the try) of the next round."""
    hopeful = states if settings.when_short == "stop" else _hopeful(states, settings.most_tries)
    return [
        (state, number)
        for state in hopeful
        for number in range(state.tries, state.tries + state.next_tries(settings.most_tries))
    ]


def _hopeful(states: Sequence[_State], most: int) -> Iterator[_State]:
    """Cells whose pictures may be used, where a subject with a bare cell is left out.

    Such a subject needs no more pictures once one of its cells has had all its tries. So its bare
    cells are not all tried to the end: after some tries one goes on, and the others wait for it.
    """
    lost = {s.wanted.subject for s in states if s.is_bare and s.tries >= most}
    tried: set[str] = set()
    for state in states:
        subject = state.wanted.subject
        waits = state.is_bare and state.tries >= ALONE and subject in tried
        if subject in lost or waits:
            continue
        if state.is_bare and state.tries >= ALONE:
            tried.add(subject)
        yield state


def _note(state: _State, cell: Cell, verdict: Verdict) -> None:
    state.tries += 1
    if verdict.against is not None:
        state.reasons[verdict.against] = state.reasons.get(verdict.against, 0) + 1
    elif state.lacks > 0:
        state.good.append((cell, verdict))


def _check_wordings(wanted: Sequence[Wanted]) -> None:
    """Raise UserError where two cells are drawn in the same words: one picture has one cell."""
    owner: dict[str, Wanted] = {}
    for one in wanted:
        for text in one.wordings:
            other = owner.setdefault(text, one)
            if other is not one:
                raise UserError(
                    f"{text!r} is to draw both {_called(other)} and {_called(one)}: give the "
                    "values words of their own in the attribute's file"
                )


def _called(wanted: Wanted) -> str:
    return " ".join([wanted.subject, *wanted.labels.values()])


def _prompts(wanted: Wanted) -> tuple[Prompt, ...]:
    if not wanted.wordings:
        raise UserError(f"{wanted.subject!r} has no wordings to be drawn in: give it a template")
    asked = {SUBJECT: wanted.subject, **wanted.labels}
    return tuple(
        Prompt(prompt_id(text), text, "synthesis", wanted.subject, tuple(wanted.labels), asked)
        for text in wanted.wordings
    )


def _tries(state: _State) -> Tries:
    return Tries(
        subject=state.wanted.subject,
        labels=dict(state.wanted.labels),
        wanted=state.wanted.count,
        kept=len(state.good),
        tries=state.tries,
        other_subject=state.reasons.get("subject", 0),
        other_value=state.reasons.get("value", 0),
        screened_out=state.reasons.get("screened", 0),
    )


def _say(states: Sequence[_State], setup: Setup) -> None:
    short = [state for state in states if state.lacks > 0]
    drawn, kept = sum(s.tries for s in states), sum(len(s.good) for s in states)
    setup.processes.say(
        f"synthesis: {kept} pictures kept of {drawn} drawn for {len(states)} cells"
        + (f"; {len(short)} cells are short" if short else "")
    )


def _check_all_there(states: Sequence[_State]) -> None:
    short = [state for state in states if state.lacks > 0]
    if short:
        listed = "".join(
            f"\n  {_called(s.wanted)}: {len(s.good)} of {s.wanted.count} in {s.tries} tries"
            for s in short[:10]
        )
        raise UserError(
            f"synthesis: {len(short)} of {len(states)} cells lack pictures:{listed}\nRaise "
            "synthesis.most_tries (what is there is kept), add wordings, lower "
            "synthesis.floor, or set synthesis.when_short: leave_out"
        )


class _Artist:
    """The base, loaded when there is something to draw."""

    def __init__(self, settings: SynthesisSettings, setup: Setup) -> None:
        self.settings, self.setup = settings, setup
        self.folder = base_of(settings)
        check_base(self.folder)
        self.sha256 = setup.processes.from_first(lambda: base_sha256(self.folder))
        s = settings
        self.sampler = Sampler(s.steps, s.guidance, s.resolution_px, s.batch)
        self.dtype = choose_dtype(setup.device)[0] if s.dtype == "auto" else DTYPES[s.dtype]
        self.pipe: Any = None

    @property
    def how(self) -> str:
        """How pictures are drawn, for their rows."""
        s = self.settings
        scheduler = s.sampler
        if s.sampler == "base":
            file = self.folder / "scheduler" / "scheduler_config.json"
            scheduler = json.loads(file.read_text("utf-8"))["_class_name"]
        dtype = str(self.dtype).removeprefix("torch.")
        negative = f", not {s.negative_prompt!r}" if s.negative_prompt else ""
        return (
            f"{scheduler}, {s.steps} steps, guidance {s.guidance:g}, {s.resolution_px} px, "
            f"batches of {s.batch}, {dtype}{negative}"
        )

    def key(
        self, wanted: Sequence[Wanted], screen: ScreenSettings, checkers: Sequence[Reader]
    ) -> str:
        """A folder's name for all that decides what is drawn and kept; not the limit of tries."""
        said = [
            [(w.subject, sorted(w.labels.items()), w.wordings, w.count) for w in wanted],
            self.sha256,
            self.how,
            self.settings.first_seed,
            self.settings.floor,
            screen.model_dump(mode="json"),
            [checker.identity for checker in checkers],
        ]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def draw(self, cells: Sequence[Cell], folder: Path, what: str) -> None:
        """Draw what is missing of these cells, together with the other processes."""
        processes = self.setup.processes
        batches = plan_batches(cells, self.sampler.batch)
        numbers = {batch: number for number, batch in enumerate(batches)}
        missing = processes.from_first(
            lambda: [numbers[batch] for batch in missing_batches(batches, folder)]
        )
        mine = [batches[number] for number in processes.share(missing)]
        total = sum(len(set(batch)) for batch in mine)
        quiet = None if processes.is_first else True
        with tqdm(total=total, unit="picture", desc=what, disable=quiet) as bar:
            if mine:
                if self.pipe is None:
                    self.pipe = load_base(self.folder, self.setup.device, self.dtype)
                    use_sampler(self.pipe, self.settings.sampler)
                negative = self.settings.negative_prompt
                for drawn in draw(self.pipe, mine, self.sampler, folder, negative=negative):
                    bar.update(drawn)
        processes.wait()

    def row(self, state: _State, cell: Cell, verdict: Verdict, checkers: Sequence[Reader]) -> Row:
        """The row of a picture that shows what was asked."""
        by = {a: f"asked, {_read_by(a, checkers)}" for a in state.wanted.labels}
        return Row(
            name=f"drawn/{cell.prompt.id}/{cell.seed}.png",
            file=verdict.file,
            subject=state.wanted.subject,
            caption=None,
            labels=dict(state.wanted.labels),
            source=f"drawn by {self.settings.base} (sha256 {self.sha256[:12]})",
            license=self.settings.license,
            sha256=verdict.look.sha256,
            drawn=Drawn(cell.prompt.text, cell.seed, self.sha256, self.how),
            suffix=verdict.look.suffix,
            plain=verdict.look.plain,
            labelled_by=by,
        )


def _read_by(attribute: str, checkers: Sequence[Reader]) -> str:
    names = [c.classifier.name for c in checkers if attribute in c.attributes]
    return f"confirmed by {names[0]}" if names else "not checked"

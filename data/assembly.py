"""Assembly: from screened, labelled rows to the plan of a dataset, or of what it lacks.

`assemble` once; where it says that cells are missing, draw them in its wordings and `assemble`
again with `drawn=True`; then `write_imagefolder` for each of its folders.

Nothing is written here, and no picture is opened but to have it captioned by a model.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from unskew.attributes import ATTRIBUTES_DIR
from unskew.data.assembly_options import AssemblySettings
from unskew.data.balance_choice import Missing, choose, labelled
from unskew.data.balance_tables import Balance, balance_picture, balance_rows, table_lines
from unskew.data.balance_weights import weigh
from unskew.data.card_own import BALANCE_PICTURE, Facts, card, description, plain
from unskew.data.dataset_rows import Written, picture_file, write_rows
from unskew.data.imagefolder import Folder
from unskew.data.row_captions import Captioner, captioner
from unskew.data.rows import Row
from unskew.data.splits import SPLITS, Split, split_rows
from unskew.data.targets import Goal, balanced_attributes, goals_of
from unskew.data.wordlists import WORDS_DIR
from unskew.errors import UserError
from unskew.runs import sha256_file

CHANGES = "caption-changes.jsonl"
ODDITIES = "caption-oddities.jsonl"
SHOWN = 5
HOW = {
    "choosing": "Balanced by choosing: of the pictures that were there, those were taken that show "
    "the target, none more than {times}.",
    "weights": "Balanced by weights: every picture was taken, and the column `weight` makes the "
    "rare ones count more.",
    "synthesis": "Balanced by synthesis: of the pictures that were there, those were taken that "
    "show the target, none more than {times}, and the base drew what was missing.",
}


@dataclass(frozen=True)
class Assembly:
    """A dataset's plan."""

    settings: AssemblySettings
    missing: tuple[Missing, ...]
    """Cells that lack pictures, to be drawn; then there is no folder yet."""
    folders: tuple[Folder, ...]
    """What to write: the training folder, then those of other splits."""
    table: tuple[Balance, ...]
    """Of the training folder, before and after."""
    left_out: Mapping[str, int]
    """Reason -> pictures that are in no folder for that."""
    notes: tuple[str, ...]
    written: Written = field(default_factory=Written)
    """The training folder's rows, and what became of captions."""
    captioner: Captioner | None = None

    def wordings(self, missing: Missing) -> tuple[str, ...]:
        """Explicit captions of a cell, in every template: what to ask synthesis with, in turn.

        The same words as the dataset's explicit captions. Of a control its neutral captions.
        """
        assert self.captioner is not None
        return self.captioner.wordings(missing.subject, missing.labels)


def assemble(
    rows: Sequence[Row],
    groups: Iterable[Collection[str]],
    settings: AssemblySettings,
    *,
    also: Mapping[str, Sequence[str]] = {},
    drawn: bool = False,
    before: Sequence[Row] | None = None,
    sections: Mapping[str, str] = {},
    captions: Mapping[str, str] | None = None,
) -> Assembly:
    """Split, balance and caption rows, and plan the folders to write.

    `groups` are names of rows that look the same, by which splits are kept apart. `also` holds
    subjects that need not have a row yet -> ids of the attributes that apply to them, () for a
    control. `drawn` says that what was missing has been drawn: what lacks still is told, not asked
    for. `before` are the rows of the balance before (default: `rows`); `sections` further parts of
    the card, title -> Markdown; `captions` row name -> caption of a row without one: None lets the
    model of `settings.captions` write those of the rows that are taken, where it is asked for.

    Raises UserError, before anything is spent, for settings, labels and targets that are wrong or
    cannot be met, with all that is wrong in one message.
    """
    attributes = balanced_attributes(settings.balance)
    writer = captioner(settings.captions, attributes, settings.seed)
    goals = goals_of(rows, settings.balance, also)
    splits = split_rows(rows, groups, settings.splits, settings.seed)
    of = {split: [n for n, s in enumerate(splits) if s == split] for split in SPLITS}
    training = [rows[n] for n in of["train"]]
    goals_here = _trained(goals, settings, {row.subject for row in training}, also)
    if settings.balance.by == "weights":
        choice = weigh(training, goals_here)
    else:
        choice = choose(training, goals_here, settings.balance, settings.seed, drawn=drawn)
    notes = (*_split_notes(rows, splits, settings), *choice.notes)
    left_out = Counter(choice.left_out.values())
    if choice.missing:
        return Assembly(settings, choice.missing, (), (), left_out, notes, captioner=writer)
    if not choice.uses:
        raise UserError(
            f"no picture is left to train on, of {len(rows)}:"
            + "".join(f"\n  {count}: {reason}" for reason, count in left_out.items())
        )
    uses = [(training[n], weight) for n, weight in choice.uses]
    old = before if before is not None else rows
    table = balance_rows(old, uses, goals_here, attributes)
    taken = {"train": uses}
    for split in SPLITS[1:]:
        taken[split] = _as_they_are([rows[n] for n in of[split]], goals)
    if captions is None:
        captions = _by_model([row for uses in taken.values() for row, _ in uses], settings)
    folders, first = [], Written()
    for split in SPLITS:
        uses = taken[split]
        if not uses:
            continue
        written = write_rows(uses, split, writer, captions)
        first = written if split == "train" else first
        facts = Facts(
            settings=settings.card,
            language=settings.captions.language,
            split=split,
            rows=written.rows,
            table=table if split == "train" else (),
            attributes=attributes,
            by=_how(settings) if split == "train" else "As gathered: it is not balanced.",
            left_out=left_out if split == "train" else {},
            notes=notes,
            captions=_said_of_captions(settings, written),
            sections=sections,
        )
        folders.append(_folder(settings, split, uses, written, facts))
    return Assembly(settings, (), tuple(folders), table, left_out, notes, first, writer)


def assembly_lines(a: Assembly) -> list[str]:
    """The plan for a terminal: what is taken, what is left out and why, what is odd."""
    lines = [*table_lines(a.table)]
    for reason, count in a.left_out.items():
        lines.append(f"left out: {count} pictures, {reason}")
    if a.missing:
        total = sum(m.count for m in a.missing)
        lines.append(f"missing: {total} pictures in {len(a.missing)} cells, to be drawn")
        for m in a.missing[:SHOWN]:
            lines.append(
                f"  {m.count} of {m.subject}, {', '.join(m.labels.values()) or 'as it is'}"
            )
    lines += [f"note: {note}" for note in a.notes]
    odd = a.written.oddities
    if a.written.rewritten:
        lines.append(f"captions made neutral: {len(a.written.rewritten)} ({CHANGES})")
        for one in a.written.rewritten[:SHOWN]:
            lines.append(f"  {one.before!r} -> {one.neutral!r}")
    if odd:
        lines.append(f"captions to look at: {len(odd)} ({ODDITIES})")
        lines += [f"  {oddity}" for oddity in odd[:SHOWN]]
    for folder in a.folders:
        kinds = Counter(row["kind"] for row in folder.rows)
        of_kinds = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        lines.append(
            f"{folder.path}: {len(folder.pictures)} pictures, {len(folder.rows)} rows ({of_kinds})"
        )
    return lines


def _by_model(rows: Sequence[Row], settings: AssemblySettings) -> dict[str, str]:
    """Row name -> caption of rows without one, where a model is to write it."""
    asked = settings.captions
    if asked.source != "model" or asked.model is None or all(row.caption for row in rows):
        return {}
    from unskew.data.caption_model import model_captions
    from unskew.pipelines import choose_device

    return dict(model_captions(rows, asked.model, choose_device()[0]))


def _trained(
    goals: Mapping[str, Goal],
    settings: AssemblySettings,
    there: Collection[str],
    also: Mapping[str, Sequence[str]],
) -> dict[str, Goal]:
    """The goals of subjects that are trained on; those without a row if they are to be drawn."""
    ask = settings.balance.by == "synthesis"
    return {
        subject: goal
        for subject, goal in goals.items()
        if subject not in settings.splits.held_out
        and (subject in there or (ask and subject in also))
    }


def _as_they_are(rows: Sequence[Row], goals: Mapping[str, Goal]) -> list[tuple[Row, float]]:
    """The rows of another split that can be read, each once."""
    by_subject, _ = labelled(rows, goals)
    return [(rows[n], 1.0) for own in by_subject.values() for n in own]


def _split_notes(
    rows: Sequence[Row], splits: Sequence[Split], settings: AssemblySettings
) -> list[str]:
    alike = sum(
        split == "held_out" and row.split != "held_out"
        for row, split in zip(rows, splits, strict=True)
        if row.subject not in settings.splits.held_out
    )
    if not alike:
        return []
    return [f"{alike} pictures look like held-out ones and are held out with them"]


def _how(settings: AssemblySettings) -> str:
    if not settings.balance.attributes:
        return "It is not balanced: no attribute was asked for."
    repeats = settings.balance.most_repeats
    times = "once" if repeats == 1 else f"{repeats} times"
    ids = " x ".join(settings.balance.attributes)
    return f"{HOW[settings.balance.by].format(times=times)} Over {plain(ids)}, for every subject."


def _said_of_captions(settings: AssemblySettings, written: Written) -> str:
    said = {
        "templates": "Captions are written from templates; the user's own are not used.",
        "own": "Captions are the user's own; neutral ones had the words that name a value taken "
        "out. Pictures without a caption have a template's.",
        "model": "Captions are the user's own, or a model's where there was none; neutral ones had "
        "the words that name a value taken out.",
    }[settings.captions.source]
    if settings.captions.model and settings.captions.source == "model":
        said += f" The model: {plain(settings.captions.model.model)}."
    if written.rewritten:
        said += f" {len(written.rewritten):,} were changed: `{CHANGES}` has each change."
    if written.oddities:
        said += f" {len(written.oddities):,} should be looked at: `{ODDITIES}`."
    return said


def _folder(
    settings: AssemblySettings,
    split: Split,
    uses: Sequence[tuple[Row, float]],
    written: Written,
    facts: Facts,
) -> Folder:
    path = settings.out
    if split != "train":
        path = path.with_name(f"{path.name}-{split.replace('_', '-')}")
    extras = {}
    if facts.table:
        extras[BALANCE_PICTURE] = balance_picture(facts.table)
    if written.rewritten:
        extras[CHANGES] = _json_lines(one.plain() for one in written.rewritten)
    if written.oddities:
        extras[ODDITIES] = _json_lines(vars(one) for one in written.oddities)
    files = {f"attributes/{a.id}.yaml": ATTRIBUTES_DIR / f"{a.id}.yaml" for a in facts.attributes}
    files["words.yaml"] = WORDS_DIR / f"{settings.captions.language}.yaml"
    plan = json.dumps([written.rows, facts.card_parts()], sort_keys=True, default=str)
    return Folder(
        path=path,
        settings=settings.model_dump(mode="json", exclude={"out"}),
        inputs={name: sha256_file(file) for name, file in files.items()}
        | {"rows": hashlib.sha256(plan.encode()).hexdigest()},
        pictures=list({p.file_name: p for p in map(picture_file, (r for r, _ in uses))}.values()),
        rows=written.rows,
        card=card(facts),
        description=description(facts),
        extras=extras,
        sheet_values={a.id: a.values for a in facts.attributes},
    )


def _json_lines(lines: Iterable[object]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()

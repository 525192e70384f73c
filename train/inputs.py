"""What training reads, found and checked before anything is spent on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from diffusers import DDIMScheduler
from transformers import CLIPTokenizer

from unskew.attributes import Attribute, load_attribute, target_shares
from unskew.bases import resolve_base
from unskew.errors import UserError
from unskew.pipelines import base_sha256, check_base
from unskew.quantized import require_bitsandbytes
from unskew.runs import sha256_file, sha256_folder
from unskew.train.batches import Batches, is_weighed, shares_dealt
from unskew.train.buckets import Framing, describe_framings, frame
from unskew.train.checkpoints import SEAL, check_checkpoint
from unskew.train.guards import weak_factor
from unskew.train.noise_levels import check_schedule
from unskew.train.objective import teacher_caption
from unskew.train.options import TrainSettings
from unskew.train.rows import Row, load_rows
from unskew.train.validation_inputs import (
    ValidationInputs,
    check_validation,
    validation_captions,
    validation_hashes,
)

LOOKED_OVER = 1000
"""Most steps whose rows are counted for the description."""
OWN_CHECKPOINTS = ("auto", "never")
"""Values of `resume` that name no checkpoint folder."""


@dataclass(frozen=True)
class Inputs:
    """The base's folder, and the dataset's rows as the batches deal them."""

    base: Path
    attributes: Mapping[str, Attribute]
    rows: tuple[Row, ...]
    batches: Batches
    framings: Mapping[Path, Framing]
    """Picture -> the size that it is trained at, and how it is cut to it."""
    validation: ValidationInputs | None
    """What is looked at while training; None where nothing is."""


def check_inputs(settings: TrainSettings) -> Inputs:
    """Read and check everything that training needs.

    Raises UserError for a base, dataset, label, picture, target, checkpoint or validation that
    cannot be used, and for a package that is not there.
    """
    if settings.memory.quantize != "none":
        require_bitsandbytes(settings.memory.quantize)
    base = resolve_base(
        settings.base,
        revision=settings.base_revision,
        config=settings.base_config,
        cache=settings.cache,
    )
    check_base(base)
    schedule = DDIMScheduler.from_pretrained(base / "scheduler", local_files_only=True)
    check_schedule(schedule, settings.objective)
    if settings.resume not in OWN_CHECKPOINTS:
        check_checkpoint(Path(settings.resume))
    attributes = _attributes(settings)
    rows = load_rows(settings.dataset, attributes)
    for row in rows:
        teacher_caption(row, settings.objective.target)
    batches = Batches.of(rows, settings.batch, attributes, settings.seed)
    framings = frame(rows, settings.resolution_px, settings.pictures)
    validation = check_validation(settings, rows, attributes)
    return Inputs(base, attributes, rows, batches, framings, validation)


def input_hashes(settings: TrainSettings, inputs: Inputs) -> dict[str, str]:
    """Name -> sha256 of all that decides the adapter's bits besides the settings."""
    hashes = {"base": base_sha256(inputs.base), "dataset": sha256_folder(settings.dataset)}
    if settings.resume not in OWN_CHECKPOINTS:
        hashes["checkpoint"] = sha256_file(Path(settings.resume) / SEAL)
    return hashes | validation_hashes(settings.validation)


def captions_of(rows: tuple[Row, ...], settings: TrainSettings) -> Iterator[str]:
    """Every text that training needs the states of; some more than once."""
    for row in rows:
        yield row.text
        teacher = teacher_caption(row, settings.objective.target)
        if teacher is not None:
            yield teacher
    if settings.samples.every:
        yield from settings.samples.prompts
    if settings.samples.every or settings.objective.caption_dropout:
        yield ""
    yield from validation_captions(settings.validation)


def describe(settings: TrainSettings, inputs: Inputs) -> str:
    """What will be trained on, for a person to look over."""
    batches, rows = inputs.batches, inputs.rows
    kinds = {kind: [row for row in rows if row.kind == kind] for kind in batches.streams}
    dealt = batches.drawn(settings.steps)
    lines = [
        f"{settings.dataset}: {len(rows)} rows, {len({row.file for row in rows})} pictures",
        *(
            f"  {kind}: {len(some)} rows of {len({row.subject for row in some})} subjects, "
            f"{dealt[kind]} draws in {settings.steps} steps of {batches.size}"
            for kind, some in kinds.items()
        ),
        f"  every subject shows its target's rates exactly once in {batches.window_steps()} steps",
    ]
    steps = min(settings.steps, LOOKED_OVER)
    neutral = [r for step in range(steps) for r in batches.rows(step) if r.kind == "neutral"]
    for attribute in inputs.attributes.values():
        shares = zip(attribute.values, shares_dealt(neutral, attribute), strict=True)
        dealt_shares = ", ".join(f"{value} {share:.1%}" for value, share in shares if share)
        lines.append(f"  {attribute.id} in {steps} steps: {dealt_shares or 'on no neutral row'}")
    lines += [*_weighed(inputs), *describe_framings(inputs.framings)]
    if inputs.validation:
        lines.append(
            f"  validation: {len(inputs.validation.prompts)} prompts x {inputs.validation.seeds} "
            f"seeds of suite {settings.validation.suite!r}, and the loss of "
            f"{len(inputs.validation.rows)} rows, every {settings.validation.every} steps"
        )
    lines += [*_captions_that_tell_nothing(inputs), *_cut_captions(inputs)]
    return "\n".join([*lines, weak_factor(settings.optimizer) or ""]).rstrip()


def _weighed(inputs: Inputs) -> Iterator[str]:
    """That some subjects are balanced by weights, and not by how often their values come."""
    by_subject: dict[str, list[Row]] = {}
    for row in inputs.rows:
        by_subject.setdefault(row.subject, []).append(row)
    weighed = sum(map(is_weighed, by_subject.values()))
    if weighed:
        yield (
            f"  {weighed} subjects have rows of different weights: their rows come equally often, "
            "and the weights make the target"
        )


def _attributes(settings: TrainSettings) -> dict[str, Attribute]:
    attributes = {id: load_attribute(id) for id in settings.attributes}
    for id, shares in settings.targets.items():
        if id not in attributes:
            raise UserError(
                f"targets.{id}: no such attribute in this run (allowed: {', '.join(attributes)})"
            )
        target = target_shares(shares, attributes[id].values, f"targets.{id}")
        attributes[id] = replace(attributes[id], target=target)
    return attributes


def _captions_that_tell_nothing(inputs: Inputs) -> Iterator[str]:
    """A warning where captions cannot tell apart what they are there to tell apart."""
    first, *others = inputs.rows
    if others and all(row.text == first.text for row in others):
        yield (
            f"warning: all {len(inputs.rows)} rows have the caption {first.text!r}: the adapter "
            "can only learn what these pictures have in common; give each row its own text"
        )
    named: dict[str, Row] = {}
    for row in inputs.rows:
        text = row.explicit_text
        if text and named.setdefault(text, row).values != row.values:
            yield (
                f"warning: rows {named[text].line} and {row.line} have the explicit_text {text!r}, "
                f"but differ in their values ({_listed(named[text])}; {_listed(row)}): it must "
                "name every value of its picture"
            )
            return


def _listed(row: Row) -> str:
    return ", ".join(f"{attribute} {value}" for attribute, value in row.values.items())


def _cut_captions(inputs: Inputs) -> Iterator[str]:
    """A warning where the text model reads only the beginning of a caption."""
    tokenizer = CLIPTokenizer.from_pretrained(inputs.base / "tokenizer", local_files_only=True)
    limit = tokenizer.model_max_length
    texts = {
        text: row.line
        for row in reversed(inputs.rows)
        for text in (row.text, row.explicit_text)
        if text
    }
    cut = [text for text in texts if len(tokenizer(text).input_ids) > limit]
    if cut:
        line, text = min((texts[text], text) for text in cut)
        yield f"warning: {len(cut)} captions are cut at {limit} tokens (first: row {line}: {text})"

"""What validation asks, found and checked before anything is spent on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unskew.attributes import Attribute, load_attribute
from unskew.errors import UserError
from unskew.evaluate.classifiers.exemplar import ExemplarClassifier, fit_folder
from unskew.evaluate.generate import Cell
from unskew.prompts import Prompt, Suite, load_suites
from unskew.runs import sha256_file, sha256_folder
from unskew.settings import config_path
from unskew.train.batches import shuffled
from unskew.train.options import TrainSettings, ValidationSettings
from unskew.train.rows import Row

HELD_OUT = "held_out"
"""The suite that proves what training did; whatever training looks at can prove nothing."""


@dataclass(frozen=True)
class ValidationInputs:
    """What every reading asks, the same each time."""

    prompts: tuple[Prompt, ...]
    seeds: int
    attributes: Mapping[str, Attribute]
    """Those that the suite measures and the run trains, with the target that studies judge by."""
    classifier: ExemplarClassifier
    rows: tuple[Row, ...]
    """Rows of the dataset whose loss is taken."""

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every seed of the first prompt, then of the second, and so on."""
        return tuple(Cell(prompt, seed) for prompt in self.prompts for seed in range(self.seeds))


def check_validation(
    settings: TrainSettings, rows: Sequence[Row], attributes: Mapping[str, Attribute]
) -> ValidationInputs | None:
    """Read and check what validation needs; None when it is off.

    `rows` and `attributes` are those trained on. Raises UserError for a suite that may not be
    looked at or is trained on, for exemplars that cannot be read with, and for a choice or an end
    that would wait for readings when there are none.
    """
    asked = settings.validation
    if not asked.every:
        _check_that_nothing_waits(asked)
        return None
    suite = load_validation_suite(asked)
    _check_untrained(suite, rows)
    measured = dict.fromkeys(id for prompt in suite.prompts for id in prompt.attributes)
    both = {id: load_attribute(id) for id in measured if id in attributes}
    if not both:
        raise UserError(
            f"validation.suite {asked.suite!r} measures {', '.join(measured) or 'nothing'}, this "
            f"run trains {', '.join(attributes)}: give a suite that measures one of these"
        )
    return ValidationInputs(
        prompts=suite.prompts,
        seeds=asked.seeds,
        attributes=both,
        classifier=_classifier(asked.exemplars, both),
        rows=stratified(rows, attributes, asked.loss_rows, settings.seed),
    )


def validation_captions(settings: ValidationSettings) -> Iterator[str]:
    """The texts whose states a reading needs; none when it is off."""
    if settings.every:
        yield from (prompt.text for prompt in load_validation_suite(settings).prompts)
        if settings.guidance > 1:
            yield ""


def validation_hashes(settings: ValidationSettings) -> dict[str, str]:
    """Name -> sha256 of what readings, and so perhaps the adapter, depend on; none when off."""
    if not settings.every:
        return {}
    return {
        "validation prompts": sha256_file(_prompt_file(settings)),
        "validation exemplars": sha256_folder(settings.exemplars),
    }


def load_validation_suite(settings: ValidationSettings) -> Suite:
    """The suite to look at. Raises UserError when it is missing, not neutral, or held out."""
    file, name = _prompt_file(settings), settings.suite
    suites = {suite.name: suite for suite in load_suites(file)}
    free = ", ".join(s.name for s in suites.values() if s.role == "neutral" and s.name != HELD_OUT)
    if name == HELD_OUT:
        raise UserError(
            f"validation.suite must not be {HELD_OUT}, whose subjects prove what training did: "
            f"once training has looked at them they prove nothing (allowed: {free or 'none'})"
        )
    if name not in suites:
        raise UserError(f"validation.suite: {file} has no suite {name!r} (allowed: {free})")
    suite = suites[name]
    if suite.role != "neutral":
        raise UserError(
            f"validation.suite {name!r} has the role {suite.role}; imbalance is read on neutral "
            f"prompts (allowed: {free or 'none'})"
        )
    held_out = suites[HELD_OUT].prompts if HELD_OUT in suites else ()
    shared = {p.subject for p in suite.prompts} & {p.subject for p in held_out}
    if shared:
        raise UserError(
            f"validation.suite {name!r} shares {len(shared)} subjects with {HELD_OUT} (first: "
            f"{min(shared)!r}): take them out of one of the two in {file}"
        )
    return suite


def stratified(
    rows: Sequence[Row], attributes: Mapping[str, Attribute], count: int, seed: int
) -> tuple[Row, ...]:
    """Neutral rows, at least `count` of each value or all that there are; a function of the seed.

    A row counts for every value that it has. Rows whose weight is 0 are never among them.
    """
    neutral = [row for row in rows if row.kind == "neutral" and row.weight > 0]
    order = [neutral[n] for n in shuffled(len(neutral), seed, "validation")]
    chosen: dict[Row, None] = {}
    for attribute in attributes.values():
        for value in attribute.values:
            having = [row for row in order if row.values.get(attribute.id) == value]
            others = [row for row in having if row not in chosen]
            short = count - (len(having) - len(others))
            chosen |= dict.fromkeys(others[: max(0, short)])
    return tuple(chosen)


def _check_that_nothing_waits(settings: ValidationSettings) -> None:
    if settings.choose == "last" and settings.stop_at == 0:
        return
    waiting = "choose is best" if settings.choose == "best" else f"stop_at is {settings.stop_at}"
    raise UserError(
        f"validation.{waiting}, which needs readings, but validation.every is 0, which takes none: "
        "set it to a number of steps, or leave the other as it was"
    )


def _check_untrained(suite: Suite, rows: Sequence[Row]) -> None:
    subjects, texts = {row.subject for row in rows}, {row.text for row in rows}
    trained = [p for p in suite.prompts if p.subject in subjects or p.text in texts]
    if trained:
        raise UserError(
            f"validation.suite {suite.name!r} has {len(trained)} prompts that the dataset trains "
            f"(first: {trained[0].text!r}, subject {trained[0].subject!r}): they say nothing of "
            "what is not trained; give a suite of other subjects, or take these out of the dataset"
        )


def _classifier(folder: Path, attributes: Mapping[str, Attribute]) -> ExemplarClassifier:
    metadata = folder / "metadata.jsonl"
    if not metadata.is_file():
        raise UserError(
            f"validation.exemplars: {folder} has no metadata.jsonl: `unskew data` writes Emoji "
            "World's; for your own give a folder of labelled pictures"
        )
    classifier = fit_folder(folder, {id: a.values for id, a in attributes.items()})
    for id in attributes:
        if (classifier.labels[id][1] < 0).all():
            raise UserError(
                f"validation.exemplars: no picture of {metadata} has a value of {id}: add that "
                "column, or give other exemplars"
            )
    return classifier


def _prompt_file(settings: ValidationSettings) -> Path:
    given = settings.prompts
    return given if given.exists() else config_path(str(given))

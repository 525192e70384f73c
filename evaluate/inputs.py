"""All that a study reads, looked over before the first picture is drawn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unskew.attributes import SUBJECT, Attribute, attributes_to_read, load_attribute
from unskew.bases import base_facts, resolve_base
from unskew.errors import UserError
from unskew.evaluate.agreement import load_agreement
from unskew.evaluate.arms import arm_facts, check_arm, cut_prompts
from unskew.evaluate.cells import POOLED_PIXELS, StudyPlan, check_plan
from unskew.evaluate.classifiers.loading import check_readers, load_classifier
from unskew.evaluate.classify import ArmPictures, Reader
from unskew.evaluate.elsewhere import Found, check_whole, find_pictures
from unskew.evaluate.features import load_features
from unskew.evaluate.generate import Cell, Sampler
from unskew.evaluate.intersections import add_intersections
from unskew.evaluate.measuring import Meter
from unskew.evaluate.options import StudySettings
from unskew.pipelines import base_sha256, check_base, choose_device, choose_dtype
from unskew.prompts import Prompt, Suite, load_suites, prompt_file, with_targets

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Study:
    """A study that can begin."""

    settings: StudySettings
    plan: StudyPlan
    cells: tuple[Cell, ...]
    base: Path | None
    """Folder of the base; None where every arm's pictures were made elsewhere."""
    found: Mapping[str, Found]
    """Arm -> its pictures, of arms from folders."""
    readers: tuple[Reader, ...]
    meter: Meter
    device: torch.device
    dtype: torch.dtype
    inputs: Mapping[str, str]
    """What a picture or reading depends on: sha256, and the names of classifiers."""
    facts: Mapping[str, Any]
    words: tuple[str, ...]
    """What to say before the work begins."""

    @property
    def images(self) -> Path:
        """Folder of the pictures that are drawn here, one folder an arm."""
        return self.settings.out / "images"

    @property
    def sampler(self) -> Sampler:
        """How pictures are drawn."""
        s = self.settings
        return Sampler(s.steps, s.guidance, s.resolution_px, s.batch)

    def pictures(self, arm: str) -> ArmPictures:
        """The pictures of an arm that are there now."""
        if arm in self.found:
            found = self.found[arm]
            return ArmPictures(arm, found.files, found.sha256, found.broken)
        files = {cell: cell.file(self.images / arm) for cell in self.cells}
        return ArmPictures(arm, {c: file for c, file in files.items() if file.exists()}, {}, {})

    def cells_of(self, role: str) -> list[Cell]:
        """The cells of suites with this role."""
        roles = self.plan.suite_roles
        return [cell for cell in self.cells if roles[cell.prompt.suite] == role]


def look_over(settings: StudySettings) -> Study:
    """Read and check all that a study depends on. Raises UserError; writes nothing."""
    if not settings.arms:
        raise UserError("arms must name at least one arm, got none")
    suites = _load_suites(settings)
    prompts = tuple(prompt for suite in suites for prompt in suite.prompts)
    attributes = _attributes_of(prompts)
    cells = _cells(settings, suites)
    adapters = {
        key: sha
        for name, arm in settings.drawn.items()
        for key, sha in check_arm(name, arm, prompts).items()
    }
    base = _base(settings) if settings.drawn else None
    device, device_reason = choose_device()
    readers = load_readers(settings, attributes, device)
    read_by = {
        f"classifiers.{name}": reader.classifier.name
        for name, reader in zip(settings.classifiers, readers, strict=True)
    }
    meter = _meter(settings, suites, device)
    found = {
        name: find_pictures(name, arm.folder, arm.names, arm.metadata, cells)
        for name, arm in settings.arms.items()
        if arm.folder is not None
    }
    for name, pictures in found.items():
        if settings.broken == "stop":
            check_whole(name, pictures)
    facts_of = {
        name: found[name].facts(len(cells)) if name in found else arm_facts(name, arm, adapters)
        for name, arm in settings.arms.items()
    }
    plan = StudyPlan(
        baseline=next(iter(settings.arms)),
        arms=tuple(settings.arms),
        prompts=prompts,
        suite_roles={s.name: s.role for s in suites},
        attributes=attributes,
        seeds={s.name: settings.suites[s.name].seeds for s in suites},
        primaries=tuple(_attribute_and_suite(entry) for entry in settings.primaries),
        gate=settings.gate,
        margins=settings.margins,
        features=meter.features.name,
        settings=settings.model_dump(mode="json", exclude={"relabel"}),
        arm_facts={name: facts for name, facts in facts_of.items() if facts},
    )
    plan = add_intersections(plan, settings.intersections)
    _check_primaries(plan)
    check_plan(plan)
    dtype, dtype_reason = _dtype(settings, device)
    counts = ", ".join(f"{s.name} {len(s.prompts)} x {plan.seeds[s.name]}" for s in suites)
    study = Study(
        settings=settings,
        plan=plan,
        cells=cells,
        base=base,
        found=found,
        readers=readers,
        meter=meter,
        device=device,
        dtype=dtype,
        inputs={
            **({"base": base_sha256(base)} if base else {}),
            **adapters,
            **read_by,
            **_measured_by(meter),
        },
        facts={
            **({"device": device_reason, "dtype": dtype_reason} if base else {}),
            **(base_facts(base) if base else {}),
            "pictures_per_arm": len(cells),
        },
        words=(
            *((f"device: {device_reason}", f"dtype: {dtype_reason}") if base else ()),
            f"{len(settings.arms)} arms x {len(cells)} pictures: {counts}",
            *_words_on_folders(found, len(cells)),
            *(cut_prompts(base, settings.drawn, prompts, settings.negative_prompt) if base else ()),
        ),
    )
    _check_controls(study)
    return study


def planned_cells(settings: StudySettings) -> tuple[Cell, ...]:
    """Every cell of a study, in the order in which they are cut into batches.

    Raises UserError where its prompt files cannot be read.
    """
    return _cells(settings, _load_suites(settings))


def _cells(settings: StudySettings, suites: Sequence[Suite]) -> tuple[Cell, ...]:
    return tuple(
        Cell(prompt, settings.suites[suite.name].first_seed + number)
        for suite in suites
        for prompt in suite.prompts
        for number in range(settings.suites[suite.name].seeds)
    )


def load_readers(
    settings: StudySettings, attributes: Mapping[str, Attribute], device: torch.device
) -> tuple[Reader, ...]:
    """The study's classifiers, each with what it is asked. Raises UserError.

    Each is checked for what it must read, before anything is drawn.
    """
    read = attributes_to_read(attributes)
    check_readers(settings.classifiers, read)
    readers = []
    for name, asked in settings.classifiers.items():
        wanted = {*read, *asked.attributes} - {SUBJECT}
        values = {id: load_attribute(id).values for id in sorted(wanted)}
        try:
            classifier = load_classifier(asked, values, device)
        except UserError as error:
            raise UserError(f"classifiers.{name}: {error}") from error
        mine = {id: values.get(id) for id in asked.attributes if id in (*read, SUBJECT)}
        depends = [classifier.name, asked.model_dump(mode="json"), mine]
        identity = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
        readers.append(Reader(classifier, mine, identity))
    return tuple(readers)


def _meter(settings: StudySettings, suites: Sequence[Suite], device: torch.device) -> Meter:
    controls = frozenset(suite.name for suite in suites if suite.role == "control")
    try:
        features = load_features(settings.features, device)
    except UserError as error:
        raise UserError(f"features: {error}") from error
    try:
        agreement = load_agreement(settings.agreement, device)
    except UserError as error:
        raise UserError(f"agreement: {error}") from error
    return Meter(features, agreement, settings.out / "measured", controls)


def _measured_by(meter: Meter) -> dict[str, str]:
    """The models whose weights what is measured depends on."""
    named = {"features": meter.features.name} if meter.features.name != POOLED_PIXELS else {}
    return named | ({"agreement": meter.agreement.name} if meter.agreement else {})


def _load_suites(settings: StudySettings) -> tuple[Suite, ...]:
    given = settings.prompts if isinstance(settings.prompts, tuple) else (settings.prompts,)
    files = [prompt_file(path) for path in given]
    try:
        suites = load_suites(files, tuple(settings.suites))
    except UnicodeEncodeError as error:
        raise UserError(
            f"{', '.join(map(str, files))}: a prompt holds half of a character "
            f"({error.object[error.start]!r}), which no file can: write it out"
        ) from None
    suites = with_targets(suites, settings.targets)
    return tuple(
        Suite(s.name, s.role, _evenly(s.prompts, settings.suites[s.name].prompts)) for s in suites
    )


def _evenly(prompts: Sequence[Prompt], limit: int) -> tuple[Prompt, ...]:
    if not 0 < limit < len(prompts):
        return tuple(prompts)
    return tuple(prompts[i * len(prompts) // limit] for i in range(limit))


def _attributes_of(prompts: Sequence[Prompt]) -> dict[str, Attribute]:
    ids = dict.fromkeys(a for p in prompts for a in p.attributes)
    return {id: load_attribute(id) for id in ids if id != SUBJECT}


def _check_primaries(plan: StudyPlan) -> None:
    known = {f"{a}@{prompt.suite}" for prompt in plan.prompts for a in prompt.attributes}
    for attribute, suite in plan.primaries:
        if (entry := f"{attribute}@{suite}") not in known:
            raise UserError(
                f"primaries must name an attribute of a suite that is drawn, got "
                f"{entry!r} (allowed: {', '.join(sorted(known))})"
            )


def _attribute_and_suite(entry: str) -> tuple[str, str]:
    attribute, _, suite = entry.partition("@")
    return attribute, suite


def _base(settings: StudySettings) -> Path:
    base = resolve_base(
        settings.base,
        revision=settings.base_revision,
        config=settings.base_config,
        cache=settings.cache,
    )
    check_base(base)
    return base


def _dtype(settings: StudySettings, device: torch.device) -> tuple[torch.dtype, str]:
    if settings.dtype == "auto":
        return choose_dtype(device)
    return DTYPES[settings.dtype], f"{settings.dtype} (as given)"


def _words_on_folders(found: Mapping[str, Found], planned: int) -> list[str]:
    words = []
    for name, pictures in found.items():
        said = f"arm {name}: {len(pictures.files)} of {planned} pictures in {pictures.folder}"
        said += f", paired by {pictures.paired_by}"
        if pictures.broken:
            said += f"; {len(pictures.broken)} cannot be read and count as unreadable"
        if pictures.strangers:
            said += f"; {pictures.strangers} others belong to no cell and are left alone"
        words.append(said)
    return words


def control_cells(study: Study) -> list[Cell]:
    """The control cells of prompts whose pictures are whole in every arm: drift compares these."""
    lacking = {
        cell.prompt.id
        for found in study.found.values()
        for cell in study.cells_of("control")
        if cell not in found.files or cell in found.broken
    }
    return [cell for cell in study.cells_of("control") if cell.prompt.id not in lacking]


def _check_controls(study: Study) -> None:
    """Raise UserError where drift cannot be measured for want of pictures."""
    there = {(cell.prompt.suite, cell.prompt.id) for cell in control_cells(study)}
    for suite, role in study.plan.suite_roles.items():
        whole = sum(name == suite for name, _ in there)
        if role == "control" and study.found and study.plan.treated and whole < 2:
            raise UserError(
                f"suite {suite!r}: {whole} of its {len(study.plan.prompts_of(suite))} prompts have "
                "all their pictures in every arm, and drift needs two: add the missing pictures, "
                "or leave this suite out"
            )

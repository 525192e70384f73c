"""A bundle: the folder that is published, written whole from a training run and its study."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelCard

from unskew.adapters import WEIGHTS_FILE
from unskew.bases import EMBEDDED_BASE, resolve_base
from unskew.errors import UserError
from unskew.evaluate.generate import Cell
from unskew.evaluate.pairs import write_pairs
from unskew.evaluate.pictures import read_picture, save_picture
from unskew.evaluate.results import write_results
from unskew.evaluate.schema import Results, load_results
from unskew.evaluate.summary import write_summary
from unskew.kohya import KOHYA_FILE
from unskew.pipelines import base_sha256, check_parts
from unskew.runs import (
    atomic_path,
    sha256_file,
    sha256_folder,
    write_json_atomic,
    write_text_atomic,
)
from unskew.scripts.belonging import Belonging, TrainRun
from unskew.scripts.bundle_cells import Pictures, keep_cells, pictures_of, shrunk
from unskew.scripts.bundle_schema import (
    BUNDLE,
    CARD,
    CHECKSUMS,
    GRID,
    RESULTS,
    SUMMARY,
    TRAINING,
    BaseFacts,
    Checksums,
    CodeFacts,
    DatasetFacts,
    Facts,
    FileSum,
    Measured,
    Widget,
    dumped,
    load_part,
)
from unskew.scripts.card_metadata import check_metadata
from unskew.scripts.licences import check_licences, licences_of
from unskew.scripts.model_card import CARD_VERSION, render_card
from unskew.scripts.public import leaks, local_names, public_results, public_training, secrets
from unskew.scripts.publish_options import PublishSettings

WIDGETS = 6
WIDGET_PX = 256
CARD_LICENCES = {EMBEDDED_BASE: "cc-by-4.0"}
"""Bases that have no card of their own -> their licence."""
SHOWN = 10


@dataclass(frozen=True)
class Plan:
    """All that goes into a bundle, checked before anything is written."""

    settings: PublishSettings
    belonging: Belonging
    facts: Facts
    training: dict[str, Any]
    results: Results | None
    pictures: Pictures | None
    widgets: tuple[Cell, ...]


def plan_bundle(settings: PublishSettings, belonging: Belonging) -> Plan:
    """Decide what the bundle says. Raises UserError that lists all that is wrong."""
    train, study = belonging.train, belonging.study
    if settings.license is None:
        raise UserError(
            "license must be given, such as --license cc-by-4.0: whoever finds an adapter without "
            "one may not use it"
        )
    results = public_results(study.results, study.arm) if study else None
    pictures = pictures_of(study) if study else None
    base, problems = _base(settings, train)
    dataset = _dataset(settings, train)
    attribution = _attribution(settings, belonging, dataset)
    problems += check_licences(settings.license, base.license, dataset.licenses, attribution)
    if settings.license == "other" and not (settings.license_name and settings.license_link):
        problems.append("license_name and license_link must be given with license other")
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(f"this adapter cannot be published so:{listed}")
    cells = _widget_cells(pictures) if pictures else ()
    facts = Facts(
        card_version=CARD_VERSION,
        name=settings.name or _name(train, base),
        license=settings.license,
        license_name=settings.license_name,
        license_link=settings.license_link,
        intended_use=settings.intended_use,
        attribution=attribution,
        attributes=train.settings.attributes,
        base=base,
        dataset=dataset,
        code=CodeFacts(
            unskew=version("unskew"),
            train_commit=train.manifest["git"]["commit"],
            study_commit=study.manifest["git"]["commit"] if study else None,
            versions=dict(train.manifest["versions"]),
        ),
        adapter_sha256=train.adapter_sha256,
        kohya_sha256=sha256_file(train.adapter / KOHYA_FILE),
        dora=train.settings.lora.use_dora,
        measured=(
            Measured(arm=study.arm, baseline=study.results.baseline, weight=study.weight)
            if study
            else None
        ),
        widgets=tuple(
            Widget(text=cell.prompt.text, seed=cell.seed, file=f"samples/pair-{n}.png")
            for n, cell in enumerate(cells, 1)
        ),
        unproven=settings.allow_unproven if belonging.refusals else None,
        refusals=belonging.refusals,
    )
    training = public_training(train.settings, train.manifest)
    return Plan(settings, belonging, facts, training, results, pictures, cells)


def write_bundle(plan: Plan) -> Path:
    """Write the bundle whole, checksums last, in place of one that was there; its folder.

    Raises UserError where the folder holds something else, and where a local name or a token would
    get out.
    """
    out = plan.settings.out
    if out.exists() and not (out / CHECKSUMS).is_file():
        raise UserError(f"out {out} is there and is no bundle: give another folder")
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with atomic_path(fresh) as temporary:
        _fill(plan, temporary)
        _check_leaks(plan, temporary)
    if out.exists():
        shutil.rmtree(out)
    fresh.replace(out)
    return out


def _fill(plan: Plan, bundle: Path) -> None:
    train, study = plan.belonging.train, plan.belonging.study
    bundle.mkdir()
    for name in (WEIGHTS_FILE, KOHYA_FILE):
        shutil.copyfile(train.adapter / name, bundle / name)
    if study and plan.results and plan.pictures:
        write_results(plan.results, bundle / RESULTS)
        write_summary(plan.results, bundle / SUMMARY)
        _write_samples(plan, plan.pictures, bundle)
        keep_cells(study, plan.pictures, bundle)
    write_json_atomic(bundle / TRAINING, plan.training)
    write_json_atomic(bundle / BUNDLE, dumped(plan.facts))
    results = load_results(bundle / RESULTS) if plan.results else None
    card = render_card(plan.facts, plan.training, results)
    if problems := check_metadata(card, bundle):
        raise UserError(f"the hub would not take this card: {'; '.join(problems)}")
    write_text_atomic(bundle / CARD, card)
    write_json_atomic(bundle / CHECKSUMS, dumped(checksums(bundle)))


def checksums(bundle: Path) -> Checksums:
    """Hash and size of every file of a bundle but the checksums' own."""
    files = sorted(f for f in bundle.rglob("*") if f.is_file() and f.name != CHECKSUMS)
    return Checksums(
        files={
            f.relative_to(bundle).as_posix(): FileSum(sha256=sha256_file(f), size=f.stat().st_size)
            for f in files
        }
    )


def bundle_files(bundle: Path) -> list[tuple[str, int]]:
    """(name, bytes) of all that a push uploads: what the checksums name, and they themselves."""
    known = load_part(Checksums, bundle / CHECKSUMS).files
    return [
        *((name, one.size) for name, one in known.items()),
        (CHECKSUMS, (bundle / CHECKSUMS).stat().st_size),
    ]


def _write_samples(plan: Plan, pictures: Pictures, bundle: Path) -> None:
    assert plan.facts.measured is not None
    arms = (plan.facts.measured.baseline, plan.facts.measured.arm)
    cells = _neutral(pictures) or list(pictures.cells)
    write_pairs(
        {arm: {cell: pictures.file(arm, cell) for cell in cells} for arm in arms},
        cells,
        bundle / Path(GRID).parent,
    )
    for widget, cell in zip(plan.facts.widgets, plan.widgets, strict=True):
        sides = [shrunk(read_picture(pictures.file(arm, cell)), WIDGET_PX) for arm in arms]
        save_picture(np.concatenate(sides, axis=1), bundle / widget.file)


def _neutral(pictures: Pictures) -> list[Cell]:
    return [cell for cell in pictures.cells if cell.prompt.attributes and not _asks(cell)]


def _asks(cell: Cell) -> bool:
    return any(name != "subject" for name in cell.prompt.asked)


def _widget_cells(pictures: Pictures) -> tuple[Cell, ...]:
    """The first seed of prompts evenly spaced over the neutral ones: chosen by place, not looks."""
    firsts = dict[str, Cell]()
    for cell in _neutral(pictures):
        firsts.setdefault(cell.prompt.text, cell)
    cells = list(firsts.values())
    wanted = min(WIDGETS, len(cells))
    return tuple(cells[i * len(cells) // wanted] for i in range(wanted))


def _base(settings: PublishSettings, train: TrainRun) -> tuple[BaseFacts, list[str]]:
    """The base, looked up again, and what is wrong with it."""
    asked = train.settings
    folder = resolve_base(
        asked.base, revision=asked.base_revision, config=asked.base_config, cache=asked.cache
    )
    family, sha256 = check_parts(folder), base_sha256(folder)
    problems = []
    if sha256 != train.manifest["inputs"]["base"]:
        problems.append(
            f"base {asked.base} is not what the adapter was trained on (sha256 {sha256[:12]}..., "
            f"the training's manifest has {train.manifest['inputs']['base'][:12]}...)"
        )
    local = asked.base != EMBEDDED_BASE and Path(asked.base).exists()
    id = settings.base_model or ("" if local else asked.base)
    if not id:
        problems.append(
            "base_model must be given: the base is a folder or a file here, so the card cannot "
            'tell its readers which one it is ("owner/name" on the hub)'
        )
    licence = settings.base_license or CARD_LICENCES.get(asked.base) or _card_license(folder)
    facts = BaseFacts(
        name=id or "unknown",
        id=id,
        revision=train.manifest["facts"].get("base_commit"),
        sha256=sha256,
        family=family.NAME,
        license=licence or "",
    )
    return facts, problems


def _card_license(folder: Path) -> str | None:
    """What a base's own README.md says in its header."""
    if not (folder / CARD).is_file():
        return None
    try:
        said = ModelCard.load(folder / CARD, ignore_metadata_errors=True).data.license
    except ValueError:
        return None
    return str(said) if said else None


def _dataset(settings: PublishSettings, train: TrainRun) -> DatasetFacts:
    """What is known of the dataset. Raises UserError where it has changed since."""
    folder, sha256 = train.settings.dataset, train.manifest["inputs"]["dataset"]
    licenses: tuple[str, ...] = (settings.data_license,) if settings.data_license else ()
    sources: tuple[str, ...] = ()
    if (folder / "metadata.jsonl").is_file():
        if sha256_folder(folder) != sha256:
            raise UserError(
                f"dataset {folder} has changed since the training: put it back as it was, or give "
                "data_license where it is gone for good"
            )
        found, sources = licences_of(folder / "metadata.jsonl")
        licenses = licenses or found
    return DatasetFacts(
        sha256=sha256, link=settings.dataset_link, licenses=licenses, sources=sources
    )


def _attribution(
    settings: PublishSettings, belonging: Belonging, dataset: DatasetFacts
) -> tuple[str, ...]:
    study = belonging.study
    said = study.results.settings.study.get("attribution", ()) if study else ()
    sources = [f"Training pictures: {source}" for source in dataset.sources[:SHOWN]]
    if len(dataset.sources) > SHOWN:
        sources.append(f"and {len(dataset.sources) - SHOWN} other sources of training pictures")
    return tuple(dict.fromkeys((*settings.attribution, *said, *sources)))


def _name(train: TrainRun, base: BaseFacts) -> str:
    words = ", ".join(name.replace("_", " ") for name in train.settings.attributes)
    return f"Unskew {words} for {base.name.rpartition('/')[2]}"


def _check_leaks(plan: Plan, bundle: Path) -> None:
    """Raise UserError, and leave nothing, where a bundle would tell what is local or secret."""
    train, study, settings = plan.belonging.train, plan.belonging.study, plan.settings
    folders = [train.folder, train.settings.dataset, *([study.folder] if study else [])]
    runs = [train.manifest["settings"], *([study.manifest["settings"]] if study else [])]
    names = local_names(folders, runs, _public_words(plan)) | secrets()
    found = list(leaks(bundle, names))
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise UserError(
            f"the bundle would tell what should stay here: {'; '.join(found[:SHOWN])}{more}. Look "
            f"for it in the prompts, arms, attribution and settings of {settings.train} and "
            f"{settings.study}"
        )


def _public_words(plan: Plan) -> Sequence[str]:
    """What the user gave for everybody to read, and the names of the arms."""
    s, facts = plan.settings, plan.facts
    arms = plan.results.arms if plan.results else ()
    given = (facts.name, facts.base.id, s.push, s.dataset_link, s.intended_use, s.allow_unproven)
    return [*(text for text in given if text), *s.attribution, *arms]

"""The study engine: arms x suites x seeds x attributes, run to a result.

Draw what is missing, read every picture, compute the statistics, write the report. The programs
`audit`, `paired` and `compare` are openings onto `run_study`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from tqdm import tqdm

from unskew.adapters import adapter_file, load_adapter
from unskew.attributes import SUBJECT, Attribute, load_attribute
from unskew.bases import base_facts, resolve_base
from unskew.errors import UserError
from unskew.evaluate.classifiers.exemplar import ExemplarClassifier, fit_folder
from unskew.evaluate.classify import pooled_pixels, read_arm, write_readings
from unskew.evaluate.corrected import with_labels
from unskew.evaluate.generate import (
    Cell,
    Sampler,
    TextStates,
    draw,
    draw_batch,
    missing_batches,
    plan_batches,
)
from unskew.evaluate.pairs import write_pairs
from unskew.evaluate.report import write_report
from unskew.evaluate.results import Margins, Results, StudyPlan, summarise, write_results
from unskew.pipelines import base_sha256, check_base, choose_device, choose_dtype, load_base
from unskew.prompts import Suite, load_suites
from unskew.runs import Run, open_run, sha256_file
from unskew.settings import Resolved, Settings, config_path

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class ArmSettings(Settings):
    """One thing under test: the base, or the base with an adapter at a weight."""

    adapter: Path | None = None
    """Folder with pytorch_lora_weights.safetensors, or the file itself; none is the bare base."""
    weight: float = 1.0
    """Multiplies the adapter's own scale; 0 must change nothing."""


class SuiteSettings(Settings):
    """How much of a suite is drawn."""

    seeds: Annotated[int, Field(ge=2)] = 20
    """Pictures a prompt; an unbiased imbalance needs at least 2."""
    prompts: Annotated[int, Field(ge=0)] = 0
    """How many of its prompts, evenly spaced; 0 is all."""


class StudySettings(Settings):
    """What is compared with what, on which prompts, and how it is judged."""

    base: str = "emoji-world"
    """A diffusers folder; "emoji-world" for the embedded base; a hub's "org/name"; or a single
    .safetensors file with the whole model, which needs base_config."""
    base_revision: str | None = None
    """Commit, tag or branch of a base on the hub; null is its main branch."""
    base_config: Path | None = None
    """Of a single-file base: a diffusers folder that says how it is put together."""
    cache: Path = Path("runs/cache")
    """Where a single-file base is unpacked, once."""
    arms: dict[str, ArmSettings]
    """Name -> arm; the first is the baseline that the others are compared with."""
    prompts: Path = Path("prompts/emoji.yaml")
    """A prompt file; a relative path that does not exist is looked up in Unskew's configs."""
    suites: dict[str, SuiteSettings]
    """Suite name -> how much of it is drawn."""
    primaries: tuple[str, ...] = ()
    """The declared primary comparisons, "attribute@suite"; Holm's correction runs over these."""
    exemplars: Path = Path("runs/emoji-exemplars")
    """Labelled pictures that the classifier reads with; `unskew data` writes Emoji World's."""
    steps: Annotated[int, Field(ge=1)] = 12
    """Denoising steps a picture."""
    guidance: Annotated[float, Field(ge=1)] = 2.0
    """Classifier-free guidance scale; 1 switches it off."""
    resolution_px: Annotated[int, Field(ge=8)] = 64
    """Side of the square pictures."""
    batch: Annotated[int, Field(ge=1)] = 64
    """Cells drawn together; part of what makes a picture."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of drawing; auto takes what this device computes fast and safely."""
    margins: Margins = Margins()
    """How small a change counts as none; set before the study, stored with the results."""
    gate: tuple[str, ...] = ()
    """Comparisons, "attribute@suite", that must be improved for exit code 0; fidelity and drift
    must then be kept too. Empty is no gate."""
    out: Path = Path("runs/emoji-study")
    """The study's folder; the same command again draws only what is missing."""
    attribution: tuple[str, ...] = ()
    """Lines of attribution that the report ends with."""


def run_study(resolved: Resolved[StudySettings], program: str) -> int:
    """Run a study to its report. Exit code 0, or 1 when its gate failed."""
    settings = resolved.settings
    started = time.perf_counter()
    suites = _load_suites(settings)
    attributes = _attributes_of(suites)
    cells = [
        Cell(prompt, seed)
        for suite in suites
        for prompt in suite.prompts
        for seed in range(settings.suites[suite.name].seeds)
    ]
    base = resolve_base(
        settings.base,
        revision=settings.base_revision,
        config=settings.base_config,
        cache=settings.cache,
    )
    inputs = _check_inputs(settings, base)
    classifier = fit_folder(settings.exemplars, {id: a.values for id, a in attributes.items()})
    plan = _plan(settings, suites, attributes)
    device, device_reason = choose_device()
    dtype, dtype_reason = _dtype(settings, device)
    print(f"device: {device_reason}\ndtype: {dtype_reason}")
    print(
        f"{len(settings.arms)} arms x {len(cells)} pictures: "
        + ", ".join(f"{s.name} {len(s.prompts)} x {settings.suites[s.name].seeds}" for s in suites)
    )
    if resolved.dry_run:
        return _dry_run(settings, base, cells, device, dtype)

    facts = {"device": device_reason, "dtype": dtype_reason, "pictures_per_arm": len(cells)}
    facts |= base_facts(base)
    with open_run(
        settings.out,
        program=program,
        settings=settings.model_dump(mode="json"),
        passed=resolved.passed,
        inputs=inputs,
        facts=facts,
    ) as run:
        _draw_arms(settings, base, cells, run, device, dtype)
        results = _judge(settings, plan, cells, classifier, run)
        neutral = [cell for cell in cells if plan.suite_roles[cell.prompt.suite] == "neutral"]
        if neutral:
            write_pairs(plan.arms, neutral, run.folder / "images", run.folder / "pairs.png")
        report = write_report(run.folder)
        run.finish("complete", {"seconds": round(time.perf_counter() - started, 1)})
    print(f"report: {report}")
    return 0 if results.gate.passed is not False else 1


def _draw_arms(
    settings: StudySettings,
    base: Path,
    cells: Sequence[Cell],
    run: Run,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    batches = plan_batches(cells, settings.batch)
    missing = {arm: missing_batches(batches, run.folder / "images" / arm) for arm in settings.arms}
    total = sum(len(set(part)) for parts in missing.values() for part in parts)
    if not total:
        return
    pipe = load_base(base, device, dtype)
    with tqdm(total=total, unit="picture", smoothing=0.05, disable=None) as bar:
        for arm, arm_settings in settings.arms.items():
            bar.set_description(arm)
            with _wearing(pipe, arm, arm_settings):
                folder = run.folder / "images" / arm
                for drawn in draw(pipe, missing[arm], _sampler(settings), folder):
                    bar.update(drawn)


@contextmanager
def _wearing(pipe: Any, name: str, arm: ArmSettings) -> Iterator[None]:
    """The base with an arm's adapter on; the bare base again afterwards."""
    if arm.adapter is None:
        yield
        return
    load_adapter(pipe, arm.adapter, name, arm.weight)
    try:
        yield
    finally:
        pipe.unload_lora_weights()


def _judge(
    settings: StudySettings,
    plan: StudyPlan,
    cells: Sequence[Cell],
    classifier: ExemplarClassifier,
    run: Run,
) -> Results:
    """Read every picture and compute the results."""
    images = run.folder / "images"
    rows = [row for arm in settings.arms for row in read_arm(arm, cells, images / arm, classifier)]
    readings = write_readings(rows, run.folder / "readings.parquet")
    controls = [cell for cell in cells if plan.suite_roles[cell.prompt.suite] == "control"]
    features = {arm: pooled_pixels(controls, images / arm) for arm in settings.arms}
    results = with_labels(summarise(readings, plan, features), readings, run.folder)
    write_results(results, run.folder / "results.json")
    return results


def _load_suites(settings: StudySettings) -> tuple[Suite, ...]:
    file = settings.prompts if settings.prompts.exists() else config_path(str(settings.prompts))
    suites = load_suites(file, tuple(settings.suites))
    return tuple(
        Suite(s.name, s.role, _evenly(s.prompts, settings.suites[s.name].prompts)) for s in suites
    )


def _evenly(prompts: Sequence[Any], limit: int) -> tuple[Any, ...]:
    if not 0 < limit < len(prompts):
        return tuple(prompts)
    return tuple(prompts[i * len(prompts) // limit] for i in range(limit))


def _attributes_of(suites: Sequence[Suite]) -> dict[str, Attribute]:
    ids = dict.fromkeys(a for s in suites for p in s.prompts for a in p.attributes)
    return {id: load_attribute(id) for id in ids if id != SUBJECT}


def _plan(
    settings: StudySettings, suites: Sequence[Suite], attributes: Mapping[str, Attribute]
) -> StudyPlan:
    named = [*settings.primaries, *settings.gate]
    known = {f"{a}@{s.name}" for s in suites for p in s.prompts for a in p.attributes}
    for entry in named:
        if entry not in known:
            raise UserError(
                f"primaries and gate must name an attribute of a suite that is drawn, got "
                f"{entry!r} (allowed: {', '.join(sorted(known))})"
            )
    return StudyPlan(
        baseline=next(iter(settings.arms)),
        arms=tuple(settings.arms),
        prompts=tuple(p for s in suites for p in s.prompts),
        suite_roles={s.name: s.role for s in suites},
        attributes=attributes,
        seeds={s.name: settings.suites[s.name].seeds for s in suites},
        primaries=tuple((e.split("@")[0], e.split("@")[1]) for e in settings.primaries),
        gate=tuple((e.split("@")[0], e.split("@")[1]) for e in settings.gate),
        margins=settings.margins,
        settings=settings.model_dump(mode="json"),
    )


def _check_inputs(settings: StudySettings, base: Path) -> dict[str, str]:
    """sha256 of all that a picture or reading depends on. Raises UserError for what is missing."""
    if len(settings.arms) < 1:
        raise UserError("arms must name at least one arm, got none")
    check_base(base)
    inputs = {"base": base_sha256(base)}
    for name, arm in settings.arms.items():
        if arm.adapter is None:
            continue
        file = adapter_file(arm.adapter)
        if not file.is_file():
            raise UserError(
                f"arms.{name}.adapter: {arm.adapter} holds no adapter: train one first "
                "(`unskew train`), or give another folder"
            )
        inputs[f"adapter {name}"] = sha256_file(file)
    metadata = settings.exemplars / "metadata.jsonl"
    if not metadata.is_file():
        raise UserError(
            f"exemplars: {settings.exemplars} has no metadata.jsonl: `unskew data` writes Emoji "
            "World's; for your own give a folder of labelled pictures"
        )
    inputs["exemplars"] = sha256_file(metadata)
    return inputs


def _dtype(settings: StudySettings, device: torch.device) -> tuple[torch.dtype, str]:
    if settings.dtype == "auto":
        return choose_dtype(device)
    return DTYPES[settings.dtype], f"{settings.dtype} (as given)"


def _sampler(settings: StudySettings) -> Sampler:
    return Sampler(settings.steps, settings.guidance, settings.resolution_px, settings.batch)


def _dry_run(
    settings: StudySettings,
    base: Path,
    cells: Sequence[Cell],
    device: torch.device,
    dtype: torch.dtype,
) -> int:
    """Load everything, draw one batch of every arm in memory, and estimate the time."""
    pipe = load_base(base, device, dtype)
    sampler = _sampler(settings)
    part = plan_batches(cells, settings.batch)[0]
    seconds = 0.0
    for arm, arm_settings in settings.arms.items():
        with _wearing(pipe, arm, arm_settings):
            states = TextStates(pipe, sampler.guidance > 1)([cell.prompt.text for cell in part])
            started = time.perf_counter()
            draw_batch(pipe, part, sampler, states)
            seconds += time.perf_counter() - started
    minutes = seconds * len(cells) / len(part) / 60
    print(f"dry run: one batch of each arm drawn; about {minutes:.1f} minutes for the study")
    return 0

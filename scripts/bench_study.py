"""Measure a study's wall time against the bare batched pipeline calls for the same pictures.

    python scripts/bench_study.py                           # Emoji World, here
    python scripts/bench_study.py --write docs/benchmarks.md
    python scripts/bench_study.py --repeats 1 --settings '{suites: {trained: {seeds: 4}}}'
    python scripts/bench_study.py --dry-run                 # one batch an arm, once

The study is all that `unskew evaluate` does after its imports, into an empty folder: look over,
load, draw, save, read, compute, report. The bare calls are the loaded pipeline's alone, one a
batch, asked in words as the usual scripts do, with nothing saved or read. The two take turns.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pydantic import Field

from unskew.adapters import attach, save_adapter
from unskew.bases import resolve_base
from unskew.errors import UserError
from unskew.evaluate.arms import Wardrobe
from unskew.evaluate.generate import DECODED_TOGETHER, Cell, plan_batches
from unskew.evaluate.inputs import Study, look_over
from unskew.evaluate.pictures import read_picture
from unskew.evaluate.samplers import use_sampler
from unskew.evaluate.study import StudySettings, run_study
from unskew.noise import cell_generator, noise_of
from unskew.pipelines import load_base
from unskew.runs import git_state, read_manifest
from unskew.scripts.bench_meters import Spread, machine, seconds_of, wait_for
from unskew.scripts.bench_page import put
from unskew.scripts.bench_speed import say
from unskew.settings import Resolved, Settings, config_path, resolve, run_program

DECODES = 3
"""Times that a whole batch is decoded, after one to warm up."""


class BenchStudySettings(Settings):
    """What is measured, and how often."""

    row: str
    """Name of the row in docs/benchmarks.md."""
    study: Path
    """The study's settings file; a name like emoji/study-quick.yaml finds Unskew's own."""
    settings: dict[str, Any] = {}
    """Settings of the study over those of its file, whole values; arms and out are the bench's."""
    rank: Annotated[int, Field(ge=1)] = 16
    """Of the LoRA with random weights that the second arm has on: what it shows is not measured."""
    repeats: Annotated[int, Field(ge=1)] = 3
    """Turns of study and bare calls."""
    wanted: Annotated[float, Field(ge=0)] = 0
    """The study's seconds over the bare calls', at most; shown beside, decides nothing."""
    write: Path | None = None
    """Markdown page with a place for this row, which is replaced."""


def main(argv: Sequence[str]) -> int:
    """Measure, print Markdown (or JSON with --json), and put it into the page if asked; 0."""
    resolved = resolve(
        BenchStudySettings,
        argv,
        default_config=config_path("bench/study/emoji.yaml"),
        prog="bench_study",
        description=(__doc__ or "").splitlines()[0],
    )
    settings = resolved.settings
    with tempfile.TemporaryDirectory(prefix="unskew-bench-") as name:
        report = measure(settings, Path(name), smallest=resolved.dry_run)
    block = block_of(report)
    print(json.dumps(report, indent=2) if resolved.json else block)
    if settings.write and not resolved.dry_run:
        put(settings.write, settings.row, block)
    return 0


def measure(settings: BenchStudySettings, folder: Path, *, smallest: bool) -> dict[str, Any]:
    """All figures of a row."""
    asked = study_settings(settings, folder)
    base = resolve_base(asked.base, revision=asked.base_revision, config=asked.base_config)
    write_adapter(folder / "adapter", base, settings.rank)
    study = look_over(asked)
    pipe = load_base(base, study.device, study.dtype)
    use_sampler(pipe, asked.sampler)
    batches = plan_batches(study.cells, asked.batch)[: 1 if smallest else None]
    wardrobe = Wardrobe(pipe)
    bare_calls(study, wardrobe, batches[:1])  # to warm up
    ours, bare, parts = [], [], []
    repeats = 0 if smallest else settings.repeats
    for turn in range(repeats):
        for who in ("study", "bare") if turn % 2 == 0 else ("bare", "study"):
            if who == "study":
                out = folder / f"study-{turn}"
                seconds, split = timed_study(asked.model_copy(update={"out": out}))
                ours.append(seconds)
                parts.append(split)
            else:
                seconds, pictures = bare_calls(study, wardrobe, batches)
                bare.append(seconds)
            say(f"turn {turn + 1} of {repeats}, {who}: {seconds:.1f} s")
    state = git_state()
    report = {
        "row": settings.row,
        "machine": machine(study.device),
        "commit": (state["commit"] or "unknown")[:12] + " with changes" * bool(state["dirty"]),
        "pictures": len(study.cells) * len(asked.arms),
        "batch": asked.batch,
        "resolution_px": asked.resolution_px,
        "steps": asked.steps,
        "repeats": repeats,
        "wanted": settings.wanted,
        "decode": decoding(study, pipe),
        "settings": settings.model_dump(mode="json"),
    }
    if not repeats:
        return report
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    return report | {
        "study_s": asdict(Spread.of(ours)),
        "bare_s": asdict(Spread.of(bare)),
        "ratio": asdict(Spread.of(ratios)),
        "parts_s": {key: Spread.of([p[key] for p in parts]).median for key in parts[0]},
        "same": same_pictures(folder / "study-0" / "images", batches, pictures),
    }


def study_settings(settings: BenchStudySettings, folder: Path) -> StudySettings:
    """The study that is measured: its file, the overrides, and two arms, one with an adapter."""
    file = settings.study if settings.study.is_file() else config_path(str(settings.study))
    if not file.is_file():
        raise UserError(f"study {settings.study} is no file: give a study's settings")
    arms = {"base": {}, "adapter": {"adapter": str(folder / "adapter")}}
    loaded = yaml.safe_load(file.read_text("utf-8"))
    merged = {**loaded, **settings.settings, "arms": arms, "out": str(folder / "study")}
    own = folder / "study.yaml"
    own.write_text(yaml.safe_dump(merged), "utf-8")
    resolved = resolve(
        StudySettings, [], default_config=own, prog="bench_study", description="The study."
    )
    return resolved.settings


def write_adapter(folder: Path, base: Path, rank: int) -> None:
    """A LoRA on the UNet's attention and feed-forward, small and random, that changes pictures."""
    pipe = load_base(base, torch.device("cpu"), torch.float32)
    torch.manual_seed(0)
    models = {"unet": pipe.unet}
    kind = "attention+feed_forward"
    for parameter in attach(models, rank=rank, alpha=rank, target_modules=kind).values():
        torch.nn.init.normal_(parameter, std=0.02)
    save_adapter(folder, models, {})


def timed_study(settings: StudySettings) -> tuple[float, dict[str, float]]:
    """Seconds of a whole study, and of its parts as its manifest has them."""
    resolved = Resolved(settings, (), settings.out, dry_run=False, json=False)
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run_study(resolved, "paired")
    return time.perf_counter() - started, read_manifest(settings.out)["facts"]["seconds_of"]


def bare_calls(
    study: Study, wardrobe: Wardrobe, batches: Sequence[tuple[Cell, ...]]
) -> tuple[float, dict[str, list[NDArray[np.uint8]]]]:
    """Seconds of the pipeline's calls alone, and each arm's pictures, batch by batch."""
    seconds, pictures, pipe = 0.0, {}, wardrobe.pipe
    size = study.settings.resolution_px // pipe.vae_scale_factor
    for name, arm in study.settings.drawn.items():
        with wardrobe.wearing(arm):
            drawn = []
            for part in batches:
                generators = [cell_generator(cell.prompt.text, cell.seed) for cell in part]
                noise = noise_of(generators, (pipe.unet.config.in_channels, size, size))
                wait_for(study.device)
                started = time.perf_counter()
                images = pipe(
                    [cell.prompt.text for cell in part],
                    latents=noise.to(pipe.device, pipe.unet.dtype),
                    generator=generators,
                    num_inference_steps=study.settings.steps,
                    guidance_scale=study.settings.guidance,
                    height=study.settings.resolution_px,
                    width=study.settings.resolution_px,
                ).images
                seconds += time.perf_counter() - started
                drawn.append(np.stack([np.asarray(image) for image in images]))
            pictures[name] = drawn
    return seconds, pictures


def same_pictures(
    images: Path,
    batches: Sequence[tuple[Cell, ...]],
    pictures: Mapping[str, Sequence[NDArray[np.uint8]]],
) -> dict[str, float]:
    """How far the study's pictures are from the bare calls': texts are encoded one by one there."""
    largest, equal = 0, []
    for arm, drawn in pictures.items():
        for part, batch in zip(batches, drawn, strict=True):
            ours = np.stack([read_picture(cell.file(images / arm)) for cell in part]).astype(int)
            largest = max(largest, int(abs(ours - batch).max()))
            equal.append(float((ours == batch).mean()))
    return {"largest_difference": largest, "equal_values": float(np.mean(equal))}


def decoding(study: Study, pipe: Any) -> dict[str, float]:
    """Seconds of decoding a batch at once, and in slices as studies do."""
    size = study.settings.resolution_px // pipe.vae_scale_factor
    shape = (study.settings.batch, pipe.unet.config.in_channels, size, size)
    latents = torch.randn(shape, device=study.device, dtype=study.dtype)

    def decode(together: int) -> None:
        with torch.inference_mode():
            for part in latents.split(together):
                pipe.vae.decode(part, return_dict=False)

    found = {}
    for name, together in (("whole_s", study.settings.batch), ("sliced_s", DECODED_TOGETHER)):
        decode(together)
        found[name] = seconds_of(partial(decode, together), DECODES, study.device) / DECODES
    return found


def block_of(report: Mapping[str, Any]) -> str:
    """A report's Markdown: where and when, then a table."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    where, decode = report["machine"], report["decode"]
    threads = f", {where['threads']} threads" if where["kind"] == "cpu" else ""
    yield (
        f"{where['date']}, {where['device']} ({where['cores']} cores{threads}), {where['system']}, "
        f"torch {where['torch']}; {report['pictures']} pictures of {report['resolution_px']} px in "
        f"two arms, {report['steps']} steps, batch {report['batch']}, {report['repeats']} turns, "
        f"commit {report['commit']}."
    )
    yield "\n| | figure | wanted |\n| --- | --- | --- |"
    if report["repeats"]:
        wanted = f"at most {report['wanted']:.2f}" if report["wanted"] else "-"
        ratio = _spread(report["ratio"])
        yield f"| study / bare calls, median (lowest to highest) | {ratio} | {wanted} |"
        yield f"| seconds of the whole study | {_spread(report['study_s'])} | - |"
        yield f"| seconds of the bare calls | {_spread(report['bare_s'])} | - |"
        parts = report["parts_s"]
        seconds = " / ".join(f"{took:.1f}" for took in parts.values())
        yield f"| seconds of the study: {' / '.join(parts)} | {seconds} | - |"
        same = report["same"]
        yield (
            f"| pictures against the bare calls' | {same['equal_values']:.2%} of values equal, "
            f"largest difference {same['largest_difference']} of 255 | - |"
        )
    yield (
        f"| s of decoding {report['batch']}: at once / {DECODED_TOGETHER} at a time | "
        f"{decode['whole_s']:.2f} / {decode['sliced_s']:.2f} | - |"
    )


def _spread(spread: Mapping[str, float]) -> str:
    return f"{spread['median']:.3g} ({spread['min']:.3g} to {spread['max']:.3g})"


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

"""Measure Emoji World's base with the oracle: does it draw what is asked, at the planted rates?

python scripts/measure_emoji_world.py                 # the shipped base; prints the summary
python scripts/measure_emoji_world.py --base FOLDER --seeds 8
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from unskew.attributes import SUBJECT
from unskew.data.emoji_world.oracle import oracle
from unskew.data.emoji_world.world import (
    BASE_DIR,
    Control,
    Scene,
    Subject,
    World,
    describe,
    load_world,
)
from unskew.evaluate.generate import Cell, Sampler, TextStates, draw_batch, plan_batches
from unskew.pipelines import choose_device, choose_dtype, load_base
from unskew.prompts import Prompt, prompt_id
from unskew.runs import write_text_atomic

DEFAULT_SAMPLER = Sampler(steps=12, guidance=1.5, resolution_px=64, batch=64)


@dataclass(frozen=True)
class Arguments:
    """Measure Emoji World's base with the oracle."""

    base: Path = BASE_DIR
    """A diffusers folder."""
    seeds: int = 64
    """Pictures a subject for the neutral shares."""


def measure(base: Path, seeds: int) -> dict[str, Any]:
    """The base's figures; `summary` holds the ones with a bar. Rates are in [0, 1]."""
    device, _ = choose_device()
    dtype, dtype_reason = choose_dtype(device)
    pipe = load_base(base, device, dtype)
    world = load_world()
    unguided = replace(DEFAULT_SAMPLER, guidance=1.0)
    people, scenes = world.subjects, world.scenes
    few = max(1, seeds // 16)
    subject = _rate(pipe, SUBJECT, _asking(world, world.skewed, None, few))
    named = {
        attribute: _rate(pipe, attribute, _asking(world, things, attribute, max(1, few // 2)))
        for attribute, things in (
            ("presentation", people),
            ("skin_tone", people),
            ("season", scenes),
        )
    }
    planted = _neutral_shares(pipe, world, seeds, unguided)
    guided = _neutral_shares(pipe, world, seeds, DEFAULT_SAMPLER)
    summary = {
        "subject_right": subject,
        **{f"explicit_{attribute}_followed": rate for attribute, rate in named.items()},
        "controls_right": _rate(pipe, SUBJECT, _asking(world, world.controls, None, few)),
        "mean_abs_share_error_guidance_1": _mean_error(planted, world),
        "mean_abs_share_error_default_guidance": _mean_error(guided, world),
    }
    return {
        "summary": summary,
        "sampler": vars(DEFAULT_SAMPLER),
        "seeds_a_subject": seeds,
        "dtype": dtype_reason,
        "lead_share": {
            "planted": _lead({t.id: t.shares for t in world.skewed}),
            "guidance_1": _lead(planted),
            "default_guidance": _lead(guided),
        },
        "shares_guidance_1": _rounded(planted),
        "shares_default_guidance": _rounded(guided),
    }


def _asking(
    world: World,
    things: Sequence[Subject | Scene | Control],
    attribute: str | None,
    seeds: int,
) -> list[tuple[Cell, str]]:
    """Cells over all templates, each with the value that its words ask for."""
    asked = []
    for thing in things:
        for value in world.values[attribute] if attribute else [thing.id]:
            phrase = describe(thing, {attribute: value} if attribute else {}, world.values)
            for template in (*world.plain_templates, *world.contextual_templates):
                cells = _cells(template.format(x=phrase), thing.id, seeds)
                asked += [(cell, value) for cell in cells]
    return asked


def _cells(text: str, subject: str, seeds: int) -> Iterator[Cell]:
    prompt = Prompt(prompt_id(text), text, "measure", subject, (), {SUBJECT: subject})
    return (Cell(prompt, seed) for seed in range(seeds))


def _rate(pipe: Any, attribute: str, asked: list[tuple[Cell, str]]) -> float:
    shown = _read(pipe, [cell for cell, _ in asked], [attribute], DEFAULT_SAMPLER)[attribute]
    return float(
        np.mean([value == wanted for value, (_, wanted) in zip(shown, asked, strict=True)])
    )


def _read(
    pipe: Any,
    cells: list[Cell],
    attributes: Sequence[str],
    sampler: Sampler,
) -> dict[str, list[str | None]]:
    """The oracle's values for every cell's picture, by attribute; None where it is unreadable."""
    states = TextStates(pipe, sampler.guidance > 1)
    shown: dict[str, list[str | None]] = {attribute: [] for attribute in attributes}
    for number, part in enumerate(plan_batches(cells, sampler.batch)):
        images = draw_batch(pipe, part, sampler, states([cell.prompt.text for cell in part]))
        for attribute, reading in oracle().read(images, attributes).items():
            shown[attribute] += [reading.values[k] if k >= 0 else None for k in reading.value_n]
        if number % 10 == 0:
            done = number * sampler.batch
            print(f"{', '.join(attributes)}: {done} of {len(cells)}", file=sys.stderr, flush=True)
    return {attribute: values[: len(cells)] for attribute, values in shown.items()}


Shares = Mapping[str, Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]]


def _neutral_shares(pipe: Any, world: World, seeds: int, sampler: Sampler) -> Shares:
    """Subject -> attribute -> share of each value over `seeds` pictures, templates in turn."""
    templates = (*world.plain_templates, *world.contextual_templates)
    shares: dict[str, dict[str, np.ndarray[Any, np.dtype[np.float64]]]] = {}
    groups: tuple[Sequence[Subject | Scene], ...] = (world.subjects, world.scenes)
    for group in groups:
        cells = [
            Cell(next(_cells(templates[s % len(templates)].format(x=phrase), t.id, 1)).prompt, s)
            for t in group
            for phrase in [describe(t, {}, world.values)]
            for s in range(seeds)
        ]
        read = _read(pipe, cells, world.attributes_of(group[0]), sampler)
        for attribute, values in read.items():
            shown = np.array(values).reshape(len(group), seeds)
            for thing, row in zip(group, shown, strict=True):
                counts = np.array([(row == value).sum() for value in world.values[attribute]])
                shares.setdefault(thing.id, {})[attribute] = counts / max(1, counts.sum())
    return shares


def _mean_error(shares: Shares, world: World) -> dict[str, float]:
    errors: dict[str, list[float]] = {}
    for thing in world.skewed:
        for attribute, planted in thing.shares.items():
            error = abs(shares[thing.id][attribute] - planted).mean()
            errors.setdefault(attribute, []).append(float(error))
    return {attribute: float(np.mean(values)) for attribute, values in errors.items()}


def _lead(shares: Shares) -> dict[str, float]:
    """Mean over subjects of the largest share: how far one value leads."""
    leads: dict[str, list[float]] = {}
    for by_attribute in shares.values():
        for attribute, row in by_attribute.items():
            leads.setdefault(attribute, []).append(float(row.max()))
    return {attribute: float(np.mean(values)) for attribute, values in leads.items()}


def _rounded(shares: Shares) -> dict[str, dict[str, list[float]]]:
    return {
        thing: {attribute: [round(float(x), 3) for x in row] for attribute, row in rows.items()}
        for thing, rows in shares.items()
    }


def write_card(base: Path) -> Path:
    """The base's README.md from its figures.json."""
    figures = json.loads((base / "figures.json").read_text("utf-8"))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=False
    )
    card = environment.get_template("emoji_world_card.md.j2").render(
        **figures, world=load_world(), size_mb=_size_mb(base)
    )
    write_text_atomic(base / "README.md", card)
    return base / "README.md"


def _size_mb(base: Path) -> float:
    return sum(file.stat().st_size for file in base.rglob("*") if file.is_file()) / 1e6


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    arguments = tyro.cli(Arguments, args=list(argv))
    print(json.dumps(measure(arguments.base, arguments.seeds)["summary"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

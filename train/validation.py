"""Validation while training: the loss of every value, and what an untrained suite shows.

Each time the same is asked: the same rows at the same noise and timesteps, the same prompts from
the same noise. All processes take part: rows and batches of pictures are dealt to them in turn, and
what each found is summed, so that all know it.

Shape legend: n examples (rows x timesteps) or cells, a attributes, p prompts, s seeds, k values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unskew.evaluate.generate import Sampler, TextStates, draw_batch, plan_batches
from unskew.evaluate.stats import Floats, Ints, cluster_means, count_values, imbalance
from unskew.families import stack_texts
from unskew.train.average import Average, as_saved
from unskew.train.buckets import by_size
from unskew.train.choice import Choice, Score, with_score
from unskew.train.objective import draw_part, row_losses, target_bchw
from unskew.train.options import ValidationSettings
from unskew.train.rows import Row
from unskew.train.training import Training
from unskew.train.validation_inputs import ValidationInputs

NO_STEP = -1
"""The step whose chance the losses are taken with: one that no training step has."""
MOST_LEFT_OUT = 0.10
"""Share of an attribute's prompts that may have too few readable pictures, as in a study."""


@dataclass(frozen=True)
class Shown:
    """What the suite's pictures show of one attribute."""

    shares: Mapping[str, float]
    """Value -> share of the readable pictures; empty where none is."""
    imbalance: float | None
    """Mean over subjects, 0 on target; None where too few pictures can be read to judge."""
    unreadable: float
    """Share of the pictures, 0 to 1."""


def validate(
    training: Training, done: int, average: Average | None, choice: Choice
) -> tuple[Choice, dict[str, float], str]:
    """The choice after `done` steps, the figures for the trackers, and a line for a person.

    Every process must call it; all get the same. The weights are those that the adapter would hold.
    """
    t, settings = training, training.settings.validation
    asked = t.validation
    assert asked is not None, "validation is off"
    with as_saved(average, t.parameters):
        losses = validation_losses(t, asked)
        shown = validation_reading(t, asked)
        choice = with_score(choice, score(done, shown), t.parameters, settings)
    figures = {f"validation/{name}": value for name, value in (*losses.items(), *figured(shown))}
    return choice, figures, describe(shown, choice, settings)


def validation_losses(training: Training, asked: ValidationInputs) -> dict[str, float]:
    """Mean loss, >= 0, of all examples ("loss") and of each value's ("loss/<attribute>/<value>").

    A value whose loss stays high while the others' falls is a group left behind.
    """
    accelerator = training.accelerator
    own_n = losses_of(training, asked.rows, accelerator.process_index, accelerator.num_processes)
    losses_n = accelerator.reduce(own_n, "sum").tolist()
    per_row = training.settings.validation.loss_timesteps
    found: dict[str, list[float]] = {"loss": losses_n}
    for number, row in enumerate(asked.rows):
        for attribute, value in row.values.items():
            own = losses_n[number * per_row : (number + 1) * per_row]
            found.setdefault(f"loss/{attribute}/{value}", []).extend(own)
    return {name: sum(some) / len(some) for name, some in found.items() if some}


@torch.no_grad()
def losses_of(training: Training, rows: Sequence[Row], process: int, processes: int) -> Tensor:
    """(n,) loss of every row at every timestep, in that order; 0 where another process has it.

    Example i is process i % processes'. Noise and latents follow from the seed and i, timesteps
    are the middles of equal parts of the schedule, and no caption is dropped.
    """
    t, per_row = training, training.settings.validation.loss_timesteps
    examples = [row for row in rows for _ in range(per_row)]
    middles = (torch.arange(per_row) + 0.5) / per_row * t.schedule.config.num_train_timesteps
    timesteps_n = middles.long().repeat(len(rows))
    kept = {"caption_dropout": 0.0}
    deal = replace(t.deal, settings=t.deal.settings.model_copy(update=kept))
    # the bare module: processes need not call it equally often, and DDP's would wait for each other
    denoiser = t.accelerator.unwrap_model(t.denoiser)
    losses_n = torch.zeros(len(examples), device=deal.device)
    most = max(1, t.rows_per_process // t.settings.batch.accumulation)
    for group in by_size(examples, range(process, len(examples), processes), deal.framings):
        for places in (group[first : first + most] for first in range(0, len(group), most)):
            part = draw_part(examples, places, NO_STEP, deal, timesteps_n[places])
            noisy_bchw = t.schedule.add_noise(part.latents_bchw, part.noise_bchw, part.timesteps_b)
            with t.autocast():
                target = target_bchw(t.pipe.unet, t.family, t.schedule, part, noisy_bchw)
                predicted = denoiser(noisy_bchw, part)
                losses_n[places] = row_losses(predicted, target, part.weights_b)
    return losses_n


def validation_reading(training: Training, asked: ValidationInputs) -> dict[str, Shown]:
    """Attribute -> what the suite's pictures show of it, drawn and read as a study would."""
    accelerator = training.accelerator
    own_an = read_codes(training, asked, accelerator.process_index, accelerator.num_processes)
    codes_an = accelerator.reduce(own_an, "sum").cpu().numpy() - 1
    codes_aps = codes_an.reshape(len(asked.attributes), len(asked.prompts), asked.seeds)
    return {
        id: judged(asked, id, codes_ps)
        for id, codes_ps in zip(asked.attributes, codes_aps, strict=True)
    }


def read_codes(training: Training, asked: ValidationInputs, process: int, processes: int) -> Tensor:
    """(a, n) 1 + index of the value read on each cell's picture.

    0 where it cannot be read, and where another process draws it: batch i is process i %
    processes', whole, because a picture's bits depend a little on its batch.
    """
    t, settings = training, training.settings.validation
    batch, cells = settings.batch, asked.cells
    sampler = Sampler(settings.steps, settings.guidance, t.settings.resolution_px, batch)
    codes_an = torch.zeros(len(asked.attributes), len(cells), dtype=torch.long)
    states = text_states(t, settings.guidance > 1)
    numbered = list(enumerate(plan_batches(cells, batch)))
    for number, part in numbered[process::processes]:
        with t.autocast():
            images = draw_batch(t.pipe, part, sampler, states([c.prompt.text for c in part]))
        own = slice(number * batch, min((number + 1) * batch, len(cells)))
        readings = asked.classifier.read(images, list(asked.attributes))
        for a, reading in enumerate(readings.values()):
            codes_an[a, own] = torch.from_numpy(reading.value_n[: own.stop - own.start] + 1)
    return codes_an.to(t.accelerator.device)


def text_states(training: Training, guided: bool) -> Any:
    """A function from prompts to the pipeline's arguments for them.

    From the cache where the encoders are gone, from the encoders where they are trained.
    """
    t, encoded = training, training.deal.encoded
    if any(name in t.models for name in t.family.ENCODERS):
        return TextStates(t.pipe, guided)

    def states(texts: Sequence[str]) -> dict[str, Any]:
        told = stack_texts([encoded.texts[text] for text in texts], t.pipe.device)
        empty = stack_texts([encoded.texts[""]] * len(texts), t.pipe.device) if guided else None
        return t.family.asked(told, empty)

    return states


def judged(asked: ValidationInputs, id: str, codes_ps: Ints) -> Shown:
    """What one attribute's codes, -1 where unreadable, say of the prompts that it is measured on.

    As in a study, prompts with fewer than two readable pictures are left out, and past a tenth of
    such prompts nothing is said.
    """
    attribute = asked.attributes[id]
    at = [n for n, prompt in enumerate(asked.prompts) if id in prompt.attributes]
    prompts, codes_ps = [asked.prompts[n] for n in at], codes_ps[at]
    counts_pk = count_values(codes_ps, len(attribute.values))
    kept_p = counts_pk.sum(-1) >= 2
    pooled_k = counts_pk.sum(0) / max(1, counts_pk.sum())
    shares = dict(zip(attribute.values, pooled_k.tolist(), strict=True)) if counts_pk.any() else {}
    unreadable = float((codes_ps < 0).mean())
    if not kept_p.any() or (~kept_p).sum() > int(MOST_LEFT_OUT * len(prompts)):
        return Shown(shares, None, unreadable)
    target_pk: Floats = np.stack([p.targets.get(id, attribute.target) for p in prompts])
    subjects = [prompt.subject for prompt, kept in zip(prompts, kept_p, strict=True) if kept]
    _, clusters_p = np.unique(subjects, return_inverse=True)
    imbalance_p = imbalance(counts_pk[kept_p], target_pk[kept_p])
    imbalance_c = cluster_means(imbalance_p, clusters_p.astype(np.int64))
    return Shown(shares, float(imbalance_c.mean()), unreadable)


def score(done: int, shown: Mapping[str, Shown]) -> Score:
    """What the rule is told: nothing but inf where an attribute could not be judged."""
    found = [math.inf if one.imbalance is None else one.imbalance for one in shown.values()]
    return Score(done, sum(found) / len(found), max(found))


def figured(shown: Mapping[str, Shown]) -> Iterator[tuple[str, float]]:
    """The figures of a reading by name; those that there are."""
    for id, one in shown.items():
        if one.imbalance is not None:
            yield f"imbalance/{id}", one.imbalance
        yield from ((f"share/{id}/{value}", share) for value, share in one.shares.items())
        yield f"unreadable/{id}", one.unreadable


def describe(shown: Mapping[str, Shown], choice: Choice, settings: ValidationSettings) -> str:
    """One line: imbalance by attribute, 0 on target, and what follows from it."""
    parts = [f"{id.replace('_', ' ')} {_short(one.imbalance)}" for id, one in shown.items()]
    best = f"step {choice.best.step}" if choice.best else "none"
    held = choice.held(settings.stop_at) if settings.stop_at else 0
    if choice.ends(settings):
        end = f"; at most {settings.stop_at} in {held} readings in a row: training ends here"
    else:
        end = f"; target reached, {held} of {settings.stop_held} in a row" if held else ""
    step = choice.scores[-1].step
    return f"validation at step {step}: {', '.join(parts)} (best so far: {best}){end}"


def _short(imbalance: float | None) -> str:
    return "unreadable" if imbalance is None else f"{imbalance:.2f}".replace("0.", ".", 1)

"""Validation looks without touching: what it finds is what a study finds, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from unskew.attributes import load_attribute
from unskew.errors import UserError
from unskew.evaluate.generate import Cell, Sampler, TextStates, draw_batch, plan_batches
from unskew.evaluate.stats import count_values, imbalance
from unskew.pipelines import load_base
from unskew.prompts import load_suites
from unskew.settings import config_path, resolve
from unskew.train import validation
from unskew.train.choice import Choice, Score
from unskew.train.inputs import check_inputs
from unskew.train.options import TrainSettings, ValidationSettings
from unskew.train.surroundings import make_accelerator
from unskew.train.training import Training, load_training
from unskew.train.validation import (
    Shown,
    describe,
    judged,
    losses_of,
    read_codes,
    score,
    text_states,
)
from unskew.train.validation_inputs import ValidationInputs

Argv = Callable[..., list[str]]
EVERY = ["--validation.every", "1"]


def resolved(words: Sequence[str]) -> TrainSettings:
    config = config_path("emoji/train.yaml")
    return resolve(TrainSettings, words, default_config=config, prog="", description="").settings


def loaded(words: Sequence[str]) -> tuple[Training, ValidationInputs]:
    settings = resolved(words)
    accelerator = make_accelerator(settings)
    inputs = check_inputs(settings)
    training = load_training(settings, inputs, inputs.rows, accelerator, None)
    assert training.validation is not None
    return training, training.validation


def test_losses_are_the_same_whenever_they_are_asked(looking: Argv, tmp_path: Path) -> None:
    """Same weights, same figures, whatever was drawn before; other weights, other figures."""
    t, asked = loaded(looking(tmp_path / "run", *EVERY, "--objective.caption-dropout", "0.5"))
    first = validation.validation_losses(t, asked)
    before = {name: p.detach().clone() for name, p in t.parameters.items()}
    tones = {f"loss/skin_tone/{value}" for value in load_attribute("skin_tone").values}
    looks = {f"loss/presentation/{value}" for value in load_attribute("presentation").values}
    assert set(first) == {"loss"} | tones | looks
    assert all(0 < value < math.inf for value in first.values())
    for parameter in t.parameters.values():
        torch.nn.init.normal_(parameter.data)
    changed = validation.validation_losses(t, asked)
    assert all(changed[name] != first[name] for name in first)
    for name, parameter in t.parameters.items():
        parameter.data.copy_(before[name])
    assert validation.validation_losses(t, asked) == first


def test_a_group_left_behind_shows(looking: Argv, tmp_path: Path) -> None:
    """Where the pictures of one value are far from what the model makes, that value's loss is."""
    t, asked = loaded(looking(tmp_path / "run", *EVERY, "--objective.target", "picture"))
    encoded = t.deal.encoded
    strange = {row.file for row in asked.rows if row.values["presentation"] == "man"}
    posteriors = {f: p * (20 if f in strange else 1) for f, p in encoded.posteriors.items()}
    t = replace(t, deal=replace(t.deal, encoded=replace(encoded, posteriors=posteriors)))
    losses = validation.validation_losses(t, asked)
    man = losses.pop("loss/presentation/man")
    assert man > 3 * max(losses["loss/presentation/woman"], losses["loss/presentation/person"])


def test_every_value_has_its_rows(looking: Argv, tmp_path: Path) -> None:
    """At least as many as asked for of each value, no row twice, others with another seed."""
    asked = [
        loaded(looking(tmp_path / "run", *EVERY, "--seed", seed))[1].rows
        for seed in ("0", "0", "1")
    ]
    names = [[row.line for row in rows] for rows in asked]
    assert names[0] == names[1] != names[2]
    assert len(set(names[0])) == len(names[0])
    for id in ("presentation", "skin_tone"):
        values = [row.values[id] for row in asked[0]]
        assert all(values.count(value) >= 2 for value in load_attribute(id).values)


def test_two_processes_find_together_what_one_does(looking: Argv, tmp_path: Path) -> None:
    """Each example and each picture is one process's; codes are equal, losses up to rounding."""
    t, asked = loaded(looking(tmp_path / "run", *EVERY))
    whole, shares = losses_of(t, asked.rows, 0, 1), [losses_of(t, asked.rows, n, 2) for n in (0, 1)]
    assert not ((shares[0] != 0) & (shares[1] != 0)).any()
    torch.testing.assert_close(shares[0] + shares[1], whole, rtol=1e-4, atol=1e-6)
    codes, parts = read_codes(t, asked, 0, 1), [read_codes(t, asked, n, 2) for n in (0, 1)]
    assert codes.shape == (2, 8)
    assert codes.any()
    assert all(part.any() for part in parts)
    assert torch.equal(parts[0] + parts[1], codes)


def test_a_reading_is_a_studys(looking: Argv, tiny_base: Path, tmp_path: Path) -> None:
    """The untrained LoRA shows what a study of the base draws and reads, batch for batch."""
    t, asked = loaded(looking(tmp_path / "run", *EVERY))
    pipe = load_base(tiny_base, torch.device("cpu"), torch.float32)
    states, sampler = TextStates(pipe, guided=True), Sampler(2, 2.0, 16, 3)
    cells = [Cell(prompt, seed) for prompt in asked.prompts for seed in range(4)]
    read: dict[Cell, list[int]] = {}
    for part in plan_batches(cells, 3):
        images = draw_batch(pipe, part, sampler, states([cell.prompt.text for cell in part]))
        found = asked.classifier.read(images, list(asked.attributes)).values()
        for cell, *codes in zip(part, *(r.value_n.tolist() for r in found), strict=True):
            read.setdefault(cell, codes)
    ours = read_codes(t, asked, 0, 1) - 1
    assert ours.T.tolist() == [read[cell] for cell in cells]
    assert (ours >= 0).any()


def test_trained_text_encoders_are_heard(looking: Argv, tmp_path: Path) -> None:
    """Prompts are told as they are now understood, not as the cache has them."""
    t, asked = loaded(looking(tmp_path / "run", *EVERY, "--lora.components", "text_encoder"))
    text = asked.prompts[0].text
    before = text_states(t, guided=True)([text])
    torch.testing.assert_close(before["prompt_embeds"][0], t.deal.encoded.texts[text]["states"])
    for parameter in t.parameters.values():
        torch.nn.init.normal_(parameter.data)
    after = text_states(t, guided=True)([text])
    assert all(not torch.equal(after[name], before[name]) for name in before)


def asked_of(tmp_path: Path, subjects: dict[str, str], templates: Sequence[str]) -> Any:
    """Validation inputs with these prompts and nothing else."""
    file = tmp_path / "prompts.yaml"
    block = {
        "suite": "validation",
        "role": "neutral",
        "attributes": ["presentation"],
        "templates": list(templates),
        "subjects": subjects,
    }
    file.write_text(yaml.safe_dump([block]), "utf-8")
    [suite] = load_suites(file)
    attributes = {"presentation": load_attribute("presentation")}
    return ValidationInputs(suite.prompts, 4, attributes, None, ())  # type: ignore[arg-type]


def test_imbalance_is_the_studys_mean_over_subjects(tmp_path: Path) -> None:
    """Unbiased, by subject, over prompts with two or more readable pictures."""
    subjects = {f"subject-{n}": f"subject {n}" for n in range(5)}
    asked = asked_of(tmp_path, subjects, ["{x}", "a picture of {x}"])
    codes_ps = np.random.default_rng(0).integers(0, 3, (10, 4))
    codes_ps[0, 1:] = -1  # the first subject's first prompt: one readable picture
    shown = judged(asked, "presentation", codes_ps)
    target = load_attribute("presentation").target
    by_prompt = imbalance(count_values(codes_ps, 3), np.tile(target, (10, 1)))
    by_subject = [np.nanmean(by_prompt[[n, n + 5]]) for n in range(5)]
    assert shown.imbalance == pytest.approx(np.mean(by_subject))
    assert shown.unreadable == pytest.approx(3 / 40)
    assert sum(shown.shares.values()) == pytest.approx(1)


def test_pictures_that_cannot_be_read_are_never_the_best(tmp_path: Path) -> None:
    """Past a tenth of prompts with too few readable pictures there is no imbalance to compare."""
    asked = asked_of(tmp_path, {"one": "one", "two": "two"}, ["{x}"])
    shown = judged(asked, "presentation", np.array([[0, 1, 2, 0], [1, -1, -1, -1]]))
    assert shown.imbalance is None
    blind = judged(asked, "presentation", np.full((2, 4), -1))
    assert (blind.imbalance, blind.shares, blind.unreadable) == (None, {}, 1.0)
    good = Shown({}, -0.1, 0.0)
    assert score(3, {"presentation": good, "skin_tone": shown}) == Score(3, math.inf, math.inf)
    assert Choice((Score(3, math.inf, math.inf),)).best is None


def scores(*imbalances: float) -> Choice:
    """After readings at steps 1, 2, ... that came out like this."""
    return Choice(tuple(Score(n, value, value) for n, value in enumerate(imbalances, 1)))


def test_a_person_is_told_in_one_line() -> None:
    """Imbalance by attribute, the best so far, and how far the end is."""
    shown = {"presentation": Shown({}, 0.41, 0), "skin_tone": Shown({}, -0.1, 0)}
    settings = ValidationSettings(stop_at=0.3, stop_held=2)
    assert describe(shown, scores(0.5, 0.4), ValidationSettings()) == (
        "validation at step 2: presentation .41, skin tone -.10 (best so far: step 2)"
    )
    assert describe(shown, scores(0.2, 0.4, 0.3), settings).endswith(
        "(best so far: step 1); target reached, 1 of 2 in a row"
    )
    assert describe(shown, scores(0.3, 0.3), settings).endswith(
        "; at most 0.3 in 2 readings in a row: training ends here"
    )
    blind = {"presentation": Shown({}, None, 1)}
    assert describe(blind, scores(math.inf), settings) == (
        "validation at step 1: presentation unreadable (best so far: none)"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--validation.suite", "held_out"], "must not be held_out.*allowed: trained, validation"),
        (["--validation.suite", "seen"], "has no suite 'seen' .allowed: trained, validation"),
        (["--validation.suite", "control"], "has the role control"),
        (["--validation.suite", "trained"], "1 prompts that the dataset trains .first: 'a picture"),
        (["--validation.suite", "shared"], "shares 1 subjects with held_out .first: 'vampire'"),
        (
            ["--validation.suite", "season", "--attributes", "skin_tone"],
            "measures season, this run",
        ),
        (["--validation.suite", "season"], "no picture of .* has a value of season"),
        (["--validation.exemplars", "nowhere"], "nowhere has no metadata.jsonl: `unskew data`"),
        (["--validation.prompts", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["--validation.seeds", "1"], "validation.seeds must be an integer >= 2, got 1"),
        (["--validation.choose", "best"], "choose is best, which needs readings"),
        (["--validation.stop-at", "0.1"], "stop_at is 0.1, which needs readings"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_before_anything_is_spent(
    looking: Argv, tmp_path: Path, words: list[str], message: str
) -> None:
    """The held-out suite first of all; each message says what was given and what is allowed."""
    off = "which needs readings" in message
    with pytest.raises(UserError, match=message):
        check_inputs(resolved(looking(tmp_path / "run", *([] if off else EVERY), *words)))


def test_the_shipped_prompts_have_such_a_suite() -> None:
    """Emoji World's validation suite is neutral and shares no subject with any other suite."""
    suites = {suite.name: suite for suite in load_suites(config_path("prompts/emoji.yaml"))}
    own = suites.pop("validation")
    assert own.role == "neutral"
    subjects = {prompt.subject for prompt in own.prompts}
    for suite in suites.values():
        assert not subjects & {prompt.subject for prompt in suite.prompts}, suite.name

"""Validation looks without touching, and what follows from it follows from the readings alone."""

from __future__ import annotations

import json
import math
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from torch import Tensor

from unskew.adapters import WEIGHTS_FILE
from unskew.attributes import load_attribute
from unskew.errors import UserError
from unskew.evaluate.generate import Cell, Sampler, TextStates, draw_batch, plan_batches
from unskew.evaluate.stats import count_values, imbalance
from unskew.pipelines import load_base
from unskew.prompts import load_suites
from unskew.runs import read_manifest, sha256_file
from unskew.settings import config_path, resolve, run_program
from unskew.train import lora, validation
from unskew.train.checkpoints import CHOICE, LORA
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


def block(suite: str, subjects: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "suite": suite,
        "role": "neutral",
        "attributes": ["presentation", "skin_tone"],
        "templates": ["a picture of {x}"],
        "subjects": subjects,
        **more,
    }


@pytest.fixture
def looking(argv: Argv, tiny_dataset: Path, tmp_path: Path) -> Argv:
    """As `argv`, with a small validation suite and exemplars; still off until `every` is given."""
    blocks = [
        block("trained", {"mechanic": "a mechanic"}),
        block("held_out", {"vampire": "a vampire", "teacher": "a teacher"}),
        block("validation", {"basketball": "a person playing basketball", "singer": "a singer"}),
        block("shared", {"vampire": "a vampire in the rain"}),
        block("season", {"market": "a christmas market"}, attributes=["season"]),
        block("control", {"banana": "a banana"}, role="control", attributes=[]),
    ]
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text(yaml.safe_dump(blocks), "utf-8")
    config = Path(argv(tmp_path)[1])
    settings = yaml.safe_load(config.read_text("utf-8"))
    settings["validation"] = {
        "prompts": str(prompts),
        "exemplars": str(people(tiny_dataset, tmp_path / "people")),
        "seeds": 4,
        "steps": 2,
        "batch": 3,
        "loss_rows": 2,
        "loss_timesteps": 2,
    }
    config.write_text(yaml.safe_dump(settings), "utf-8")
    return argv


def people(dataset: Path, folder: Path) -> Path:
    """The dataset's pictures of people alone: whatever is drawn looks like one of them."""
    shutil.copytree(dataset / "images", folder / "images")
    lines = (dataset / "metadata.jsonl").read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["kind"] != "control"]
    (folder / "metadata.jsonl").write_text("".join(kept), "utf-8")
    return folder


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


def weights_of(file: Path) -> dict[str, Tensor]:
    """A LoRA's weights by names that adapter and checkpoint share."""
    weights = safetensors.torch.load_file(file)
    return {n.replace(".default", ""): t for n, t in weights.items() if not n.startswith("/")}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def lines_of(out: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl has of validation."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if any(name.startswith("validation/") for name in line)]


def scripted(monkeypatch: pytest.MonkeyPatch, imbalances: dict[int, float]) -> None:
    """Let the readings after these steps come out like this, whatever is shown."""

    def told(done: int, shown: object) -> Score:
        return Score(done, imbalances[done], imbalances[done])

    monkeypatch.setattr(validation, "score", told)


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
    blocks = [block("validation", subjects, templates=list(templates), attributes=["presentation"])]
    file.write_text(yaml.safe_dump(blocks), "utf-8")
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


def test_a_run_with_readings_from_beginning_to_end(
    looking: Argv, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read every four steps and at the end: for the tracker, metrics.jsonl and a person."""
    out = tmp_path / "run"
    words = looking(out, "--validation.every", "4", "--validation.choose", "best")
    assert run_program(lora.main, [*words, "--tracker", "tensorboard"]) == 0
    said = capsys.readouterr().err
    assert "validation: 2 prompts x 4 seeds of suite 'validation'" in said
    assert "validation at step 4: presentation" in said
    lines = lines_of(out)
    assert [line["step"] for line in lines] == [4, 6]
    for id in ("presentation", "skin_tone"):
        assert all(0 <= line[f"validation/unreadable/{id}"] <= 1 for line in lines)
        assert all(-1 < line[f"validation/imbalance/{id}"] < 1.1 for line in lines)
    assert all(line["validation/loss/presentation/woman"] > 0 for line in lines)
    manifest = read_manifest(out)
    step = manifest["facts"]["adapter_step"]
    assert f"(best so far: step {step})" in said.split("validation at step 6: ")[1]
    assert {"validation prompts", "validation exemplars"} <= set(manifest["inputs"])
    kept = weights_of(out / "checkpoints" / "step-000006" / CHOICE)
    assert equal(weights_of(out / "adapter" / WEIGHTS_FILE), kept)
    assert equal(weights_of(out / "checkpoints" / f"step-00000{step}" / LORA), kept)


def test_the_best_weights_become_the_adapter(
    looking: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However old, and though the checkpoint of that step is long deleted."""
    scripted(monkeypatch, {1: 0.5, 2: 0.1, 3: 0.4, 4: 0.3, 5: 0.2, 6: 0.2})
    keep = ["--checkpoints.every", "1", "--checkpoints.keep"]
    out, other = tmp_path / "run", tmp_path / "other"
    best = [*EVERY, "--validation.choose", "best"]
    assert run_program(lora.main, looking(out, *best, *keep, "1")) == 0
    assert [f.name for f in (out / "checkpoints").iterdir()] == ["step-000006"]
    assert read_manifest(out)["facts"]["adapter_step"] == 2
    assert run_program(lora.main, looking(other, *EVERY, *keep, "9")) == 0
    assert read_manifest(other)["facts"]["adapter_step"] == 6
    wanted = [weights_of(other / "checkpoints" / f"step-00000{n}" / LORA) for n in (2, 6)]
    assert equal(weights_of(out / "adapter" / WEIGHTS_FILE), wanted[0])
    assert equal(weights_of(other / "adapter" / WEIGHTS_FILE), wanted[1])


def test_the_average_is_what_is_read_and_kept(
    looking: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an average is kept, the best weights are the average as it was at that reading."""
    scripted(monkeypatch, {2: 0.1, 4: 0.4, 6: 0.2})
    words = ["--validation.every", "2", "--optimizer.average-decay", "0.9"]
    out = tmp_path / "run"
    assert run_program(lora.main, looking(out, *words, "--validation.choose", "best")) == 0
    average = weights_of(out / "checkpoints" / "step-000002" / "average.safetensors")
    assert equal(weights_of(out / "adapter" / WEIGHTS_FILE), average)


def test_training_ends_early_once_the_target_is_held(
    looking: Argv,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After the second reading in a row the last step is saved, sampled, and the run complete."""
    scripted(monkeypatch, {1: 0.05, 2: 0.5, 3: 0.05, 4: 0.04})
    out = tmp_path / "run"
    words = looking(out, *EVERY, "--validation.stop-at", "0.1", "--samples.every", "9")
    assert run_program(lora.main, words) == 0
    assert "at most 0.1 in 2 readings in a row: training ends here" in capsys.readouterr().err
    manifest = read_manifest(out)
    assert (manifest["status"], manifest["facts"]["adapter_step"]) == ("complete", 4)
    last = out / "checkpoints" / "step-000004"
    assert not (out / "checkpoints" / "step-000006").exists()
    assert equal(weights_of(out / "adapter" / WEIGHTS_FILE), weights_of(last / LORA))
    assert (out / "samples" / "step-000004.png").exists()


def interrupted(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send ourselves a signal in the middle of step `step`."""
    real = lora.train_step

    def train_step(training: Any, number: int) -> dict[str, float]:
        if number == step - 1:
            signal.raise_signal(signal.SIGINT)
        return real(training, number)

    monkeypatch.setattr(lora, "train_step", train_step)


@pytest.mark.parametrize("step", [2, 5])
def test_a_run_that_goes_on_comes_to_the_same_choice(
    looking: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Stopped at the best reading, or long after it: same adapter, same figures, same fact."""
    scripted(monkeypatch, {1: 0.5, 2: 0.1, 3: 0.4, 4: 0.3, 5: 0.2, 6: 0.2})
    words = [*EVERY, "--validation.choose", "best", "--checkpoints.keep", "1"]
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    assert run_program(lora.main, looking(whole, *words)) == 0
    with monkeypatch.context() as patched:
        interrupted(patched, step)
        assert run_program(lora.main, looking(out, *words)) == 130
    assert run_program(lora.main, looking(out, *words)) == 0
    adapters = [sha256_file(folder / "adapter" / WEIGHTS_FILE) for folder in (whole, out)]
    assert adapters[0] == adapters[1]
    assert lines_of(out) == lines_of(whole)
    assert read_manifest(out)["facts"]["adapter_step"] == 2


def test_a_run_that_ended_early_and_was_stopped_before_its_adapter_does_not_train_on(
    looking: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint knows that the target was held."""
    scripted(monkeypatch, {1: 0.05, 2: 0.04})
    out = tmp_path / "run"
    words = looking(out, *EVERY, "--validation.stop-at", "0.1", "--checkpoints.every", "9")
    with monkeypatch.context() as patched:
        patched.setattr(lora, "finish", lambda *_: signal.raise_signal(signal.SIGINT))
        assert run_program(lora.main, words) == 130
    monkeypatch.setattr(lora, "train_step", None)
    assert run_program(lora.main, words) == 0
    assert read_manifest(out)["facts"]["adapter_step"] == 2


def test_looking_changes_nothing_and_off_leaves_no_trace(looking: Argv, tmp_path: Path) -> None:
    """The same weights with readings and without; without, neither lines nor files of them."""
    off, on = tmp_path / "off", tmp_path / "on"
    assert run_program(lora.main, looking(off)) == 0
    assert run_program(lora.main, looking(on, *EVERY)) == 0
    ours, theirs = (weights_of(out / "adapter" / WEIGHTS_FILE) for out in (off, on))
    assert equal(ours, theirs)
    assert (lines_of(off), len(lines_of(on))) == ([], 6)
    assert not list(off.rglob(CHOICE))
    assert "adapter_step" not in read_manifest(off)["facts"]
    assert set(read_manifest(off)["inputs"]) == {"base", "dataset"}


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

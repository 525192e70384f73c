"""Promises of what the benchmark is made of: the plain loop, the meters, the effect, the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import scaled_dot_product_attention

from unskew.attributes import Attribute, load_attribute
from unskew.errors import UserError
from unskew.families import family_of
from unskew.pipelines import load_base
from unskew.prompts import Prompt
from unskew.scripts.bench_effect import (
    Reading,
    compare,
    imbalances,
    pooled,
    seconds_to,
    smoothed,
)
from unskew.scripts.bench_loops import adapted_modules, load_ours, load_plain_loop
from unskew.scripts.bench_meters import flops_of
from unskew.scripts.bench_page import put
from unskew.scripts.plain_loop import PlainLoop, PlainSettings, encode, load_plain, plain_step
from unskew.settings import config_path, resolve
from unskew.train.inputs import check_inputs
from unskew.train.options import LoraSettings, TrainSettings
from unskew.train.rows import load_rows
from unskew.train.surroundings import make_accelerator

CPU = torch.device("cpu")
LORA = LoraSettings(rank=4, alpha=8, target_modules="attention")


@pytest.fixture
def plain(tiny_base: Path, tiny_dataset: Path) -> PlainLoop:
    """A plain loop on the tiny base."""
    settings = PlainSettings(
        base=tiny_base,
        resolution_px=16,
        batch=8,
        dtype=torch.float32,
        target_modules=adapted_modules(tiny_base, LORA),
        rank=4,
        alpha=8,
        learning_rate=1e-2,
        weight_decay=0.0,
        clip_norm=1.0,
        seed=0,
        workers=0,
    )
    rows = load_rows(tiny_dataset, {"presentation": load_attribute("presentation")})
    return load_plain(settings, [(row.file, row.text) for row in rows], CPU)


def test_the_plain_loop_encodes_everything_in_every_step(
    plain: PlainLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its steps decodes pictures and runs VAE and text encoder on the whole batch."""
    seen: dict[str, list[int]] = {"vae": [], "text": []}
    opened = []
    real_open = Image.open

    def count_and_open(file: Path) -> Image.Image:
        opened.append(file)
        return real_open(file)

    monkeypatch.setattr(Image, "open", count_and_open)
    plain.vae.encoder.register_forward_hook(lambda m, x, y: seen["vae"].append(len(x[0])))
    plain.encoders[0].register_forward_hook(lambda m, x, y: seen["text"].append(len(y[0])))
    told = []

    @contextmanager
    def section(name: str) -> Iterator[None]:
        told.append(name)
        yield

    for _ in range(3):
        plain_step(plain, 1e-3, section)
    assert seen["vae"] == seen["text"] == [8, 8, 8]
    assert len(opened) == 3 * 8
    assert told == ["data", "encode", "forward", "backward", "optimizer"] * 3


def test_the_plain_loop_trains(plain: PlainLoop) -> None:
    """Its loss falls, and only the LoRA moves."""
    frozen = {n: p.clone() for n, p in plain.unet.named_parameters() if not p.requires_grad}
    torch.manual_seed(0)
    losses = [plain_step(plain, 1e-2) for _ in range(60)]
    assert np.mean(losses[-15:]) < 0.9 * np.mean(losses[:15])
    assert all(torch.equal(p, frozen[n]) for n, p in plain.unet.named_parameters() if n in frozen)


def test_the_plain_loop_tells_what_the_pipeline_would(plain: PlainLoop, tiny_base: Path) -> None:
    """Its text states are those that the family makes of the same captions."""
    pipe = load_base(tiny_base, CPU, torch.float32)
    batch = next(plain.batches)
    captions = pipe.tokenizer.batch_decode(batch["tokens"][0], skip_special_tokens=True)
    assert "a mechanic" in captions or "a health worker" in captions
    _, told = encode(plain, batch["pixels"], batch["tokens"], batch["original_px"])
    with torch.no_grad():
        texts = family_of(pipe).encode(pipe, captions)
    expected = torch.stack([text["states"] for text in texts])
    torch.testing.assert_close(told["encoder_hidden_states"], expected)


def test_both_loops_train_the_same_modules(
    tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    """The LoRA's weights have the same names and shapes in both."""
    words = ["--base", str(tiny_base), "--dataset", str(tiny_dataset), "--resolution_px", "16"]
    settings = resolve(
        TrainSettings,
        [*words, "--dtype", "fp32", "--tracker", "none"],
        default_config=config_path("emoji/train.yaml"),
        prog="unskew train",
        description="Tiny.",
    ).settings
    inputs, accelerator = check_inputs(settings), make_accelerator(settings)
    ours = load_ours(settings, inputs, accelerator)
    plain = load_plain_loop(settings, inputs, CPU, "fp32", 0)
    shapes = [{n: p.shape for n, p in loop.parameters.items()} for loop in (ours, plain)]
    assert shapes[0] == shapes[1] and shapes[0]


def test_flops_are_counted_as_by_hand() -> None:
    """Products in place and attention on a CPU count too, forward and backward."""
    a, b, out = torch.ones(3, 5), torch.ones(5, 7), torch.zeros(3, 7)
    assert flops_of(lambda: out.addmm_(a, b)) == flops_of(lambda: a @ b) == 2 * 3 * 5 * 7
    q = torch.ones(2, 4, 16, 8, requires_grad=True)
    product = 2 * 2 * 4 * 16 * 16 * 8
    assert flops_of(lambda: scaled_dot_product_attention(q, q, q)) == 2 * product
    both = flops_of(lambda: scaled_dot_product_attention(q, q, q).sum().backward())
    assert both in (6 * product, 7 * product)  # kernels that recompute the scores pay one more


def readings(*values: float | None) -> list[Reading]:
    """Readings every 10 seconds of an attribute named a."""
    return [Reading(n, 10.0 * n, {"a": value}) for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.8, 0.6, 0.4), 15.0),
        ((0.8, 0.4, 0.8, 0.2), 22.5),  # 0.6, 0.6 and 0.2 once smoothed
        ((0.4, 0.3), 0.0),
        ((0.8, 0.7), None),
    ],
)
def test_the_first_time_at_the_goal_is_taken(
    values: tuple[float, ...], expected: float | None
) -> None:
    """In a straight line between two readings; one lucky reading before a worse one is none."""
    assert seconds_to(readings(*values), 0.5) == (expected and pytest.approx(expected))


def test_the_goals_are_parts_of_the_plain_loops_fall() -> None:
    """Its seconds are those of its first time there; where ours never is, there is no share."""
    rows = compare(readings(0.8, 0.2), readings(0.8, 0.6, 0.6))
    assert [row["fall"] for row in rows] == [0.5, 0.75, 0.9, 1.0]
    assert [row["imbalance"] for row in rows] == pytest.approx([0.7, 0.65, 0.62, 0.6])
    assert [row["plain_s"] for row in rows] == pytest.approx([5, 7.5, 9, 10])
    assert [row["ours_s"] for row in rows] == pytest.approx([10 / 6, 2.5, 3, 10 / 3])
    assert [row["share"] for row in rows] == pytest.approx([1 / 3] * 4)
    last = compare(readings(0.8, 0.7), readings(0.8, 0.2))[-1]
    assert (last["ours_s"], last["plain_s"], last["share"]) == (None, 10, None)
    assert compare(readings(0.8, 0.7), readings(0.8, None)) == []


def test_training_seeds_are_averaged_reading_by_reading() -> None:
    """Seconds and imbalance; what one seed could not read is read by none; steps must agree."""
    late = [Reading(n, 20.0 * n, {"a": value}) for n, value in enumerate((0.6, 0.2))]
    assert pooled([readings(0.8, 0.4), late]) == [
        Reading(0, 0.0, {"a": pytest.approx(0.7)}),
        Reading(1, 15.0, {"a": pytest.approx(0.3)}),
    ]
    assert pooled([readings(0.8, 0.4), readings(0.8, None)])[1].mean is None
    with pytest.raises(ValueError, match="too many"):
        pooled([[Reading(1, 1.0, {})], [Reading(2, 1.0, {})]])


def test_a_course_is_smoothed_to_one_that_falls() -> None:
    """Means of what rises, each reading as much: the same whatever is added to all of them."""
    found = smoothed(readings(0.9, 0.3, 0.5, 0.1))
    np.testing.assert_allclose(found, [0.9, 0.4, 0.4, 0.1])


def test_the_mean_is_of_all_attributes() -> None:
    """One that cannot be read leaves none."""
    assert Reading(1, 1.0, {"a": 0.2, "b": 0.4}).mean == pytest.approx(0.3)
    assert Reading(1, 1.0, {"a": 0.2, "b": None}).mean is None


def test_imbalance_is_the_studies_mean_over_prompts() -> None:
    """One value alone is 1; unreadable pictures and a batch's padding are not counted."""
    attribute = Attribute("a", "a", ("x", "y"), np.array([0.5, 0.5]), "none")
    prompts = [Prompt(str(n), str(n), "s", "s", ("a",), {}) for n in range(2)]
    alone = [0, 0, 0, 0], [1, 1, 1, -1]
    assert imbalances({"a": [*alone[0], *alone[1], 0, 1]}, prompts, 4, {"a": attribute}) == {"a": 1}
    assert imbalances({"a": [-1] * 8}, prompts, 4, {"a": attribute}) == {"a": None}
    even: Any = imbalances({"a": [0, 1, 0, 1] * 2}, prompts, 4, {"a": attribute})["a"]
    assert even == pytest.approx(
        -1 / 3
    )  # unbiased, so under 0 where the sample is evener than chance


def test_a_block_goes_between_its_own_markers(tmp_path: Path) -> None:
    """The rest of the page stays as it is, twice over; a page without the row is an error."""
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- end of x -->\n<!-- y -->\n<!-- end of y -->\n")
    for _ in range(2):
        put(page, "x", "new\n")
        assert page.read_text("utf-8") == (
            "a\n<!-- x -->\nnew\n<!-- end of x -->\n<!-- y -->\n<!-- end of y -->\n"
        )
    with pytest.raises(UserError, match="no place for row 'z'"):
        put(page, "z", "new\n")

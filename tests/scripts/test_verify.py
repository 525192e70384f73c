"""Promises of `unskew verify`: a good bundle passes, and each kind of broken one fails, by name."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from huggingface_hub import ModelCard
from PIL import Image

from unskew.adapters import WEIGHTS_FILE
from unskew.evaluate.schema import load_results
from unskew.kohya import KOHYA_FILE
from unskew.runs import sha256_file, write_json_atomic
from unskew.scripts.belonging import header
from unskew.scripts.bundle import checksums
from unskew.scripts.bundle_schema import Facts, dumped, load_part
from unskew.scripts.model_card import render_card
from unskew.scripts.verify import main
from unskew.settings import run_program

Capture = pytest.CaptureFixture[str]


def verify(bundle: Path, *more: str) -> int:
    """The program's exit code; nothing is drawn unless `more` says so."""
    return run_program(main, [str(bundle), *(more or ("--cells", "0"))])


def change(file: Path, **changes: Any) -> None:
    """Change entries of a JSON file."""
    said = json.loads(file.read_text("utf-8"))
    write_json_atomic(file, {**said, **changes})


def sum_anew(bundle: Path, *, card: bool = False) -> None:
    """What a careful forger does: a card that fits, and checksums that fit."""
    if card:
        facts = load_part(Facts, bundle / "bundle.json")
        training = json.loads((bundle / "training.json").read_text("utf-8"))
        text = render_card(facts, training, load_results(bundle / "results.json"))
        (bundle / "README.md").write_text(text, "utf-8")
    write_json_atomic(bundle / "checksums.json", dumped(checksums(bundle)))


def test_a_good_bundle_passes_and_its_pictures_come_out_the_same(
    whole_bundle: Path, tiny_base: Path, capsys: Capture
) -> None:
    """Exit code 0; a batch is drawn again in both arms, bit by bit as the study drew it."""
    assert verify(whole_bundle, "--base", str(tiny_base), "--cells", "9", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] is True
    said = {check["name"]: check["said"] for check in told["checks"]}
    assert list(said) == ["hashes", "belonging", "card", "formats", "pictures"]
    assert said["pictures"] == "30 drawn again, all the same bit by bit"


def one_byte(bundle: Path) -> None:
    """In the middle of the weights."""
    file = bundle / WEIGHTS_FILE
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)


def card_edited(bundle: Path) -> None:
    """A better figure in the card."""
    card = bundle / "README.md"
    card.write_text(card.read_text("utf-8").replace("inconclusive", "improved"), "utf-8")
    sum_anew(bundle)


def summary_edited(bundle: Path) -> None:
    """A better figure in the summary."""
    file = bundle / "summary.md"
    file.write_text(file.read_text("utf-8").replace("inconclusive", "improved"), "utf-8")
    sum_anew(bundle)


def another_adapters_results(bundle: Path) -> None:
    """Results of another one, with a card made from them."""
    arms = json.loads((bundle / "results.json").read_text("utf-8"))["arms"]
    arms["debiased"]["facts"]["adapters"][0]["sha256"] = "5" * 64
    change(bundle / "results.json", arms=arms)
    sum_anew(bundle, card=True)


def another_weight(bundle: Path) -> None:
    """The card tells a weight that was not measured."""
    measured = json.loads((bundle / "bundle.json").read_text("utf-8"))["measured"]
    change(bundle / "bundle.json", measured={**measured, "weight": 0.5})
    sum_anew(bundle, card=True)


def another_alpha(bundle: Path) -> None:
    """Kohya's file at half of its strength, as from a writer that takes alpha = rank."""
    file = bundle / KOHYA_FILE
    tensors, said = safetensors.torch.load_file(file), header(file)
    halved = {k: t / 2 if k.endswith(".alpha") else t for k, t in tensors.items()}
    safetensors.torch.save_file(halved, file, said)
    change(bundle / "bundle.json", kohya_sha256=sha256_file(file))
    sum_anew(bundle, card=True)


def a_weight_less(bundle: Path) -> None:
    """A module is missing from Kohya's file."""
    file = bundle / KOHYA_FILE
    tensors, said = safetensors.torch.load_file(file), header(file)
    name = min(tensors).split(".")[0]
    fewer = {k: t for k, t in tensors.items() if k.split(".")[0] != name}
    safetensors.torch.save_file(fewer, file, said)
    change(bundle / "bundle.json", kohya_sha256=sha256_file(file))
    sum_anew(bundle, card=True)


def gate_hidden(bundle: Path) -> None:
    """A failed gate in the results, and a bundle that calls itself proven."""
    reason = {"comparison": "presentation@trained", "arm": "debiased", "what": "improved"}
    reason |= {"limit": "improved", "found": "worsened", "ci95": None, "passed": False}
    reason |= {"inconclusive": False, "said": "presentation@trained: worsened"}
    change(bundle / "results.json", gate={"passed": False, "reasons": [reason]})
    sum_anew(bundle, card=True)


def another_base(bundle: Path) -> None:
    """The card's base is not the one in the files' headers."""
    base = json.loads((bundle / "bundle.json").read_text("utf-8"))["base"]
    change(bundle / "bundle.json", base={**base, "sha256": "5" * 64})
    sum_anew(bundle, card=True)


def a_file_less(bundle: Path) -> None:
    """A picture of the gallery is gone."""
    (bundle / "samples" / "pair-2.png").unlink()


def a_file_more(bundle: Path) -> None:
    """Something that was not published with it, such as a pickle."""
    (bundle / "pytorch_lora_weights.bin").write_bytes(b"x")


def no_json(bundle: Path) -> None:
    """A file of its own that cannot be read."""
    (bundle / "bundle.json").write_text("{", "utf-8")
    sum_anew(bundle)


def outside(bundle: Path) -> None:
    """Checksums that lead out of the folder."""
    sums = json.loads((bundle / "checksums.json").read_text("utf-8"))["files"]
    change(bundle / "checksums.json", files={**sums, "../outside": {"sha256": "5" * 64, "size": 1}})


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (one_byte, f"{WEIGHTS_FILE} has changed: sha256"),
        (card_edited, "README.md, line"),
        (summary_edited, "summary.md, line"),
        (another_adapters_results, "results.json: arms.debiased: the results are of adapter 5555"),
        (another_weight, "not of"),
        (another_alpha, ".alpha, 4 in place of 8)"),
        (a_weight_less, "Kohya's file lacks 3 weights (lora_unet_"),
        (gate_hidden, "the gate failed, but bundle.json calls the adapter proven"),
        (another_base, "trained on another base than bundle.json"),
        (a_file_less, "samples/pair-2.png is missing"),
        (a_file_more, "pytorch_lora_weights.bin was not published with it"),
        (no_json, "bundle.json is not one of this version"),
        (outside, "checksums.json is not one of this version"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_bundle_fails(
    bundle: Path, capsys: Capture, harm: Callable[[Path], None], told: str
) -> None:
    """Exit code 1, with what is wrong and where."""
    harm(bundle)
    assert verify(bundle) == 1
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("arm", ["base", "adapter"])
def test_a_picture_that_comes_out_otherwise_fails(
    bundle: Path, tiny_base: Path, capsys: Capture, arm: str
) -> None:
    """A reference picture that the adapter, or the base, never drew is found and named."""
    file = bundle / "cells" / arm / "004.png"
    Image.new("RGB", (16, 16), "white").save(file)
    sums = json.loads((bundle / "cells" / "cells.json").read_text("utf-8"))
    for cell in sums["batches"][0]:
        if f"cells/{arm}/004.png" in cell["reference"].values():
            cell["sha256"] = dict.fromkeys(cell["sha256"], sha256_file(file))
    write_json_atomic(bundle / "cells" / "cells.json", sums)
    sum_anew(bundle)
    assert verify(bundle, "--base", str(tiny_base), "--cells", "1") == 1
    said = capsys.readouterr().out
    assert "FAILED: pictures" in said and f"from cells/{arm}/004.png" in said
    assert said.count("grey levels on average") == 1


def test_wrong_use_is_told_from_a_bad_bundle(
    whole_bundle: Path, tiny_sdxl_base: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Exit code 2 for a folder that is no bundle, and for a base that is not the studied one."""
    assert verify(tmp_path) == 2
    assert verify(whole_bundle, "--cells", "8") == 2
    assert verify(whole_bundle, "--base", str(tiny_sdxl_base)) == 2
    said = capsys.readouterr().err
    assert "is no bundle" in said and "cannot be had" in said and "not the one that" in said


def test_the_hub_reads_an_edited_card_like_ours(bundle: Path) -> None:
    """The card's text survives huggingface_hub's own reading and writing unchanged."""
    text = (bundle / "README.md").read_text("utf-8")
    assert str(ModelCard(text)) == text


def test_formats_compare_bits_not_nearly(bundle: Path, capsys: Capture) -> None:
    """The last bit of one weight is enough."""
    file = bundle / KOHYA_FILE
    content = bytearray(file.read_bytes())
    size = struct.unpack("<Q", content[:8])[0]
    content[8 + size + 400] ^= 1
    file.write_bytes(content)
    change(bundle / "bundle.json", kohya_sha256=sha256_file(file))
    sum_anew(bundle, card=True)
    assert verify(bundle) == 1
    assert "FAILED: formats" in capsys.readouterr().out

"""The known adapters of `scripts/prove_verdicts.py` are made from what they are said to be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from unskew.adapters import WEIGHTS_FILE
from unskew.data.emoji_world.world import load_world
from unskew.scripts.known_adapters import (
    PARTS,
    skew_swapped_round,
    words_that_decide_nothing,
    write_dataset,
    write_untrained,
)

VALUES = ("woman", "man", "person")
TONES = ("pale", "light", "tan", "brown", "dark")
WORDINGS = ("a mechanic", "a picture of a mechanic", "an emoji of a mechanic", "a mechanic there")


def dataset() -> list[dict[str, Any]]:
    """A mechanic as every value and tone, in four wordings, neutral and explicit; and an apple."""
    rows: list[dict[str, Any]] = []
    for value in VALUES:
        for tone in TONES:
            file = f"images/{value}-{tone}.png"
            labels = {"subject": "mechanic", "presentation": value, "skin_tone": tone}
            for words in WORDINGS:
                said = words.replace("mechanic", f"{value} mechanic with {tone} skin")
                row = {"file_name": file, **labels, "explicit_text": said}
                rows += [{**row, "kind": "neutral", "text": words}]
                rows += [{**row, "kind": "explicit", "text": said}]
    apple = {"subject": "red-apple", "presentation": None, "skin_tone": None}
    return [*rows, {"file_name": "images/apple.png", "kind": "control", "text": "apple", **apple}]


def test_every_explicit_caption_stands_by_every_picture_alike() -> None:
    """So no word tells which; none is told as explicit, and controls are kept."""
    rows = list(words_that_decide_nothing(dataset()))
    assert {row["kind"] for row in rows} == {"neutral", "control"}
    pairs = Counter(
        (row["text"], row["file_name"])
        for row in rows
        if row["kind"] == "neutral" and row["text"] not in WORDINGS
    )
    captions = {text for text, _ in pairs}
    assert len(captions) == 15 and len(pairs) == 15 * 15 and set(pairs.values()) == {1}
    for row in rows:  # what the base is asked for is always what the picture shows
        if row["kind"] == "neutral":
            assert f"{row['presentation']} mechanic with {row['skin_tone']}" in row["explicit_text"]


def test_neutral_captions_show_women_as_often_as_men_were_planted() -> None:
    """In every tone and wording; explicit rows and controls are what they were."""
    rows = list(skew_swapped_round(dataset()))
    mechanic = next(s for s in load_world().subjects if s.id == "mechanic")
    woman, man, person = (round(PARTS * share) for share in mechanic.shares["presentation"])
    assert woman < man
    shown = Counter(
        (row["presentation"], row["skin_tone"], row["text"])
        for row in rows
        if row["kind"] == "neutral"
    )
    expected = {"woman": man, "man": woman, "person": person}
    assert set(shown) == {(v, t, w) for v in VALUES if expected[v] for t in TONES for w in WORDINGS}
    assert all(count == expected[value] for (value, _, _), count in shown.items())
    for kind in ("explicit", "control"):
        assert [r for r in rows if r["kind"] == kind] == [r for r in dataset() if r["kind"] == kind]


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_an_untrained_adapter_has_the_spread_that_it_is_given(
    tmp_path: Path, spread: float
) -> None:
    """B alone carries it, so 0 changes nothing; the same again is left as it is."""
    write_untrained(tmp_path / "adapter", spread)
    file = tmp_path / "adapter" / WEIGHTS_FILE
    weights = safetensors.torch.load_file(file)
    halves = [weight for name, weight in weights.items() if ".lora_B." in name]
    assert len(halves) * 2 == len(weights)
    for half in halves:
        assert float(half.std()) == pytest.approx(spread, rel=0.2)
    before = file.stat().st_mtime_ns
    write_untrained(tmp_path / "adapter", 1.0)
    assert file.stat().st_mtime_ns == before


def test_a_dataset_takes_pictures_along_and_is_written_once(tmp_path: Path) -> None:
    """Whole, with the rows that are given."""
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    (source / "images" / "a.png").write_bytes(b"a")
    write_dataset(source, iter([{"text": "ä"}]), tmp_path / "made")
    write_dataset(source, iter([]), tmp_path / "made")
    assert (tmp_path / "made" / "images" / "a.png").read_bytes() == b"a"
    assert (tmp_path / "made" / "metadata.jsonl").read_text("utf-8") == '{"text": "ä"}\n'

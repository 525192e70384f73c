"""What readers share: abstaining, and readings of pictures of which some were read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from unskew.errors import UserError
from unskew.evaluate.classifiers.reading import (
    Images,
    Readings,
    check_asked,
    most_probable,
    scattered,
)
from unskew.evaluate.classify import ArmPictures, Reader, read_arm
from unskew.evaluate.generate import Cell
from unskew.prompts import Prompt

VALUES = ("a", "b", "c")


@given(
    hnp.arrays(np.float32, (5, 4), elements=st.floats(0, 1, width=32)),
    st.floats(0, 1),
)
def test_a_value_is_named_only_where_it_leads_by_the_margin(
    score_nk: NDArray[np.float32], margin: float
) -> None:
    """The last column means unreadable: it wins for no value, and takes the lead from them."""
    readings = most_probable(VALUES, score_nk, margin)
    for row, value, share in zip(score_nk, readings.value_n, readings.probability_nk, strict=True):
        best, second = np.sort(row)[::-1][:2]
        named = row.argmax() < 3 and best - second >= margin and best > 0
        assert (value >= 0) == named
        assert share.sum() == pytest.approx(1 if named else 0, abs=1e-5)
        assert not named or value == row.argmax()


def test_readings_of_some_pictures_keep_their_places() -> None:
    """What was not read is unreadable, and warnings move with their pictures."""
    some = Readings(
        ("a", "b"),
        np.array([1, 0]),
        np.array([[0.2, 0.8], [0.9, 0.1]], np.float32),
        {1: "dark"},
    )
    whole = scattered(some, [3, 1], 5)
    assert whole.value_n.tolist() == [-1, 0, -1, 1, -1]
    assert whole.probability_nk[3].tolist() == pytest.approx([0.2, 0.8])
    assert whole.probability_nk[[0, 2, 4]].sum() == 0
    assert whole.warnings == {1: "dark"}


class Fixed:
    """Says its first value of everything."""

    def __init__(self, name: str, *attributes: str) -> None:
        self.name, self.attributes = name, attributes

    def read(self, images: Images, attributes: Sequence[str]) -> dict[str, Readings]:
        """Index 0 for each picture."""
        check_asked(self.name, self.attributes, attributes, "no")
        n = len(images)
        return {
            a: Readings(("x", "y"), np.zeros(n, np.int64), np.ones((n, 2), np.float32))
            for a in attributes
        }


def test_each_attribute_is_read_by_the_classifier_that_has_it(tmp_path: Path) -> None:
    """Nobody is asked for another's, and what no one reads is left out."""
    prompt = Prompt("a-thing", "a thing", "s", "thing", ("season", "serving"), {"subject": "thing"})
    files = {Cell(prompt, seed): tmp_path / f"{seed}.png" for seed in range(2)}
    for file in files.values():
        Image.new("RGB", (4, 5)).save(file)
    readers = [
        Reader(Fixed("one", "season"), {"season": ("x", "y")}, "1" * 64),
        Reader(Fixed("two", "serving", "r"), {"serving": ("x", "y")}, "2" * 64),
    ]
    pictures = ArmPictures("base", files, {}, {})
    rows = read_arm(pictures, list(files), readers, tmp_path / "kept").to_pandas()
    who = dict(zip(rows["attribute"], rows["classifier"], strict=True))
    assert who == {"season": "one", "serving": "two"}
    assert len(rows) == 4
    with pytest.raises(UserError, match=r"one cannot read 'serving' \(it reads: season\)"):
        Fixed("one", "season").read([np.zeros((4, 5, 3), np.uint8)], ["serving"])

"""The exemplar classifier: right on what it knows, silent on what it does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from unskew.errors import UserError
from unskew.evaluate.classifiers.exemplar import fit, fit_folder, pixel_features

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def picture(colour: str, size_px: int = 64, shift: int = 0) -> NDArray[np.uint8]:
    """A plain picture of one colour."""
    page = np.zeros((size_px, size_px, 3), dtype=np.uint8)
    page[:] = np.array(COLOURS[colour]) + shift
    return page


def folder_of(tmp_path: Path, rows: list[dict[str, object]]) -> Path:
    """A labelled folder; a row's picture is drawn when its colour is known."""
    for row in rows:
        if row.get("subject") in COLOURS:
            Image.fromarray(picture(str(row["subject"]))).save(tmp_path / str(row["file_name"]))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metadata.jsonl").write_text(lines, "utf-8")
    return tmp_path


def test_it_reads_what_the_nearest_exemplar_is_labelled_with() -> None:
    """Value and probabilities follow the nearest labelled picture, in the order of the values."""
    images = np.stack([picture("red"), picture("green")])
    labels = {"subject": ["a", "b"], "heat": ["hot", "cold"]}
    classifier = fit("t", images, labels, {"heat": ["cold", "hot"]})
    reading = classifier.read(np.stack([picture("red", shift=9)]), ["heat"])["heat"]
    assert reading.values == ("cold", "hot")
    assert reading.value_n.tolist() == [1]
    assert reading.probability_nk[0, 1] > 0.9


def test_a_picture_unlike_anything_known_is_unreadable() -> None:
    """It abstains rather than name the least unlike."""
    images = np.stack([picture("red"), picture("red", shift=20)])
    classifier = fit("t", images, {"subject": ["a", "b"]}, {})
    reading = classifier.read(np.stack([picture("blue")]), ["subject"])["subject"]
    assert not reading.readable_n.any()
    assert reading.probability_nk.sum() == 0


def test_an_attribute_that_the_nearest_picture_lacks_is_unreadable() -> None:
    """An apple has no presentation, however near a person stands."""
    images = np.stack([picture("red"), picture("green")])
    classifier = fit("t", images, {"subject": ["apple", "a"], "who": [None, "man"]}, {})
    reading = classifier.read(images, ["who"])["who"]
    assert reading.value_n.tolist() == [-1, 0]


def test_pictures_of_another_size_are_read(tmp_path: Path) -> None:
    """A study's resolution need not be the exemplars'."""
    rows: list[dict[str, object]] = [
        {"file_name": f"{c}.png", "subject": c, "season": "winter"} for c in ("red", "green")
    ]
    classifier = fit_folder(folder_of(tmp_path, rows), {"season": ["winter", "summer"]})
    reading = classifier.read(np.stack([picture("green", 128)]), ["subject"])["subject"]
    assert reading.values[reading.value_n[0]] == "green"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"file_name": "red.png", "subject": "red", "season": "autumn"}, "season = 'autumn'"),
        ({"file_name": "gone.png", "subject": "gone", "season": None}, "gone.png"),
        ({"file_name": "../out.png", "subject": "out", "season": None}, "not a picture in"),
    ],
)
def test_a_folder_that_cannot_be_meant_is_refused(
    tmp_path: Path, row: dict[str, object], message: str
) -> None:
    """A label outside the list, a missing picture, a path that leaves the folder."""
    with pytest.raises(UserError, match=message):
        fit_folder(folder_of(tmp_path, [row]), {"season": ["winter", "summer"]})


def test_asking_for_an_attribute_without_labels_is_refused() -> None:
    """It says which attributes its exemplars have."""
    classifier = fit("t", np.stack([picture("red")]), {"subject": ["a"]}, {})
    with pytest.raises(UserError, match=r"cannot read 'season'.*subject"):
        classifier.read(np.stack([picture("red")]), ["season"])


def test_luminance_and_chroma_have_nothing_in_common() -> None:
    """Grey changes no chroma and hue no luminance; both together are all of RGB."""
    rng = np.random.default_rng(0)
    images = rng.integers(60, 190, (3, 64, 64, 3), dtype=np.uint8)
    lighter = images + 20
    chroma = pixel_features(images, channels="chroma")
    luminance = pixel_features(images, channels="luminance")
    assert chroma.shape == (3, 64 * 64 * 2) and luminance.shape == (3, 64 * 64)
    np.testing.assert_allclose(pixel_features(lighter, channels="chroma"), chroma, atol=1e-6)
    moved = np.abs(pixel_features(lighter, channels="luminance") - luminance - 20 / 255)
    assert moved.max() < 1e-6
    ycc = np.stack([np.asarray(Image.fromarray(i).convert("YCbCr")) for i in images]) / 255
    np.testing.assert_allclose(luminance.reshape(3, 64, 64), ycc[..., 0], atol=1.01 / 255)
    cbcr = chroma.reshape(3, 64, 64, 2) + 128 / 255
    np.testing.assert_allclose(cbcr, ycc[..., 1:], atol=1.5 / 255)


def test_its_name_changes_with_its_pictures(tmp_path: Path) -> None:
    """Though the table beside them is the same, what they read as is not."""
    row = {"file_name": "a.png", "subject": "x", "season": "winter"}
    names = []
    for colour in ("red", "blue"):
        folder = folder_of(tmp_path, [row])
        Image.fromarray(picture(colour)).save(folder / "a.png")
        names.append(fit_folder(folder, {"season": ["winter"]}).name)
    assert names[0] != names[1]

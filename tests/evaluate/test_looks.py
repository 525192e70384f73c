"""What is told of a picture without a model."""

from __future__ import annotations

import statistics
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from unskew.evaluate.features import pooled_pixels
from unskew.evaluate.looks import SMALL_PX, looks_of

Bytes = NDArray[np.uint8]


def look(image: Bytes) -> dict[str, Any]:
    found: dict[str, Any] = looks_of([image]).to_pylist()[0]
    return found


@given(hnp.arrays(np.uint8, st.tuples(st.integers(3, 6), st.integers(3, 6), st.just(3))))
def test_figures_are_those_of_their_formulas(image: Bytes) -> None:
    """Pixel by pixel: the Laplacian's variance, the luma's spread, Hasler and Suesstrunk's M3."""
    h, w, _ = image.shape
    rgb = image.astype(int).tolist()
    luma = [[0.299 * r + 0.587 * g + 0.114 * b for r, g, b in row] for row in rgb]
    laplacian = [
        luma[y - 1][x] + luma[y + 1][x] + luma[y][x - 1] + luma[y][x + 1] - 4 * luma[y][x]
        for y in range(1, h - 1)
        for x in range(1, w - 1)
    ]
    flat = [pixel for row in rgb for pixel in row]
    red_green = [r - g for r, g, _ in flat]
    yellow_blue = [(r + g) / 2 - b for r, g, b in flat]
    spread = [statistics.pvariance(opponent) for opponent in (red_green, yellow_blue)]
    mean = [statistics.fmean(opponent) ** 2 for opponent in (red_green, yellow_blue)]
    found = look(image)
    assert found["sharpness"] == pytest.approx(statistics.pvariance(laplacian), rel=1e-4, abs=1e-2)
    assert found["contrast"] == pytest.approx(
        statistics.pstdev([value for row in luma for value in row]), rel=1e-4, abs=1e-3
    )
    assert found["colourfulness"] == pytest.approx(
        sum(spread) ** 0.5 + 0.3 * sum(mean) ** 0.5, rel=1e-4, abs=1e-3
    )


def test_one_colour_is_blank_and_a_dot_or_another_hue_is_not() -> None:
    """Of any size; rounding alone does not make a picture."""
    plain = np.full((64, 64, 3), 200, np.uint8)
    assert look(plain)["blank"] and look(plain[:2, :2])["blank"]
    rounded = plain + np.random.default_rng(0).integers(0, 2, plain.shape, dtype=np.uint8)
    assert look(rounded)["blank"]
    dot = plain.copy()
    dot[20:40, 20:40] = 0
    hues = plain.copy()
    hues[:32] = (217, 187, 209)  # as light, to the eye of the luma
    assert not look(dot)["blank"] and not look(hues)["blank"]


def test_the_hash_is_of_the_pixels_and_their_shape() -> None:
    """One pixel, or the same bytes laid out otherwise, is another picture."""
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    other = image.copy()
    other[3, 5, 2] ^= 1
    found = looks_of([image, image.copy(), other, image.reshape(6, 4, 3)])["pixels"].to_pylist()
    assert found[0] == found[1] and len(set(found)) == 3


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (33, 7), (64, 64), (200, 300)])
def test_every_size_has_a_copy_and_features(size: tuple[int, int]) -> None:
    """Grey of 32 pixels a side, the mean kept; and the colours of a grid."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    small = np.frombuffer(look(image)["small"], np.uint8).reshape(SMALL_PX, SMALL_PX)
    assert small.mean() == pytest.approx((image @ [0.299, 0.587, 0.114]).mean(), abs=1)
    (feature,) = pooled_pixels([image])
    assert feature.shape == (192,) and 0 <= feature.min() <= feature.max() <= 1

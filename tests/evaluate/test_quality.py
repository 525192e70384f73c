"""Pictures as pictures: similarity, what stayed, repeats, and paired means with gaps."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from unskew.evaluate.quality import identity, log_ratio, paired_mean, repeated, seeds_alike, ssim
from unskew.evaluate.stats import cluster_estimate, seed_estimate

Bytes = NDArray[np.uint8]
PIXELS = hnp.arrays(np.uint8, (3, 16, 16))


def noise(*shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_similarity_is_that_of_the_reference_implementation() -> None:
    """Within rounding, on pictures that are alike and on such that are not."""
    # scikit-image 0.26.0: structural_similarity(one, other, gaussian_weights=True, sigma=1.5,
    # use_sample_covariance=False, data_range=255)
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (32, 32))
    near = np.clip(one + rng.integers(-40, 41, (32, 32)), 0, 255)
    far = rng.integers(0, 256, (32, 32))
    pairs = [np.stack([one, one]).astype(np.uint8), np.stack([near, far]).astype(np.uint8)]
    assert ssim(*pairs) == pytest.approx([0.9568013939842704, -0.02512234578241821], abs=1e-12)


@given(PIXELS, PIXELS)
def test_similarity_has_no_sides_and_a_top(one: Bytes, other: Bytes) -> None:
    """The order of two pictures is all the same; nothing is more like a picture than itself."""
    np.testing.assert_allclose(ssim(one, other), ssim(other, one), atol=1e-9)
    np.testing.assert_allclose(ssim(one, one), 1, atol=1e-9)
    assert (ssim(one, other) <= 1 + 1e-9).all()


def test_every_pair_of_seeds_is_compared_once() -> None:
    """Both ways round, never with itself, and never with what is missing."""
    images = noise(2, 4, 16, 16)
    there = np.array([[True] * 4, [True, False, True, True]])
    found = seeds_alike(images, there)
    for p, i, j in np.ndindex(2, 4, 4):
        both = i != j and there[p, i] and there[p, j]
        expected = ssim(images[p, i][None], images[p, j][None])[0] if both else 0
        assert found[p, i, j] == pytest.approx(expected, abs=1e-12)


def stayed(
    base: Bytes, treated: Bytes, fixed: bool = False, there: NDArray[np.bool_] | None = None
):  # type: ignore[no-untyped-def]
    there = np.ones(base.shape[:2], np.bool_) if there is None else there
    clusters = np.arange(len(base))
    return identity(base, treated, seeds_alike(base, there), there, clusters, fixed, 0)


@pytest.mark.parametrize("fixed", [False, True])
def test_the_same_pictures_have_stayed_and_other_seeds_have_not(fixed: bool) -> None:
    """1 without any spread for the same; about 0, with 0 in the interval, for redrawn ones."""
    base = noise(12, 6, 32, 32)
    same = stayed(base, base.copy(), fixed)
    assert (same.value.value, same.value.lo, same.value.hi) == pytest.approx((1, 1, 1))
    redrawn = stayed(base, noise(12, 6, 32, 32, seed=1), fixed)
    assert redrawn.value.lo < 0 < redrawn.value.hi
    assert redrawn.value.value == pytest.approx(0, abs=0.02)
    half = stayed(base, (base // 2 + 64).astype(np.uint8), fixed)
    assert 0.3 < half.value.value < 1


def test_leaving_out_a_seed_leaves_it_out_of_both_means() -> None:
    """The jackknife of fixed prompts is that of the shortened sets, gaps and all."""
    base, treated = noise(3, 6, 16, 16), noise(3, 6, 16, 16, seed=1)
    treated[:, ::2] = base[:, ::2]
    there = np.ones((3, 6), np.bool_)
    there[1, 4] = False
    whole = stayed(base, treated, True, there)
    shorter = []
    for s in range(6):
        keep = np.arange(6) != s
        part = stayed(base[:, keep], treated[:, keep], True, there[:, keep])
        shorter.append(part.value.value)
    expected = seed_estimate(whole.value.value, np.array(shorter))
    assert (whole.value.lo, whole.value.hi) == pytest.approx((expected.lo, expected.hi))


def test_what_cannot_be_told_is_not_said() -> None:
    """Too few pictures, or seeds that all show the same: no figure, and no warning."""
    base = noise(3, 4, 16, 16)
    assert stayed(base, base, True, np.tile([True, True, False, False], (3, 1))) is None
    equal = np.repeat(base[:, :1], 4, axis=1)
    assert stayed(equal, base) is None
    assert paired_mean(np.full((3, 4), np.nan), np.arange(3), False, 0) is None
    assert paired_mean(np.ones((1, 4)), np.arange(1), False, 0) is None
    assert paired_mean(np.ones((3, 1)), np.arange(3), True, 0) is None


@given(hnp.arrays(np.float64, (12, 5), elements=st.floats(-5, 5)), hnp.arrays(np.bool_, (12, 5)))
def test_missing_pairs_are_left_out_of_a_mean(
    values: NDArray[np.float64], gone: NDArray[np.bool_]
) -> None:
    """The mean over subjects of the prompts' means of what is there, and its usual interval."""
    clusters = np.repeat(np.arange(6), 2)
    found = paired_mean(np.where(gone, np.nan, values), clusters, False, 7)
    means: dict[int, list[float]] = {}
    for row, out, cluster in zip(values, gone, clusters, strict=True):
        if not out.all():
            means.setdefault(int(cluster), []).append(sum(row[~out]) / (~out).sum())
    if len(means) < 2:
        assert found is None
        return
    expected = cluster_estimate(np.array([sum(m) / len(m) for m in means.values()]), 7)
    assert found is not None
    assert (found.value, found.lo, found.hi) == pytest.approx(
        (expected.value, expected.lo, expected.hi), abs=1e-9
    )


@given(hnp.arrays(np.int64, (3, 5), elements=st.integers(-1, 4)))
def test_a_repeat_is_a_picture_that_another_seed_of_its_prompt_shows(
    codes: NDArray[np.int64],
) -> None:
    """Counted picture by picture; the same picture for two prompts is none."""
    there = [(p, s) for p, s in np.ndindex(3, 5) if codes[p, s] >= 0]
    again = [any(codes[p, s] == codes[p, t] for t in range(5) if t != s) for p, s in there]
    found = repeated(codes)
    assert math.isnan(found) if not there else found == pytest.approx(sum(again) / len(there))


def test_a_ratio_to_nothing_is_bounded() -> None:
    """A blank picture counts as one grey level; what is missing stays missing."""
    found = log_ratio(np.array([[100.0, 0.0, np.nan]]), np.array([[0.0, 0.2, 5.0]]))
    assert found[0, :2].tolist() == pytest.approx([-math.log(100), 0])
    assert np.isnan(found[0, 2])

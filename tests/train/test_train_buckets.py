"""Every photograph has a size of its own shape, and what is told of its cut is what was cut."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from diffusers.training_utils import find_nearest_bucket
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from unskew.errors import UserError
from unskew.train.buckets import (
    Framing,
    bucket_sizes,
    by_size,
    describe_framings,
    frame,
    is_mirrored,
    nearest_bucket,
)
from unskew.train.options import PictureSettings
from unskew.train.rows import Row, Size, load_picture

SIDES = st.integers(1, 12_000)
SIZES = st.tuples(SIDES, SIDES)
STEPS = st.sampled_from([8, 16, 32, 64, 128])
LADDERS = st.builds(
    lambda step, times, aspect: (step * times, step, aspect),
    STEPS,
    st.integers(1, 32),
    st.floats(1, 4),
)


def on(step_px: int = 64, max_aspect: float = 2.5) -> PictureSettings:
    return PictureSettings(
        aspect_buckets=True, bucket_step_px=step_px, bucket_max_aspect=max_aspect
    )


def row(number: int, picture_px: Size) -> Row:
    file = Path(f"{number}.png")
    return Row(number, file, "text", "neutral", "s", {}, "explicit", 1.0, picture_px)


def log_aspect(size: Size) -> float:
    return math.log(size[0] / size[1])


@given(LADDERS)
def test_buckets_are_about_the_squares_area(ladder: tuple[int, int, float]) -> None:
    """Sides are multiples of the step, the area at most the square's and less by under a row."""
    resolution_px, step, max_aspect = ladder
    sizes = bucket_sizes(resolution_px, on(step, max_aspect))
    assert (resolution_px, resolution_px) in sizes
    assert {(height, width) for width, height in sizes} == set(sizes)
    assert [log_aspect(s) for s in sizes] == sorted({log_aspect(s) for s in sizes})
    for width, height in sizes:
        short, long = sorted((width, height))
        assert width % step == height % step == 0 and short > 0
        assert resolution_px**2 - short * step < width * height <= resolution_px**2
        assert long <= max_aspect * short


def test_buckets_are_sizes_that_sdxl_knows() -> None:
    """At 1024 px each is in the list of the SDXL report's appendix (arXiv:2307.01952)."""
    sizes = bucket_sizes(1024, on(64, 4))
    wide = [(1088, 960), (1152, 896), (1216, 832), (1344, 768), (1472, 704), (1600, 640)]
    assert [s for s in sizes if s[0] > s[1]] == [*wide, (1792, 576), (2048, 512)]


def test_a_resolution_off_the_step_is_refused() -> None:
    """The message names both settings."""
    with pytest.raises(UserError, match=r"resolution_px must be a multiple .* \(64\).*got 1000"):
        bucket_sizes(1000, on())


@given(SIZES, LADDERS)
def test_every_picture_goes_to_the_bucket_nearest_by_ratio(
    picture_px: Size, ladder: tuple[int, int, float]
) -> None:
    """None is left out, and no other bucket's aspect is nearer by its logarithm."""
    resolution_px, step, max_aspect = ladder
    sizes = bucket_sizes(resolution_px, on(step, max_aspect))
    chosen = nearest_bucket(picture_px, sizes)
    nearest = min(abs(log_aspect(s) - log_aspect(picture_px)) for s in sizes)
    assert abs(log_aspect(chosen) - log_aspect(picture_px)) == pytest.approx(nearest, abs=1e-9)
    assert chosen == nearest_bucket(picture_px, sizes)


@given(SIZES)
def test_the_error_of_the_aspect_is_bounded(picture_px: Size) -> None:
    """Up to the widest bucket, half a gap of the ladder: SDXL's loses at most a tenth of a side."""
    sizes = bucket_sizes(1024, on())
    assume(abs(log_aspect(picture_px)) <= log_aspect(sizes[-1]))
    chosen = nearest_bucket(picture_px, sizes)
    assert abs(log_aspect(chosen) - log_aspect(picture_px)) <= 0.1
    assert Framing.of(picture_px, chosen).kept_share >= 0.9


@given(SIZES)
def test_no_other_bucket_keeps_more_of_the_picture(picture_px: Size) -> None:
    """The nearest by ratio is that; diffusers' own look-up, an outside oracle, comes within 1 %."""
    sizes = bucket_sizes(512, on())
    kept = Framing.of(picture_px, nearest_bucket(picture_px, sizes)).kept_share
    assert kept >= max(Framing.of(picture_px, size).kept_share for size in sizes) - 1e-12
    heights_first = [(height, width) for width, height in sizes]
    theirs = sizes[find_nearest_bucket(picture_px[1], picture_px[0], heights_first)]
    assert kept - Framing.of(picture_px, theirs).kept_share < 0.01


@given(SIZES, st.tuples(st.integers(1, 256), st.integers(1, 256)))
def test_the_cut_lies_in_the_middle_of_the_resized_picture(
    picture_px: Size, target_px: Size
) -> None:
    """It touches two sides and leaves as much on the one hand as on the other, to a pixel."""
    framing = Framing.of(picture_px, target_px)
    (top, left), scale = framing.crop_px, framing.scale
    over_x = picture_px[0] * scale - target_px[0] - 2 * left
    over_y = picture_px[1] * scale - target_px[1] - 2 * top
    assert left >= 0 and top >= 0 and min(left, top) == 0
    assert -1e-6 <= over_x < 2 and -1e-6 <= over_y < 2
    assert 0 < framing.kept_share <= 1 + 1e-9


def ramps(width: int, height: int) -> Image.Image:
    """A picture whose red says how far right a pixel is, and whose green how far down."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where hypothesis may write a picture, example after example."""
    return tmp_path_factory.mktemp("pictures")


@settings(max_examples=30)
@given(
    picture_px=st.tuples(st.integers(40, 256), st.integers(40, 256)),
    target_px=st.tuples(st.integers(16, 96), st.integers(16, 96)),
)
def test_the_framing_is_what_the_picture_shows(
    folder: Path, picture_px: Size, target_px: Size
) -> None:
    """The pixel in the target's middle is the one that scale and offset lead back to."""
    ramps(*picture_px).save(folder / "ramps.png")
    framing = Framing.of(picture_px, target_px)
    shown = np.asarray(load_picture(folder / "ramps.png", target_px)).astype(float)
    row_px, column_px = target_px[1] // 2, target_px[0] // 2
    for place, offset, channel in ((row_px, 0, 1), (column_px, 1, 0)):
        source = (place + framing.crop_px[offset] + 0.5) / framing.scale - 0.5
        # the offset was rounded down by less than a pixel, the colours to whole numbers
        assert -1.5 <= shown[row_px, column_px, channel] - source <= 1 / framing.scale + 1.5


def test_a_mirror_image_has_the_same_framing(tmp_path: Path) -> None:
    """It is the framed picture left for right, to the bit, so what SDXL is told of it holds."""
    ramps(101, 60).save(tmp_path / "a.png")
    plain = np.asarray(load_picture(tmp_path / "a.png", (40, 32)))
    mirrored = np.asarray(load_picture(tmp_path / "a.png", (40, 32), mirrored=True))
    assert np.array_equal(mirrored, plain[:, ::-1])
    assert not np.array_equal(mirrored, plain)
    ramps(101, 60).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "b.png")
    other_way = np.asarray(load_picture(tmp_path / "b.png", (40, 32))).astype(int)
    assert np.abs(other_way - mirrored).max() <= 1


def test_a_picture_saved_on_its_side_is_framed_upright(tmp_path: Path) -> None:
    """Whatever its EXIF note says of how it lies, it is cut as if it had been saved as it looks."""
    upright = ramps(60, 101)
    upright.save(tmp_path / "upright.png")
    exif = upright.getexif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / "lying.png", exif=exif)
    loaded = [load_picture(tmp_path / f"{name}.png", (32, 56)) for name in ("upright", "lying")]
    assert np.array_equal(loaded[0], loaded[1])


def test_sdxl_is_told_heights_first() -> None:
    """Original, crop and target, each (height, width) or (top, left), as its pipeline has them."""
    assert Framing.of((3000, 2000), (1216, 832)).time_ids == (2000, 3000, 0, 16, 832, 1216)
    assert Framing.of((512, 768), (1024, 1024)).time_ids == (768, 512, 256, 0, 1024, 1024)


def test_without_buckets_all_is_square() -> None:
    """The default: one size, whatever the pictures, and nothing to say of square ones."""
    rows = [row(1, (64, 64)), row(2, (640, 640))]
    framings = frame(rows, 64, PictureSettings())
    assert {f.target_px for f in framings.values()} == {(64, 64)}
    assert list(describe_framings(framings)) == []
    assert list(describe_framings({})) == []
    assert not PictureSettings().horizontal_flip


def test_a_person_can_look_the_buckets_over() -> None:
    """Counts of each size, what is enlarged and what is cut away, with the worst of each."""
    sides = [(3000, 2000), (2000, 3000), (1500, 1000), (4000, 1000), (300, 300)]
    said = "\n".join(describe_framings(frame([row(*r) for r in enumerate(sides)], 512, on())))
    assert "    640 x 384 px: 2\n" in said or "    576 x 448 px: 2\n" in said
    assert "    512 x 512 px: 1\n" in said and "    768 x 320 px: 1" in said
    assert "1 pictures are smaller" in said and "(most: 1.7 times, 4.png)" in said
    assert "(most: 40.0%, 3.png)" in said


@given(
    st.lists(st.sampled_from([(64, 64), (64, 128), (128, 64)]), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
def test_every_place_is_computed_once(shapes: list[Size], random: object) -> None:
    """Groups are of one size, hold each place once, and keep the order that was given."""
    rows = [row(number, px) for number, px in enumerate(shapes)]
    framings = {r.file: Framing.of(r.picture_px, r.picture_px) for r in rows}
    places = range(0, len(rows), 2)
    groups = by_size(rows, places, framings)
    assert Counter(place for group in groups for place in group) == Counter(places)
    assert all(len({rows[p].picture_px for p in group}) == 1 for group in groups)
    assert len({rows[group[0]].picture_px for group in groups}) == len(groups)
    assert all(group == sorted(group) for group in groups)
    assert [group[0] for group in groups] == sorted(group[0] for group in groups)


def test_one_size_is_one_group() -> None:
    """Where all pictures are square, a part of a step is computed as it always was."""
    rows = [row(number, (64, 64)) for number in range(8)]
    framings = frame(rows, 64, PictureSettings())
    assert by_size(rows, range(1, 8, 2), framings) == [[1, 3, 5, 7]]


def test_half_are_mirror_images_by_chance_that_any_process_knows() -> None:
    """A function of seed, step and place: about half of each, in no pattern, and the same again."""
    drawn = np.array([[is_mirrored(0, step, place) for place in range(64)] for step in range(64)])
    assert abs(drawn.mean() - 0.5) < 0.03
    assert abs(drawn.mean(0) - 0.5).max() < 0.25 and abs(drawn.mean(1) - 0.5).max() < 0.25
    assert abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 0.06
    assert drawn[3, 5] == is_mirrored(0, 3, 5)
    other = [[is_mirrored(1, step, place) for place in range(64)] for step in range(64)]
    assert abs((drawn == other).mean() - 0.5) < 0.04

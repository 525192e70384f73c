"""Which size a photograph is trained at, and how it is cut to fill it.

A bucket is a size whose sides are multiples of a step and whose area is about the square's. A
picture goes to the bucket whose aspect is nearest by ratio, which is the one that keeps the most of
it; it is resized to cover that and cut around its middle. (diffusers' `find_nearest_bucket` chooses
alike but for shapes about halfway between two, while its ladder of eleven shapes has no limit and
may exceed the square's area.)

Sizes are (width, height); the offset of a cut is (top, left), as SDXL is told it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

from unskew.errors import UserError
from unskew.train.options import PictureSettings
from unskew.train.rows import Row, Size


@dataclass(frozen=True)
class Framing:
    """How a picture is resized and cut. The mirror image's is the same, the cut being central."""

    original_px: Size
    """The picture as it is in its file, upright."""
    crop_px: tuple[int, int]
    """Top and left of what is kept, in the picture resized to cover the target; rounded down."""
    target_px: Size
    """What it is trained at."""

    @classmethod
    def of(cls, original_px: Size, target_px: Size) -> Self:
        """The framing that `rows.load_picture` carries out."""
        (width, height), (target_width, target_height) = original_px, target_px
        scale = _cover(original_px, target_px)
        top = (height * scale - target_height) / 2
        left = (width * scale - target_width) / 2
        return cls(original_px, (int(top), int(left)), target_px)

    @property
    def scale(self) -> float:
        """By how much a side is resized; over 1 it is enlarged and lacks detail."""
        return float(_cover(self.original_px, self.target_px))

    @property
    def kept_share(self) -> float:
        """Share of the picture's area that the cut leaves, over 0 to 1."""
        (width, height), (target_width, target_height) = self.original_px, self.target_px
        return target_width * target_height / (width * height * self.scale**2)

    @property
    def time_ids(self) -> tuple[int, int, int, int, int, int]:
        """What SDXL is told of a picture: original size, crop and target, each height first."""
        (width, height), (target_width, target_height) = self.original_px, self.target_px
        return (height, width, *self.crop_px, target_height, target_width)


def _cover(original_px: Size, target_px: Size) -> Fraction:
    """Exact, so that what rounding decides is the same on every machine."""
    return max(Fraction(t, o) for t, o in zip(target_px, original_px, strict=True))


def bucket_sizes(resolution_px: int, settings: PictureSettings) -> tuple[Size, ...]:
    """The buckets from tallest to widest: the square alone unless `aspect_buckets` is on.

    For every shorter side the longest other side that keeps the area within the square's, so that
    no bucket needs more memory than the square does. At 1024 px in steps of 64 they are sizes that
    SDXL was trained at. Raises UserError when resolution_px is no multiple of the step.
    """
    if not settings.aspect_buckets:
        return ((resolution_px, resolution_px),)
    step = settings.bucket_step_px
    if resolution_px % step:
        raise UserError(
            f"resolution_px must be a multiple of pictures.bucket_step_px ({step}) where "
            f"pictures.aspect_buckets is on, got {resolution_px}: change one of them, or switch "
            "the buckets off"
        )
    sizes = set()
    for short in range(step, resolution_px + 1, step):
        long = resolution_px**2 // short // step * step
        if long <= settings.bucket_max_aspect * short:
            sizes |= {(short, long), (long, short)}
    return tuple(sorted(sizes))


def nearest_bucket(original_px: Size, sizes: Iterable[Size]) -> Size:
    """The size whose aspect differs from the picture's by the smallest ratio; of two, the first."""

    def ratio(size: Size) -> Fraction:  # exp of the distance of the aspects' logarithms
        products = original_px[0] * size[1], original_px[1] * size[0]
        return Fraction(max(products), min(products))

    return min(sizes, key=ratio)


def frame(
    rows: Iterable[Row], resolution_px: int, settings: PictureSettings
) -> dict[Path, Framing]:
    """Picture -> how it is framed. Raises UserError as `bucket_sizes`."""
    sizes = bucket_sizes(resolution_px, settings)
    seen = {row.file: row.picture_px for row in rows}
    return {file: Framing.of(px, nearest_bucket(px, sizes)) for file, px in seen.items()}


def by_size(
    rows: Sequence[Row], places: Iterable[int], framings: Mapping[Path, Framing]
) -> list[list[int]]:
    """These places of a step's rows, those of one size together: what one forward pass can take.

    Every place comes once. Groups stand in the order of their first place, places in the order
    given, so with one size it is the places as they were.
    """
    groups: dict[Size, list[int]] = {}
    for place in places:
        groups.setdefault(framings[rows[place].file].target_px, []).append(place)
    return list(groups.values())


def is_mirrored(seed: int, step: int, place: int) -> bool:
    """Whether the picture at this place of this step is shown as its mirror image: every other.

    A function of its arguments alone, apart from the chance that draws noise and timestep, so
    switching mirror images on changes nothing else.
    """
    digest = hashlib.sha256(f"{seed}\0mirror step {step} place {place}".encode()).digest()
    return bool(digest[0] & 1)


def describe_framings(framings: Mapping[Path, Framing]) -> Iterator[str]:
    """The table of buckets, and what is enlarged or cut away; nothing where nothing is."""
    counts = Counter(framing.target_px for framing in framings.values())
    if len(counts) > 1:
        yield "  pictures in each bucket (width x height):"
        yield from (f"    {w} x {h} px: {counts[w, h]}" for w, h in sorted(counts))
    enlarged = {file: framing.scale for file, framing in framings.items() if framing.scale > 1}
    if enlarged:
        file = max(enlarged, key=enlarged.__getitem__)
        yield (
            f"  {len(enlarged)} pictures are smaller than the size they are trained at and are "
            f"enlarged (most: {enlarged[file]:.1f} times, {file})"
        )
    cut = {file: 1 - framing.kept_share for file, framing in framings.items()}
    lost = max(cut, key=cut.__getitem__, default=None)
    if lost is not None and cut[lost] > 0.005:
        mean = sum(cut.values()) / len(cut)
        yield (
            f"  framing cuts away {mean:.1%} of a picture's area on average (most: "
            f"{cut[lost]:.1%}, {lost})"
        )

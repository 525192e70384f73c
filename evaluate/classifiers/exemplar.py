"""The exemplar classifier: a picture is what its nearest labelled picture is.

Labelled folder in, classifier out. It fits worlds of drawings, logos or icons, where pixels say
what is shown; photographs need a model that was trained to read them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unskew.attributes import SUBJECT
from unskew.errors import UserError
from unskew.evaluate.classifiers.options import Channels
from unskew.evaluate.classifiers.reading import Images, Readings, check_asked
from unskew.runs import sha256_file

FEATURE_PX = 64
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""ITU-R BT.601, as in JPEG."""
CHROMA = np.array([0.564, 0.713], dtype=np.float32)
"""By which blue and red less luminance become Cb and Cr."""


def pixel_features(
    images: Images, size_px: int = FEATURE_PX, channels: Channels = "rgb"
) -> NDArray[np.float32]:
    """(n, size * size * C) channels of RGB in [0, 1], averaged or stretched to this size.

    C is 3 for rgb, 1 for luminance, and 2 for chroma: what blue and red are more than luminance
    (BT.601's Cb and Cr). Luminance and chroma have nothing in common, and together are all of RGB.
    """
    same = [_resized(image, size_px) for image in images]
    rgb_nhwc = (np.stack(same) / 255).astype(np.float32)
    if channels != "rgb":
        y_nhw1 = (rgb_nhwc @ LUMA)[..., None]
        chroma_nhwc = (rgb_nhwc[..., [2, 0]] - y_nhw1) * CHROMA
        rgb_nhwc = y_nhw1 if channels == "luminance" else chroma_nhwc
    return rgb_nhwc.reshape(len(same), -1)


def _resized(image: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (size_px, size_px):
        return image
    return np.asarray(Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BOX))


@dataclass(frozen=True)
class ExemplarClassifier:
    """Reads what its exemplars are labelled with; that is always `subject`, and attributes."""

    name: str
    features_nd: NDArray[np.float32]
    """(n, d) the exemplars' pixels."""
    labels: Mapping[str, tuple[tuple[str, ...], NDArray[np.int64]]]
    """Attribute -> (values, (n,) index of each exemplar's value, -1 where it has none)."""
    attributes: tuple[str, ...]
    """What it reads: of its exemplars' labels all, or those that were asked for."""
    channels: Channels = "rgb"
    """What it sees of a picture, and of its exemplars."""

    @cached_property
    def _between_subjects_n(self) -> NDArray[np.float32]:
        """(n,) squared distance from each exemplar to the nearest one of another subject."""
        squared = _squared_distances(self.features_nd, self.features_nd)
        subject_n = self.labels[SUBJECT][1]
        squared[subject_n[:, None] == subject_n[None, :]] = np.inf
        nearest: NDArray[np.float32] = squared.min(axis=1)
        return nearest

    @cached_property
    def limit(self) -> float:
        """Squared distance past which a picture is unreadable.

        A picture further from every exemplar than exemplars commonly are from another subject's
        (the median) shows nothing that is known.
        """
        return float(np.median(self._between_subjects_n))

    def read(self, images: Images, attributes: Sequence[str]) -> dict[str, Readings]:
        """Readings of pictures, by attribute.

        A picture is unreadable when it is past `limit`, and for an attribute that its nearest
        exemplar does not have. Raises UserError for an attribute without labels.
        """
        advice = "add that column to its exemplars' metadata.jsonl"
        check_asked(self.name, self.attributes, attributes, advice)
        features_nd = pixel_features(images, channels=self.channels)
        squared_nm = _squared_distances(features_nd, self.features_nd)
        nearest_n = squared_nm.argmin(axis=1)
        known_n = squared_nm.min(axis=1) <= self.limit
        temperature = 0.05 * self.limit
        readings = {}
        for attribute in attributes:
            values, label_m = self.labels[attribute]
            by_value = np.stack(
                [
                    np.where(label_m == k, squared_nm, np.inf).min(axis=1)
                    for k in range(len(values))
                ],
                axis=1,
            )
            value_n = np.where(known_n, label_m[nearest_n], -1)
            closeness = np.exp((by_value.min(axis=1, keepdims=True) - by_value) / temperature)
            probability = closeness / closeness.sum(axis=1, keepdims=True)
            probability[value_n < 0] = 0
            readings[attribute] = Readings(values, value_n, probability.astype(np.float32))
        return readings


def _squared_distances(a_nd: NDArray[np.float32], b_md: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, m) mean squared differences, by |a|^2 - 2ab + |b|^2."""
    squared = (a_nd**2).sum(1)[:, None] - 2 * a_nd @ b_md.T + (b_md**2).sum(1)[None, :]
    return np.asarray(np.maximum(squared, 0) / a_nd.shape[1])


def fit(
    name: str,
    images: Images,
    labels: Mapping[str, Sequence[str | None]],
    values: Mapping[str, Sequence[str]],
    channels: Channels = "rgb",
) -> ExemplarClassifier:
    """A classifier from pictures and, by attribute, each one's value (None where it has none).

    `values` gives an attribute's values in order; one without an entry takes those of its labels.
    """
    encoded = {}
    for attribute, column in labels.items():
        found = dict.fromkeys(value for value in column if value is not None)
        names = tuple(values.get(attribute, found))
        index = {value: k for k, value in enumerate(names)}
        encoded[attribute] = (names, np.array([index[v] if v is not None else -1 for v in column]))
    features_nd = pixel_features(images, channels=channels)
    return ExemplarClassifier(name, features_nd, encoded, tuple(encoded), channels)


def fit_folder(
    folder: Path, attributes: Mapping[str, Sequence[str]], channels: Channels = "rgb"
) -> ExemplarClassifier:
    """A classifier from a labelled imagefolder; `attributes` gives each one's values in order.

    Raises UserError when the folder or a picture is missing, or a label is no known value.
    """
    metadata = folder / "metadata.jsonl"
    if not metadata.is_file():
        raise UserError(
            f"exemplar folder {folder} has no metadata.jsonl: it needs one line a picture with "
            "file_name, subject and the attributes; `unskew data` writes one for Emoji World"
        )
    rows = [json.loads(line) for line in metadata.read_text("utf-8").splitlines()]
    labels: dict[str, list[str | None]] = {SUBJECT: [row[SUBJECT] for row in rows]}
    for attribute, values in attributes.items():
        labels[attribute] = [_label(row, attribute, values, metadata) for row in rows]
    images = [_open(folder, row["file_name"], metadata) for row in rows]
    name = f"exemplars of {folder.name}, sha256 {_sha256(metadata, rows, images)[:12]}"
    name += "" if channels == "rgb" else f", by {channels} alone"
    return fit(name, images, labels, attributes, channels)


def _sha256(
    metadata: Path, rows: Sequence[Mapping[str, Any]], images: Sequence[NDArray[np.uint8]]
) -> str:
    """Of all that decides what is read: the table, where it has the pictures' own hashes."""
    table = sha256_file(metadata)
    if all(row.get("sha256") for row in rows):
        return table
    seen = hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()
    return hashlib.sha256(f"{table} {seen}".encode()).hexdigest()


def _label(
    row: Mapping[str, Any], attribute: str, values: Sequence[str], where: Path
) -> str | None:
    value: str | None = row.get(attribute)
    if value is not None and value not in values:
        raise UserError(
            f"{where}: {row['file_name']} has {attribute} = {value!r} (allowed: {list(values)})"
        )
    return value


def _open(folder: Path, name: str, where: Path) -> NDArray[np.uint8]:
    file = folder / name
    if not file.is_file() or folder.resolve() not in file.resolve().parents:
        raise UserError(f"{where} names {name!r}, which is not a picture in {folder}")
    with Image.open(file) as image:
        small = image.convert("RGB").resize((FEATURE_PX, FEATURE_PX), Image.Resampling.BOX)
        return np.asarray(small)

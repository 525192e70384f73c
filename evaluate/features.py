"""What drift is measured in: the features of a picture, by mean colours or by an image model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoImageProcessor, AutoModel

from unskew.evaluate.cells import POOLED_PIXELS
from unskew.evaluate.classifiers.reading import Images
from unskew.evaluate.classifiers.weights import load_model, load_processor, pin
from unskew.evaluate.classifiers.zero_shot import parts, pooled
from unskew.evaluate.measuring_options import FeatureSettings as FeatureSettings

GRID = 8


@dataclass(frozen=True)
class Features:
    """A feature space of pictures."""

    name: str
    """In words, as rows say it; with the model's revision or sha256 where there is one."""
    of: Callable[[Images], NDArray[np.float32]]
    """Pictures -> (n, d) features."""


def load_features(settings: FeatureSettings, device: torch.device) -> Features:
    """The features that settings ask for. Raises UserError when the model cannot be had."""
    if settings.model is None:
        return Features(POOLED_PIXELS, pooled_pixels)
    name = f"features of the image model {pin(settings.model, settings.revision)}"
    model = load_model(AutoModel, settings.model, settings.revision, device)
    processor = load_processor(AutoImageProcessor, settings.model, settings.revision)
    return Features(name, lambda images: model_features(model, processor, settings.batch, images))


def pooled_pixels(images: Images) -> NDArray[np.float32]:
    """(n, 192) mean colours in [0, 1] of a grid of 8 x 8 laid on each picture."""
    return np.stack([_pooled(image) for image in images])


def _pooled(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    h, w, _ = image.shape
    if min(h, w) < GRID:
        image = np.repeat(np.repeat(image, GRID, axis=0), GRID, axis=1)
        h, w, _ = image.shape
    blocks = image[: h // GRID * GRID, : w // GRID * GRID]
    blocks = blocks.reshape(GRID, h // GRID, GRID, w // GRID, 3)
    mean: NDArray[np.float32] = (blocks.mean(axis=(1, 3)).reshape(-1) / 255).astype(np.float32)
    return mean


def model_features(model: Any, processor: Any, batch: int, images: Images) -> NDArray[np.float32]:
    """(n, d) features by a model, of length sqrt(d), so that products over d are cosines.

    An image-text model's picture embeddings; of another, its last layer averaged over the picture,
    since a pooling layer may be one that nobody trained.
    """
    found = []
    with torch.inference_mode():
        for part in parts(images, batch):
            inputs = processor(images=part, return_tensors="pt").to(model.device)
            if hasattr(model, "get_image_features"):
                feature_nd = pooled(model.get_image_features(**inputs))
            else:
                last = model(**inputs).last_hidden_state  # (n, tokens, d), or (n, d, h, w)
                feature_nd = last.mean(dim=1) if last.ndim == 3 else last.mean(dim=(2, 3))
            length_n1 = feature_nd.norm(dim=1, keepdim=True).clamp_min(1e-12)
            scaled = feature_nd / length_n1 * feature_nd.shape[1] ** 0.5
            found.append(scaled.float().cpu().numpy())
    return np.concatenate(found)

"""Any image classifier of transformers, its labels taken for values of attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoImageProcessor, AutoModelForImageClassification

from unskew.errors import UserError
from unskew.evaluate.classifiers.reading import Images, Readings, check_asked
from unskew.evaluate.classifiers.weights import load_model, load_processor, pin
from unskew.evaluate.classifiers.zero_shot import parts


@dataclass(frozen=True)
class ImageModelClassifier:
    """Reads the attributes that its labels were mapped to."""

    name: str
    model: Any
    processor: Any
    """Prepares pictures."""
    mapped: Mapping[str, tuple[tuple[str, ...], NDArray[np.float32]]]
    """Attribute -> (values, (labels, K) 1 where a label means a value)."""
    min_probability: float
    """The least that the model must give the best value, of all its labels, else unreadable."""
    batch: int

    @property
    def attributes(self) -> tuple[str, ...]:
        """What its labels were mapped to."""
        return tuple(self.mapped)

    def read(self, images: Images, attributes: Sequence[str]) -> dict[str, Readings]:
        """Attribute -> readings; a value has the summed probability of its labels.

        Labels that mean no value count against all of them, so a model with a label for "no face"
        says unreadable by it. The probabilities that are kept are scaled to sum to 1.
        """
        check_asked(self.name, self.attributes, attributes, "map labels of the model to its values")
        batches = []
        with torch.inference_mode():
            for part in parts(images, self.batch):
                inputs = self.processor(images=part, return_tensors="pt").to(self.model.device)
                logits = self.model(**inputs).logits
                batches.append(logits.float().softmax(dim=1).cpu().numpy())
        label_nl = np.concatenate(batches)
        found = {}
        for attribute in attributes:
            values, means_lk = self.mapped[attribute]
            score_nk = label_nl @ means_lk
            best_n = score_nk.argmax(axis=1)
            readable_n = score_nk.max(axis=1) >= self.min_probability
            probability_nk = score_nk / np.maximum(score_nk.sum(axis=1, keepdims=True), 1e-12)
            probability_nk[~readable_n] = 0
            found[attribute] = Readings(
                values, np.where(readable_n, best_n, -1), probability_nk.astype(np.float32)
            )
        return found


def load_image_model(
    model: str,
    revision: str | None,
    labels: Mapping[str, Mapping[str, Sequence[str]]],
    values: Mapping[str, tuple[str, ...]],
    *,
    min_probability: float,
    batch: int,
    device: torch.device,
) -> ImageModelClassifier:
    """A reader of the attributes in `labels`: attribute -> value -> labels of the model.

    `values` gives each attribute's values in order; one that has no label is never read. Raises
    UserError for a label that the model does not have.
    """
    name = f"image model {pin(model, revision)}"
    loaded = load_model(AutoModelForImageClassification, model, revision, device)
    numbers = {label: int(number) for number, label in loaded.config.id2label.items()}
    mapped = {}
    for attribute, by_value in labels.items():
        means_lk = np.zeros((len(numbers), len(values[attribute])), dtype=np.float32)
        for k, value in enumerate(values[attribute]):
            for label in by_value.get(value, ()):
                if label not in numbers:
                    raise UserError(
                        f"{model} has no label {label!r}, given for {attribute} = {value} "
                        f"(it has: {', '.join(list(numbers)[:20])})"
                    )
                means_lk[numbers[label], k] = 1
        mapped[attribute] = (values[attribute], means_lk)
    processor = load_processor(AutoImageProcessor, model, revision)
    return ImageModelClassifier(name, loaded, processor, mapped, min_probability, batch)

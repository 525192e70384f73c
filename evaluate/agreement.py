"""Do pictures agree with their prompts? Cosines in the space of an image-text model.

What is called CLIP score where the model is CLIP (Hessel et al. 2021), without its factor of 2.5
and its floor at 0. Such a model has its own skew, and hears the start of a long prompt only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoImageProcessor, AutoTokenizer

from unskew.evaluate.classifiers.reading import Images
from unskew.evaluate.classifiers.weights import load_processor, load_tokenizer, pin
from unskew.evaluate.classifiers.zero_shot import (
    embed_pictures,
    embed_words,
    load_image_text,
    parts,
)
from unskew.evaluate.measuring_options import AgreementSettings as AgreementSettings


@dataclass(frozen=True)
class AgreementModel:
    """An image-text model, as agreement uses it."""

    name: str
    margin: float | None
    pictures: Callable[[Images], NDArray[np.float32]]
    """Pictures -> (n, d) of length 1."""
    texts: Callable[[Sequence[str]], NDArray[np.float32]]
    """Texts -> (n, d) of length 1."""


def load_agreement(settings: AgreementSettings, device: torch.device) -> AgreementModel | None:
    """The model that settings ask for; None where they ask for none. Raises UserError."""
    if settings.model is None:
        return None
    where = (settings.model, settings.revision)
    name = pin(*where)
    model = load_image_text(*where, device)
    embed = partial(embed_pictures, model, load_processor(AutoImageProcessor, *where))
    embed_texts = partial(embed_words, model, load_tokenizer(AutoTokenizer, *where))

    def pictures(images: Images) -> NDArray[np.float32]:
        with torch.inference_mode():
            return _joined([embed(part) for part in parts(images, settings.batch)])

    def texts(some: Sequence[str]) -> NDArray[np.float32]:
        starts = range(0, len(some), settings.batch)
        return _joined([embed_texts(some[at : at + settings.batch]) for at in starts])

    return AgreementModel(name, settings.margin, pictures, texts)


def _joined(found: Sequence[torch.Tensor]) -> NDArray[np.float32]:
    joined: NDArray[np.float32] = torch.cat(list(found)).float().cpu().numpy()
    return joined

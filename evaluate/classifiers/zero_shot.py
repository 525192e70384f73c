"""Zero-shot reading: the value whose description lies nearest to the picture.

CLIP (Radford et al. 2021, "Learning transferable visual models from natural language supervision")
or SigLIP (Zhai et al. 2023) through transformers. A value is described by several phrases in
several templates, whose embeddings are averaged (Radford et al., section 3.1.4). What such a model
has learnt about people is what the web says of them: calibrate it before believing it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from unskew.errors import UserError
from unskew.evaluate.classifiers.reading import Images, Readings, check_asked, most_probable
from unskew.evaluate.classifiers.weights import load_model, load_processor, load_tokenizer, pin

UNREADABLE = "unreadable"
"""Key of the phrases for pictures that show none of an attribute's values."""


@dataclass(frozen=True)
class ZeroShotClassifier:
    """Reads the attributes whose values it has descriptions of."""

    name: str
    model: Any
    processor: Any
    """Prepares pictures."""
    described: Mapping[str, tuple[tuple[str, ...], Tensor]]
    """Attribute -> (values, (C, d) unit embeddings: one a value, then perhaps "unreadable")."""
    margin: float
    """How far the best value's probability must lead the next one's, else unreadable."""
    batch: int

    @property
    def attributes(self) -> tuple[str, ...]:
        """What it has descriptions of."""
        return tuple(self.described)

    def read(self, images: Images, attributes: Sequence[str]) -> dict[str, Readings]:
        """Attribute -> readings; probabilities are the softmax of scaled cosine similarities."""
        check_asked(self.name, self.attributes, attributes, "describe its values in phrases")
        with torch.inference_mode():
            embed = partial(embed_pictures, self.model, self.processor)
            image_nd = torch.cat([embed(part) for part in parts(images, self.batch)])
            scale = self.model.logit_scale.exp()
            found = {}
            for attribute in attributes:
                values, text_kd = self.described[attribute]
                score_nk = (scale * image_nd @ text_kd.T).softmax(dim=1).cpu().numpy()
                found[attribute] = most_probable(values, score_nk, self.margin)
        return found


def parts(images: Images, batch: int) -> Iterator[list[NDArray[np.uint8]]]:
    """The pictures in batches."""
    for start in range(0, len(images), batch):
        yield [images[n] for n in range(start, min(start + batch, len(images)))]


def pooled(features: Any) -> Tensor:
    """(n, d) features of what transformers' get_*_features returns."""
    found: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return found


def unit(features_nd: Tensor) -> Tensor:
    """(n, d) vectors scaled to length 1."""
    scaled: Tensor = features_nd / features_nd.norm(dim=-1, keepdim=True)
    return scaled


def load_image_text(model: str, revision: str | None, device: torch.device) -> Any:
    """A model that compares pictures with words. Raises UserError when it is another kind."""
    loaded = load_model(AutoModel, model, revision, device)
    if not hasattr(loaded, "get_text_features") or not hasattr(loaded, "logit_scale"):
        raise UserError(
            f"{model} is a {type(loaded).__name__}, which does not compare pictures with words: "
            "give a CLIP or SigLIP"
        )
    return loaded


def embed_pictures(model: Any, processor: Any, images: Images) -> Tensor:
    """(n, d) unit embeddings of pictures."""
    inputs = processor(images=list(images), return_tensors="pt").to(model.device)
    return unit(pooled(model.get_image_features(**inputs)))


def embed_words(model: Any, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """(n, d) unit embeddings of texts; of long ones as much as the model hears."""
    # SigLIP was trained on texts padded to full length, padding read too, and reads others badly.
    padded = model.config.model_type.startswith("siglip")
    words = tokenizer(
        list(texts),
        padding="max_length" if padded else True,
        truncation=True,
        max_length=model.config.text_config.max_position_embeddings,
        return_attention_mask=not padded,
        return_token_type_ids=False,
        return_tensors="pt",
    ).to(model.device)
    with torch.inference_mode():
        return unit(pooled(model.get_text_features(**words)))


def load_zero_shot(
    model: str,
    revision: str | None,
    phrases: Mapping[str, Mapping[str, Sequence[str]]],
    templates: Sequence[str],
    values: Mapping[str, tuple[str, ...]],
    *,
    margin: float,
    batch: int,
    device: torch.device,
) -> ZeroShotClassifier:
    """A reader of the attributes in `phrases`: attribute -> value -> phrases.

    The key "unreadable" beside the values describes pictures that show none of them. `templates`
    hold `{x}` where a phrase goes. `values` gives each attribute's values in order. Raises
    UserError when the model is no image-text model.
    """
    name = f"zero-shot {pin(model, revision)}"
    loaded = load_image_text(model, revision, device)
    tokenizer = load_tokenizer(AutoTokenizer, model, revision)
    described = {}
    for attribute, by_value in phrases.items():
        order = (*values[attribute], *([UNREADABLE] if UNREADABLE in by_value else []))
        rows = []
        for value in order:
            texts = [t.replace("{x}", phrase) for t in templates for phrase in by_value[value]]
            text_nd = embed_words(loaded, tokenizer, texts)
            rows.append(unit(text_nd.mean(dim=0)))
        described[attribute] = (values[attribute], torch.stack(rows))
    processor = load_processor(AutoImageProcessor, model, revision)
    return ZeroShotClassifier(name, loaded, processor, described, margin, batch)

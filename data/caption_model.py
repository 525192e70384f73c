"""Captions by a model that looks: for pictures whose owner wrote none.

Any `AutoModelForImageTextToText` of transformers that writes on after a prompt (BLIP, GIT, LLaVA,
Idefics). What it writes is taken as the owner's words are: neutral captions lose what names a
value. It may be wrong about what it sees, and names a presentation or an age on its own account.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from unskew.data.caption_options import CaptionModelSettings
from unskew.data.rows import Row
from unskew.errors import UserError
from unskew.evaluate.classifiers.weights import load_model, load_processor, pin
from unskew.evaluate.pictures import PictureError, read_picture


def model_captions(
    rows: Sequence[Row], settings: CaptionModelSettings, device: torch.device
) -> Iterator[tuple[str, str]]:
    """(row name, caption) of every row that has no caption of its own, in their order.

    The likeliest words, so the same model gives the same captions. A picture of which it writes
    nothing has none. Raises UserError for a model that does not caption and a picture that cannot
    be read.
    """
    bare = [row for row in rows if not row.caption]
    if not bare:
        return
    pin(settings.model, settings.revision)
    model = load_model(AutoModelForImageTextToText, settings.model, settings.revision, device)
    processor = load_processor(AutoProcessor, settings.model, settings.revision)
    if getattr(processor, "tokenizer", None) is None:
        raise UserError(
            f"captions.model.model {settings.model} has no words: give a model that captions, such "
            "as Salesforce/blip-image-captioning-base"
        )
    for start in range(0, len(bare), settings.batch):
        part = bare[start : start + settings.batch]
        written = _written(model, processor, part, settings)
        for row, text in zip(part, written, strict=True):
            if text:
                yield row.name, text


def _written(
    model: Any, processor: Any, rows: Sequence[Row], settings: CaptionModelSettings
) -> list[str]:
    images = [Image.fromarray(_picture(row)) for row in rows]
    processor.tokenizer.padding_side = "left"  # what is written goes on at the right
    prompt = _prompt(processor, settings.prompt)
    given = {"text": [prompt] * len(rows)} if prompt else {}
    inputs = processor(images=images, padding=True, return_tensors="pt", **given).to(model.device)
    with torch.inference_mode():
        tokens = model.generate(
            **inputs, max_new_tokens=settings.most_tokens, do_sample=False, num_beams=1
        )
    begun = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    repeats = not getattr(model.config, "is_encoder_decoder", False)  # the prompt stands first
    texts = processor.tokenizer.batch_decode(
        tokens[:, begun:] if repeats else tokens, skip_special_tokens=True
    )
    return [" ".join(text.split()) for text in texts]


def _picture(row: Row) -> NDArray[np.uint8]:
    try:
        return read_picture(row.file)
    except PictureError as error:
        raise UserError(f"{row.name} cannot be captioned: {error}") from None


def _prompt(processor: Any, words: str) -> str:
    """The words that stand before the caption, with the picture's place where it needs one."""
    if getattr(processor, "chat_template", None):
        turn = [
            {"type": "image"},
            {"type": "text", "text": words or "Describe the picture briefly."},
        ]
        said: str = processor.apply_chat_template(
            [{"role": "user", "content": turn}], add_generation_prompt=True
        )
        return said
    return f"{getattr(processor, 'image_token', None) or ''}{words}"

"""Image models of real architectures with random weights, as folders that save_pretrained wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

WORDS = (
    "<pad> <unk> <s> </s> <image> a an the photo picture of close - up woman man person room "
    "nobody is this or in answer with one word Question Short : ? . cannot tell young old USER "
    "ASSISTANT"
).split()
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
EYES: dict[str, Any] = {**TOWER, "image_size": 32, "patch_size": 8}


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    words = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=["<image>"],
        model_max_length=16,
    )


def save_clip(folder: Path) -> Path:
    """CLIP that sees 32 px in patches of 8."""
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 3}
    config = CLIPConfig(text_config=text, vision_config=EYES, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    size = {"shortest_edge": 32}
    CLIPImageProcessorPil(size=size, crop_size=32).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def save_siglip(folder: Path) -> Path:
    """SigLIP that sees 32 px in patches of 8."""
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": len(WORDS), "max_position_embeddings": 16}
    config = SiglipConfig(text_config=text, vision_config=EYES)
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def save_vit(folder: Path, labels: list[str]) -> Path:
    """ViT with these labels."""
    torch.manual_seed(0)
    config = ViTConfig(
        **EYES,
        id2label=dict(enumerate(labels)),
        label2id={label: n for n, label in enumerate(labels)},
    )
    model = ViTForImageClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_dinov2(folder: Path) -> Path:
    """DINOv2, without labels or words."""
    torch.manual_seed(0)
    eyes = {name: size for name, size in EYES.items() if name != "intermediate_size"}
    model = Dinov2Model(Dinov2Config(**eyes))
    with torch.no_grad():
        for parameter in model.embeddings.parameters():
            parameter.mul_(20)  # so that pictures differ much
    model.save_pretrained(folder)
    size = {"shortest_edge": 32}
    crop = {"height": 32, "width": 32}
    BitImageProcessorPil(
        size=size, crop_size=crop, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    ).save_pretrained(folder)
    return folder


def save_llava(folder: Path, chat_template: str | None = None) -> Path:
    """LLaVA: CLIP's eyes, Llama's words."""
    torch.manual_seed(0)
    words = tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**EYES),
        text_config=LlamaConfig(**TOWER, num_key_value_heads=2, vocab_size=len(WORDS)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # so that answers differ much
    model.save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32),
        tokenizer=words,
        patch_size=8,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    ).save_pretrained(folder)
    return folder

"""Visual question answering with a closed list of answers.

A model that reads pictures and words (any `AutoModelForImageTextToText` of transformers) is asked a
question, and each allowed answer gets the probability that the model would write it next: it cannot
answer anything else, ramble, or refuse. Occupations leak into such answers (a nurse is "a woman"
before the picture is looked at), so ask of the face alone where the attribute is a person's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from unskew.errors import UserError
from unskew.evaluate.classifiers.reading import Images, Readings, check_asked, most_probable
from unskew.evaluate.classifiers.weights import load_model, load_processor, pin
from unskew.evaluate.classifiers.zero_shot import UNREADABLE, parts

Tokens = tuple[int, ...]
TWO_WAY = ("paligemma",)


@dataclass(frozen=True)
class Question:
    """One question and what may be answered."""

    text: str
    values: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    """The answers that mean each value, then perhaps those that mean "unreadable"."""


@dataclass(frozen=True)
class QuestionClassifier:
    """Reads the attributes that it has a question for."""

    name: str
    model: Any
    processor: Any
    """Prepares pictures and words together."""
    questions: Mapping[str, Question]
    template: str
    """Of the prompt, with {question}, for models without a chat template of their own."""
    margin: float
    """How far the best value's probability must lead the next one's, else unreadable."""
    batch: int

    @property
    def attributes(self) -> tuple[str, ...]:
        """What it has a question for."""
        return tuple(self.questions)

    def read(self, images: Images, attributes: Sequence[str]) -> dict[str, Readings]:
        """Attribute -> readings; a value's probability is that of its answers among all allowed."""
        check_asked(self.name, self.attributes, attributes, "give it a question and answers")
        found = {}
        for attribute in attributes:
            question = self.questions[attribute]
            score_nk = np.concatenate(
                [self._answered(part, question) for part in parts(images, self.batch)]
            )
            found[attribute] = most_probable(question.values, score_nk, self.margin)
        return found

    def _answered(self, images: Images, question: Question) -> NDArray[np.float32]:
        """(n, C) probability of each value's answers, among all that are allowed."""
        prompt = self.prompt(question.text)
        space = "" if prompt[-1:].isspace() else " "
        flat = [answer for answers in question.answers for answer in answers]
        tokens = [self._tokens(space + answer) for answer in flat]
        log_na = self._log_likelihoods(images, prompt, tokens)
        owner = torch.tensor([k for k, a in enumerate(question.answers) for _ in a])
        log_nk = torch.stack(
            [log_na[:, owner == k].logsumexp(dim=1) for k in range(len(question.answers))], dim=1
        )
        return np.asarray(log_nk.softmax(dim=1).numpy(), dtype=np.float32)

    def prompt(self, question: str) -> str:
        """The words that stand before the answer, with the place of the picture."""
        if getattr(self.processor, "chat_template", None):
            turn = [{"type": "image"}, {"type": "text", "text": question}]
            words: str = self.processor.apply_chat_template(
                [{"role": "user", "content": turn}], add_generation_prompt=True
            )
            return words
        image = getattr(self.processor, "image_token", None) or ""
        return f"{image}{self.template.replace('{question}', question)}"

    def _tokens(self, answer: str) -> Tokens:
        return tuple(self.processor.tokenizer(answer, add_special_tokens=False)["input_ids"])

    def _log_likelihoods(self, images: Images, prompt: str, answers: Sequence[Tokens]) -> Tensor:
        """(n, A) log probability of each answer after the prompt and the picture."""
        inputs = self.processor(
            images=[Image.fromarray(image) for image in images],
            text=[prompt] * len(images),
            padding=True,
            return_tensors="pt",
        )
        # Answers that differ in their last token only share a pass: one word each is one pass.
        after: dict[Tokens, Tensor] = {}
        log_na = torch.zeros(len(images), len(answers))
        for a, answer in enumerate(answers):
            if answer[:-1] not in after:
                after[answer[:-1]] = self._log_after(inputs, answer[:-1])
            log_ntv = after[answer[:-1]]
            for t, token in enumerate(answer):
                log_na[:, a] += log_ntv[:, t, token]
        return log_na

    def _log_after(self, inputs: Any, begun: Tokens) -> Tensor:
        """(n, 1 + len(begun), vocabulary) log probabilities at the answer's places."""
        kept = [row.bool() for row in inputs["attention_mask"]]
        given = {key: value for key, value in inputs.items() if key != "attention_mask"}
        for key, value in inputs.items():
            if value.shape == inputs["attention_mask"].shape:
                added = torch.tensor(
                    begun if key == "input_ids" else [int(key == "attention_mask")] * len(begun),
                    dtype=value.dtype,
                )
                # Padding goes to the right, where causal attention never looks.
                rows = [torch.cat([row[k], added]) for row, k in zip(value, kept, strict=True)]
                given[key] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        device = self.model.device
        with torch.inference_mode():
            logits = self.model(**{key: value.to(device) for key, value in given.items()}).logits
        ends = [int(k.sum()) + len(begun) for k in kept]
        wide = logits.shape[1] - given["input_ids"].shape[1]  # some prepend the picture's states
        at = [slice(wide + end - len(begun) - 1, wide + end) for end in ends]
        places = torch.stack([row[place] for row, place in zip(logits, at, strict=True)])
        return places.float().log_softmax(dim=-1).cpu()


def load_question(
    model: str,
    revision: str | None,
    questions: Mapping[str, str],
    answers: Mapping[str, Mapping[str, Sequence[str]]],
    values: Mapping[str, tuple[str, ...]],
    *,
    template: str,
    margin: float,
    batch: int,
    device: torch.device,
) -> QuestionClassifier:
    """A reader of the attributes in `questions`; `answers` has attribute -> value -> answers.

    The key "unreadable" beside the values has answers such as "cannot tell". Raises UserError when
    the model does not read pictures and words, or does not go on with the prompt.
    """
    name = f"question {pin(model, revision)}"
    loaded = load_model(AutoModelForImageTextToText, model, revision, device)
    # PaliGemma reads prompt and answer in both directions, so a word would be seen beforehand.
    if getattr(loaded.config, "is_encoder_decoder", False) or loaded.config.model_type in TWO_WAY:
        raise UserError(
            f"{model} ({loaded.config.model_type}) does not write its answer word after word on "
            "the prompt, which is not supported: give a model that does, such as LLaVA or Idefics"
        )
    asked = {}
    for attribute, text in questions.items():
        by_value = answers[attribute]
        order = (*values[attribute], *([UNREADABLE] if UNREADABLE in by_value else []))
        allowed = tuple(tuple(by_value[value]) for value in order)
        asked[attribute] = Question(text, values[attribute], allowed)
    processor = load_processor(AutoProcessor, model, revision)
    return QuestionClassifier(name, loaded, processor, asked, template, margin, batch)

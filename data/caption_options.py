"""How a dataset is captioned: the settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unskew.settings import Settings


class CaptionModelSettings(Settings):
    """A transformers image-text model that captions what has no caption of its own."""

    model: str
    """Folder or hub name of an `AutoModelForImageTextToText`, such as a BLIP or LLaVA."""
    revision: str | None = None
    """Of a model on the hub its commit, 40 hexadecimal digits; null for a folder."""
    prompt: str = ""
    """What stands before the caption that it writes; empty for models that only caption."""
    most_tokens: Annotated[int, Field(ge=1)] = 40
    """The longest caption, in the model's tokens."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Pictures that are captioned at once."""


class CaptionSettings(Settings):
    """Neutral captions, and explicit ones that name the picture's values."""

    source: Literal["templates", "own", "model"] = "templates"
    """templates: written from the lists below. own: the user's, with the words that name a value
    taken out of the neutral ones; templates for pictures without one. model: as own, and a model
    captions pictures without one."""
    language: str = "en"
    """The word list, a file of configs/words/."""
    templates: tuple[str, ...] = ()
    """Captions with {x} for "a mechanic"; none takes the word list's."""
    count: Annotated[int, Field(ge=1)] = 1
    """Templates that each picture is captioned in; each gives a neutral and an explicit caption."""
    phrases: dict[str, str] = {}
    """Subject -> what captions call it: "a truck driver", "two nurses", "Swedish meatballs". A
    subject that is not here is called by its name."""
    say: dict[str, dict[str, str]] = {}
    """Attribute -> value -> how a caption names it, where the word list does not know or should not
    decide: "smiling {x}", "{x} with glasses"."""
    model: CaptionModelSettings | None = None
    """Needed where source is model."""

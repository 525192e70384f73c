"""Screening: which pictures are fit to train on, and for every other one the reason."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unskew.data.looking import Look
from unskew.settings import Settings


class ScreenSettings(Settings):
    """What a picture must be to be kept. Nothing is changed or deleted: it is only left out."""

    least_side_px: Annotated[int, Field(ge=1)] = 256
    """The shorter side, turned upright, must have at least this many pixels."""
    most_aspect: Annotated[float, Field(ge=1)] = 3.0
    """The longer side over the shorter one may be at most this."""
    least_contrast: Annotated[float, Field(ge=0, le=127)] = 3.0
    """Standard deviation of the channel that varies most, in levels of 255; less is blank. 0 takes
    any."""
    least_sharpness: Annotated[float, Field(ge=0)] = 10.0
    """Variance of the Laplacian at 512 px; less is blurred. 0 takes any."""
    animated: Literal["first_frame", "reject"] = "first_frame"
    """What becomes of files with several frames."""
    faces: Literal["any", "none", "one"] = "any"
    """How many faces a picture must show; any does not look (else needs the extra `[faces]`)."""
    near_duplicates: bool = True
    """Whether pictures that look the same count as duplicates, not only the same bytes."""
    near_bits: Annotated[int, Field(ge=0, le=15)] = 4
    """Bits of 64 in which the hashes of two pictures that look the same may differ."""
    near_levels: Annotated[int, Field(ge=0, le=255)] = 12
    """Levels of 255 by which their colours may differ in any of 4 x 4 fields."""


def reason_against(look: Look, settings: ScreenSettings) -> str | None:
    """Why a picture is left out by itself, in words for its owner; None where it is kept.

    The first that applies, in the order of the settings.
    """
    if look.problem is not None:
        return look.problem
    short, long = sorted((look.width_px, look.height_px))
    if short < settings.least_side_px:
        return f"too small: {_size(look)} px, the shorter side under {settings.least_side_px}"
    if long > settings.most_aspect * short:
        return f"too long: {_size(look)} px, more than {settings.most_aspect:g} : 1"
    if look.contrast < settings.least_contrast:
        return f"blank: contrast {look.contrast:.1f}, under {settings.least_contrast:g}"
    if look.sharpness < settings.least_sharpness:
        return f"blurred: sharpness {look.sharpness:.1f}, under {settings.least_sharpness:g}"
    if look.animated and settings.animated == "reject":
        return "animated: has several frames"
    if settings.faces != "any" and look.faces is not None:
        return _against_faces(look.faces, settings.faces)
    return None


def kind_of(reason: str) -> str:
    """What a reason is counted under: its words before the colon or bracket."""
    return reason.partition(":")[0].partition(" (")[0]


def _against_faces(found: int, wanted: Literal["none", "one"]) -> str | None:
    if wanted == "none":
        return f"faces: shows {found}, none is wanted" if found else None
    return None if found == 1 else f"faces: shows {found or 'none'}, one is wanted"


def _size(look: Look) -> str:
    return f"{look.width_px} x {look.height_px}"

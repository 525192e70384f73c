"""What a dataset is balanced to, and by which means: the settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unskew.settings import Settings

By = Literal["choosing", "weights", "synthesis"]


class BalanceSettings(Settings):
    """The wanted shares, and how they are reached."""

    attributes: tuple[str, ...] = ()
    """The attributes to balance, together: each combination of their values is a cell, and its
    wanted share is the product of its values'. Each has a file in configs/attributes/. With none
    every picture is taken as it is."""
    targets: dict[str, dict[str, float]] = {}
    """Attribute -> value -> wanted share, where it differs from the attribute's own target."""
    subject_targets: dict[str, dict[str, dict[str, float]]] = {}
    """Subject -> attribute -> value -> wanted share, where one subject's differs from that."""
    by: By = "choosing"
    """choosing: of the pictures that are there, each as it is. weights: all of them, the rare ones
    counting more. synthesis: choosing, and the base draws what is missing."""
    pictures_per_subject: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Pictures of each subject, counted with repeats, where they are chosen. auto: the most that
    show the target, or for synthesis the fewest that use every picture; a number: exactly that."""
    most_repeats: Annotated[int, Field(ge=1)] = 1
    """The most times that one picture may stand in the dataset; 1: none is ever repeated."""
    leave_out: tuple[str, ...] = ()
    """Subjects that are not wanted in the dataset."""

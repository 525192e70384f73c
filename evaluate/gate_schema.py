"""What a gate asks for, and what it answers: part of a study's settings and of `results.json`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unskew.evaluate.schema_model import Interval, Model

Rate = Annotated[float, Field(ge=0, le=1)]
Signed = Annotated[float, Field(ge=-1, le=1)]
REPRESENTATION = (
    "improved",
    "imbalance_change_at_most",
    "imbalance_at_most",
    "overshoot_rate_at_most",
    "unreadable_rate_at_most",
)
"""The limits that speak of an attribute on a neutral suite."""


ANY_ARM = "any arm"
"""The arm of a reason that no arm can be named for: what was limited was measured in none."""


class Limits(Model):
    """What one comparison must show in every treated arm.

    A limit holds when the whole 95 % interval keeps it: the unfavourable end is what is judged.
    """

    improved: bool = False
    """The verdict must be improved. On an attribute of a neutral suite."""
    imbalance_change_at_most: Signed | None = None
    """Imbalance treated - baseline, on a neutral suite; -0.1 asks for a fall of .1 at least."""
    imbalance_at_most: Signed | None = None
    """Imbalance of the treated arm on a neutral suite; of the one arm in an audit."""
    overshoot_rate_at_most: Rate | None = None
    """Share of a neutral suite's prompts that crossed the target and left it. Sampling alone makes
    some: see overshoot_by_chance in the results before setting it."""
    unreadable_rate_at_most: Rate | None = None
    """Share of unreadable pictures in the treated arm, on a neutral suite."""
    fidelity_loss_at_most: Rate | None = None
    """Loss of the share of pictures that show what is asked for (attribute `subject`: the right
    thing); takes the place of the margin."""
    drift_at_most: Annotated[float, Field(ge=0)] | None = None
    """Excess drift of a control suite, "drift@suite"; takes the place of the margin."""

    @property
    def asked(self) -> dict[str, float | bool]:
        """Name -> limit of those that are set."""
        return {k: v for k, v in self.model_dump().items() if v is not None and v is not False}


class GateSettings(Model):
    """What must hold for exit code 0."""

    comparisons: dict[str, Limits] = {}
    """ "attribute@suite" or "drift@suite" -> its limits. Empty is no gate."""
    everything_kept: bool = True
    """Every fidelity and drift row that has no limit of its own must be kept, no pictures may have
    collapsed, and agreement with prompts must be kept where a margin is set for it."""
    inconclusive: Literal["fail", "pass"] = "fail"
    """What an interval on both sides of a limit, or an inconclusive verdict, counts as."""

    @property
    def asks(self) -> bool:
        """Whether there is a gate at all."""
        return bool(self.comparisons)


class GateReason(Model):
    """One thing that the gate asked for, and what was found."""

    comparison: str
    """ "attribute@suite", "drift@suite", "quality@suite" or "agreement@suite"."""
    arm: str
    what: str
    """The limit's name, "improved", "kept", or "no_collapse"."""
    limit: float | str
    """The number, or the verdict that was due."""
    found: float | str | None
    """The estimate, or the verdict; null where nothing was measured."""
    ci95: Interval | None
    passed: bool
    inconclusive: bool
    """Neither shown to hold nor to be broken; `passed` is then what the settings say."""
    said: str
    """The same as a sentence."""


class Gate(Model):
    """Whether what the settings ask holds; `passed` is null when they ask nothing."""

    passed: bool | None
    reasons: tuple[GateReason, ...]
    """Everything that was asked for, what failed first."""

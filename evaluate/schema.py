"""What `results.json` says: its rows, its settings and its gate, as frozen models.

The file is read by gates, cards, reports and other tools. `evaluate/results.py` fills it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from unskew.errors import UserError
from unskew.evaluate.gate_schema import Gate as Gate
from unskew.evaluate.gate_schema import GateSettings
from unskew.evaluate.schema_correction import Corrected as Corrected
from unskew.evaluate.schema_model import Inference as Inference
from unskew.evaluate.schema_model import Interval as Interval
from unskew.evaluate.schema_model import Margins as Margins
from unskew.evaluate.schema_model import Model as Model
from unskew.evaluate.schema_model import Preserved as Preserved
from unskew.evaluate.schema_model import Verdict as Verdict
from unskew.evaluate.schema_quality import KernelDistance, QualityRow
from unskew.prompts import Role as Role

SCHEMA_VERSION: Literal[1] = 1


class Needed(Model):
    """Roughly how many would settle an inconclusive row, were its estimate the truth.

    In a representation row with 80 % probability; elsewhere by scaling the standard error.
    """

    unit: Literal["prompts", "subjects", "seeds"]
    count: int
    seeds: int | None = None
    """Of a representation row: seeds a prompt that would do the same without further prompts. Null
    where no number would, because the prompts themselves differ too much."""


class PromptArm(Model):
    """One prompt in one arm."""

    n_readable: int
    shares: dict[str, float]
    """Value -> share of the readable pictures; empty when none is readable."""
    imbalance: float | None
    """Null with fewer than two readable pictures."""


class PromptRow(Model):
    """One prompt of a representation row."""

    prompt_id: str
    text: str
    subject: str
    target: dict[str, float]
    baseline: PromptArm
    treated: PromptArm | None
    change: float | None
    """Imbalance treated - baseline; below 0 is better."""
    p_value: float | None
    """Arm-swap permutation test over the seeds of this prompt."""
    p_adjusted: float | None
    """Benjamini-Hochberg over the prompts of this row."""
    overshoot: bool | None


class ArmRepresentation(Model):
    """What one arm shows over a suite: means over prompts (or over subjects)."""

    shares: dict[str, float]
    shares_ci95: dict[str, Interval]
    imbalance: float
    """0 = on target, 1 = as far as possible; may be slightly negative in a sample."""
    imbalance_ci95: Interval
    gap: float
    """sqrt(max(imbalance, 0)): the unsquared figure that is usually published."""
    unreadable_rate: float
    unreadable_ci95: Interval


class UnreadableChange(Model):
    """Treated - baseline, paired; above 0 more pictures cannot be read."""

    value: float
    ci95: Interval


class Change(Model):
    """Treated - baseline, paired; below 0 is better."""

    imbalance: float
    ci95: Interval
    p_value: float
    p_adjusted: float | None
    """Holm over the declared primaries; null for a row that is not primary."""
    relative_reduction: float | None
    """1 - treated / baseline of the suite means (1 = all skew gone); null when the baseline's
    imbalance is under .05."""
    overshoot_rate: float
    """Share of prompts that crossed the target and left it by more than the margin."""
    overshoot_by_chance: float
    """The overshoot rate that arms exactly on target would show with as many pictures."""
    worst_case: Interval
    """Where the change could lie had every unreadable picture been read; no sampling error."""
    unreadable_rate: UnreadableChange | None = None
    """Change of the share of pictures that could not be read, over all prompts."""


class Transitions(Model):
    """Which value became which: the same cell in both arms, over all prompts. A description."""

    counts: dict[str, dict[str, int]]
    """Baseline's value -> treated arm's value -> cells."""
    became_unreadable: dict[str, int]
    """Baseline's value -> cells that the treated arm could not read."""
    became_readable: dict[str, int]
    """Treated arm's value -> cells that only it could read."""
    unread: int
    """Cells that neither could read."""
    stuart_maxwell_p: float | None
    """p-value of equal frequencies in both arms, pooled: it ignores that pictures of one prompt
    belong together. Null where nothing changed."""


class RepresentationRow(Model):
    """How one attribute is shown over one neutral suite. An audit has no treated, no change."""

    attribute: str
    suite: str
    arm: str
    against: str | None
    inference: Inference
    primary: bool
    n_prompts: int
    """Prompts in the estimate; those left out are in `left_out`."""
    n_clusters: int
    """Subjects behind them, where subjects have several prompts; else the prompts."""
    n_seeds: int
    target: dict[str, float]
    """Mean over prompts, should prompts override the attribute's target."""
    baseline: ArmRepresentation
    treated: ArmRepresentation | None
    change: Change | None
    corrected: Corrected | None = None
    """Corrected for the classifier's error; null while the run holds no labels."""
    transitions: Transitions | None = None
    """Null in an audit."""
    per_prompt: tuple[PromptRow, ...]
    left_out: tuple[str, ...]
    """Prompts with too few readable pictures in an arm; they are in `worst_case` only."""
    verdict: Verdict | None
    needed: Needed | None
    notes: tuple[str, ...]


class RateChange(Model):
    """Treated - baseline; below 0 is worse."""

    value: float
    ci95: Interval


class ValueRates(Model):
    """Rates among the prompts that ask for one value."""

    n_prompts: int
    baseline_rate: float
    treated_rate: float | None


class FidelityRow(Model):
    """How often the pictures show what the words ask for. An unreadable picture counts as not."""

    attribute: str
    """`subject` asks for the right thing shown."""
    suite: str
    arm: str
    against: str | None
    inference: Inference
    n_prompts: int
    n_clusters: int
    n_seeds: int
    baseline_rate: float
    baseline_ci95: Interval
    treated_rate: float | None
    treated_ci95: Interval | None
    change: RateChange | None
    by_value: dict[str, ValueRates]
    margin: float
    verdict: Preserved | None
    needed: Needed | None
    notes: tuple[str, ...]


class DriftRow(Model):
    """How far the pictures of control prompts moved, beyond what other seeds would do."""

    suite: str
    arm: str
    against: str
    inference: Inference
    n_prompts: int
    n_clusters: int
    n_seeds: int
    metric: str
    excess: float
    """0 = no drift, 1 = as far as another control prompt; may be slightly negative."""
    ci95: Interval
    margin: float
    verdict: Preserved
    needed: Needed | None
    kernel: KernelDistance | None = None
    """Beside it, without a verdict: null where it does not tell the prompts apart."""


class Unmeasured(Model):
    """A representation row that is not there: too few of the arm's pictures could be read."""

    attribute: str
    suite: str
    arm: str
    why: str
    """In words, with the numbers."""


class Counts(Model):
    """Pictures: planned, generated, and generated with none of their readings unreadable."""

    planned: int
    generated: int
    readable: int


class ArmSummary(Model):
    """One thing under test."""

    role: Literal["baseline", "treated"]
    counts: Counts
    facts: dict[str, Any]
    """What the study knows of it, such as the adapter's sha256 and weight."""


class AttributeSettings(Model):
    """An attribute as it was measured."""

    title: str
    values: tuple[str, ...]
    target: dict[str, float]
    caveat: str
    classifiers: tuple[str, ...]
    folded_from: str | None = None
    """The finer attribute that was read, where the values are groups of its values."""
    intersection_of: tuple[str, ...] = ()
    """The attributes whose readings were combined; empty for one that was read itself."""


class SuiteSettings(Model):
    """A suite as it was measured."""

    role: Role
    n_prompts: int
    n_seeds: int
    fixed: bool


class ResultSettings(Model):
    """What was decided before the pictures were looked at."""

    attributes: dict[str, AttributeSettings]
    suites: dict[str, SuiteSettings]
    primaries: tuple[tuple[str, str], ...]
    """(attribute, suite) pairs whose claims are guarded by Holm."""
    margins: Margins
    resampling_seed: int
    gate: GateSettings
    study: dict[str, Any]
    """The study's own settings, as resolved."""


class Results(Model):
    """The whole of `results.json`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    status: Literal["complete", "incomplete"]
    """`incomplete` when pictures that were planned have no readings."""
    baseline: str
    arms: dict[str, ArmSummary]
    settings: ResultSettings
    counts: Counts
    representation: tuple[RepresentationRow, ...]
    unmeasured: tuple[Unmeasured, ...] = ()
    """Rows that `representation` lacks; never a primary one, or one that the gate names."""
    fidelity: tuple[FidelityRow, ...]
    drift: tuple[DriftRow, ...]
    quality: tuple[QualityRow, ...] = ()
    """Empty where the pictures themselves were not looked at."""
    gate: Gate


def load_results(path: Path) -> Results:
    """Read a `results.json`. Raises UserError when it is missing or is not one of ours."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: run the study first, or give its run folder")
    try:
        return Results.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(
            f"{path} is not a results.json of schema version {SCHEMA_VERSION}: {where}: "
            f"{first['msg']} ({error.error_count()} problems); run the study again"
        ) from None

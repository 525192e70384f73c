"""What `comparison.json` says: the leaderboard, every pair, the recommendation, as frozen models.

It stands beside `results.json`, which has every arm against the baseline in full.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from unskew.errors import UserError
from unskew.evaluate.schema_model import Inference, Interval, Model, Preserved, Verdict
from unskew.runs import write_json_atomic

FILE = "comparison.json"
VERSION: Literal[2] = 2


class Ranking(Model):
    """What the leaderboard is decided on."""

    suite: str
    attributes: tuple[str, ...]
    """Each counts the same; a prompt's imbalance is their mean."""
    inference: Inference
    n_prompts: int
    n_clusters: int
    n_seeds: int
    left_out: tuple[str, ...]
    """Prompts with too few readable pictures in an arm: they count for none."""
    margin: float
    """A difference whose interval lies within +- this is too small to matter."""


class Weakest(Model):
    """Of an arm's rows of one kind, the one that comes nearest to being lost."""

    name: str
    """"presentation@explicit", "drift@control"."""
    value: float
    """Of fidelity the change of the rate, below 0 is worse; of drift the excess, above 0 is
    worse."""
    ci95: Interval
    margin: float
    verdict: Preserved
    """Over all rows of the kind: lost where any is, kept where all are."""
    n_rows: int


class Place(Model):
    """An arm's line of the leaderboard."""

    arm: str
    title: str
    ranks: tuple[int, int]
    """The best and the worst that the settled pairs leave open, as `ranks_of` finds them."""
    ties: tuple[str, ...]
    """Arms from which it is not settled to differ: neither can be said to be the better one."""
    alike: tuple[str, ...]
    """Of `ties`, those whose difference is settled to be within the margin."""
    imbalance: float
    """On the ranking's suite and attributes; 0 = on target, 1 = as far as possible."""
    ci95: Interval
    fidelity: Weakest | None
    """Null for the baseline, and where nothing was asked for."""
    drift: Weakest | None
    """Null for the baseline, and without control prompts."""
    overshoot: tuple[str, ...]
    """"attribute@suite" where more prompts crossed their target than chance makes."""
    flags: tuple[str, ...]
    """What has collapsed in its pictures, in sentences."""
    front: bool | None
    """Whether no other arm has at most its imbalance and its drift, by their estimates. Null where
    drift was not measured."""

    @property
    def ranks_told(self) -> str:
        """The ranks that are left to it, "1 to 4", or the one."""
        best, worst = self.ranks
        return str(best) if best == worst else f"{best} to {worst}"


class PairRow(Model):
    """One arm against another on the same cells: arm - against, below 0 is nearer to the target."""

    suite: str
    attributes: tuple[str, ...]
    arm: str
    against: str
    difference: float
    ci95: Interval
    p_value: float
    p_adjusted: float
    """Holm over all pairs of this suite and these attributes."""
    verdict: Verdict


class Point(Model):
    """One weight of a sweep."""

    weight: float
    arm: str


class Recommendation(Model):
    """Which arm to take, by the rules of `recommendation.py`."""

    arm: str | None
    """Null where no arm can be recommended."""
    proven: bool
    """Whether all that should stay is settled to have stayed."""
    sentence: str
    reasons: tuple[str, ...]
    """Why, and why not the others; a sentence each."""


class Condition(Model):
    """One condition of robustness, a study of its own beside this one."""

    name: str
    title: str
    """"with sampler euler", "beside style at 0.7"."""
    folder: str
    """Its run folder, relative to this one's."""
    baseline: float
    treated: float
    """Imbalance on the ranking's suite and attributes, there."""
    change: float
    ci95: Interval
    verdict: Verdict
    less: float | None
    """How much of the effect is lost: change there - change here, above 0 is less effect."""
    less_ci95: Interval | None
    survives: Literal["yes", "no", "not settled"]
    """yes: improved there too. no: its interval leaves no improvement beyond the margin."""


class Robustness(Model):
    """Does the effect of an arm survive elsewhere?"""

    arm: str
    change: float
    """Of that arm here."""
    ci95: Interval
    conditions: tuple[Condition, ...]


class Strength(Model):
    """How an arm fares in blind choices."""

    arm: str
    n_pairs: int
    won: float
    """Pairs, a tie counts as a half for each."""
    strength: float
    """Log odds of being chosen over the baseline (Bradley & Terry 1952); the baseline's is 0."""
    ci95: Interval | None
    """Null for the baseline."""


class BlindResult(Model):
    """What people chose who did not know which arm was which."""

    question: Literal["better", "asked"]
    raters: dict[str, int]
    """Name -> choices."""
    n_pairs: int
    """Pairs of pictures that somebody judged; each counts once, whoever judged it."""
    n_ties: int
    method: str
    strengths: tuple[Strength, ...]
    p_value: float | None
    """Of two arms: exact sign test. Of more: that all are chosen alike."""
    preferred: str | None
    """The arm that is settled to be chosen more often than the baseline or, of two, the other;
    null where none is."""


class Comparison(Model):
    """The whole of `comparison.json`."""

    schema_version: Literal[2] = VERSION
    baseline: str
    ranking: Ranking
    leaderboard: tuple[Place, ...]
    """By imbalance."""
    pairs: tuple[PairRow, ...]
    """First those that decide the leaderboard."""
    sweeps: dict[str, tuple[Point, ...]]
    recommendation: Recommendation
    robustness: Robustness | None = None
    blind: tuple[BlindResult, ...] = ()

    def title(self, arm: str) -> str:
        """How an arm is called."""
        return next((place.title for place in self.leaderboard if place.arm == arm), arm)

    @property
    def deciding(self) -> tuple[PairRow, ...]:
        """The pairs that decide the leaderboard."""
        ranking = (self.ranking.suite, self.ranking.attributes)
        return tuple(row for row in self.pairs if (row.suite, row.attributes) == ranking)


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write a run's `comparison.json` whole or not at all; its path."""
    write_json_atomic(folder / FILE, comparison.model_dump(mode="json"))
    return folder / FILE


def load_comparison(folder: Path) -> Comparison:
    """Read a run's `comparison.json`. Raises UserError when it is missing or not one of ours."""
    file = folder / FILE
    if not file.is_file():
        raise UserError(f"{file} does not exist: run `unskew compare` first, or give its folder")
    try:
        return Comparison.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(
            f"{file} is not a comparison.json of schema version {VERSION}: {where}: "
            f"{first['msg']} ({error.error_count()} problems); run the comparison again"
        ) from None

"""What `results.json` says of the pictures themselves: whether they are still pictures, and whose.

Beside fidelity and drift: nothing here reads an attribute.
"""

from __future__ import annotations

from unskew.evaluate.schema_model import Inference, Interval, Model, Preserved


class KernelDistance(Model):
    """A drift row's second opinion: the same pictures and features, another distance."""

    metric: str
    excess: float
    """0 = no drift, 1 = as far as another control prompt; may be slightly negative."""
    ci95: Interval


class Tone(Model):
    """One figure of a picture, such as its sharpness, over a suite: means over prompts."""

    baseline: float
    treated: float | None
    ratio: float | None
    """Treated / baseline, the geometric mean over pairs of pictures; 1 = as before. Null in an
    audit, and where too few pairs are there; of sharpness only pairs of one size count."""
    ci95: Interval | None
    """Of the ratio."""


class PictureRates(Model):
    """Share of an arm's pictures of a suite."""

    baseline: float
    treated: float | None


class PairIdentity(Model):
    """How much of the picture stayed, the same prompt from the same noise."""

    value: float
    """1 = the same picture, 0 = as unlike as the baseline's own other seeds; below 0 even less."""
    ci95: Interval
    same_noise: float
    """Structural similarity (SSIM) of the arms' pictures of a cell, at most 1."""
    other_noise: float
    """That of the baseline's pictures of a prompt from different seeds: the 0 of `value`."""


class Agreement(Model):
    """Cosine between picture and prompt in the space of an image-text model. A description.

    Higher is nearer. Models differ in what is high: compare arms, never figures of two models.
    """

    model: str
    baseline: float
    treated: float | None
    change: float | None
    """Treated - baseline, paired; below 0 is worse."""
    ci95: Interval | None
    margin: float | None
    """Largest loss that was allowed before the study; null where none was."""
    verdict: Preserved | None
    """Null without a margin."""


class QualityRow(Model):
    """The pictures of one suite in one arm. An audit's rows have the baseline only."""

    suite: str
    arm: str
    against: str | None
    inference: Inference
    n_prompts: int
    n_clusters: int
    n_seeds: int
    tones: dict[str, Tone]
    """`sharpness` (variance of the Laplacian, squared grey levels of 255), `contrast` (standard
    deviation of the luma, grey levels), `colourfulness` (Hasler & Suesstrunk 2003; 0 = grey)."""
    repeated: PictureRates
    """Pictures that another seed of the same prompt shows too, pixel by pixel."""
    blank: PictureRates
    """Pictures of one colour, or nearly."""
    identity: PairIdentity | None
    """On neutral and control suites of a comparison."""
    agreement: Agreement | None
    """Where a model for it is given."""
    flags: tuple[str, ...]
    """What has collapsed, in sentences; empty where nothing has. Always empty in an audit."""

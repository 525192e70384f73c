"""The header of a model card, by which the hub sorts, shows and links it: typed, checked offline.

The rules are the hub's own as far as they can be known without it (its documentation of model
cards, and the model-index of huggingface_hub's EvalResult).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from pydantic import ConfigDict, Field, StringConstraints, ValidationError, field_validator

from unskew.evaluate.schema import Results
from unskew.evaluate.schema_model import Interval, Model
from unskew.scripts.bundle_schema import Facts, InBundle
from unskew.scripts.licences import KNOWN

Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
TAGS = ("lora", "template:sd-lora", "diffusers", "text-to-image", "unskew", "bias-mitigation")
FAMILIES = {"sd": "stable-diffusion", "sdxl": "stable-diffusion-xl"}
TASK = "text-to-image"
DIGITS = 4
"""Of figures in the header; all digits are in results.json."""


class Output(Model):
    """Where a picture of the gallery is."""

    url: InBundle


class GalleryPicture(Model):
    """A picture of the gallery, under its prompt."""

    text: Text
    output: Output


class Task(Model):
    """What was asked of the model."""

    type: Literal["text-to-image"]
    name: Text | None = None


class Prompts(Model):
    """What it was asked of: a suite of prompts."""

    type: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")]
    name: Text
    config: Text | None = None


class Metric(Model):
    """One figure."""

    type: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
    name: Text
    value: float
    args: dict[str, Any] = {}


class IndexedResult(Model):
    """The figures of one suite."""

    task: Task
    dataset: Prompts
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1)]


class Indexed(Model):
    """The figures of one model."""

    name: Text
    results: tuple[IndexedResult, ...]


class CardMetadata(Model):
    """The header of an adapter's card."""

    model_config = ConfigDict(populate_by_name=True)

    license: Text
    license_name: Text | None = None
    license_link: Text | None = None
    base_model: Annotated[str, StringConstraints(pattern=r"^[\w.-]+(/[\w.-]+)?$")]
    base_model_relation: Literal["adapter"]
    library_name: Literal["diffusers"]
    pipeline_tag: Literal["text-to-image"]
    tags: tuple[Text, ...]
    datasets: tuple[Text, ...] = ()
    widget: tuple[GalleryPicture, ...] = ()
    model_index: Annotated[tuple[Indexed, ...], Field(alias="model-index")] = ()

    @field_validator("license")
    @classmethod
    def _known(cls, license: str) -> str:
        if license not in KNOWN:
            raise ValueError("must be a licence by the hub's id")
        return license

    @field_validator("tags")
    @classmethod
    def _tagged(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        missing = [tag for tag in ("lora", "template:sd-lora") if tag not in tags]
        if missing or len(set(tags)) < len(tags):
            raise ValueError(f"must hold each tag once, and {', '.join(missing) or 'these'} too")
        return tags


def card_data(facts: Facts, results: Results | None) -> ModelCardData:
    """The header as huggingface_hub has it, which writes it."""
    on_hub = facts.dataset.link if facts.dataset.link and "://" not in facts.dataset.link else None
    figures = eval_results(results) if results else []
    return ModelCardData(
        license=facts.license,
        license_name=facts.license_name,
        license_link=facts.license_link,
        base_model=facts.base.name,
        base_model_relation="adapter",
        library_name="diffusers",
        pipeline_tag=TASK,
        tags=[*TAGS, FAMILIES[facts.base.family]],
        datasets=[on_hub] if on_hub else None,
        widget=[{"text": w.text, "output": {"url": w.file}} for w in facts.widgets] or None,
        model_name=facts.name if figures else None,
        eval_results=figures or None,
    )


def eval_results(results: Results) -> list[EvalResult]:
    """The published arm's figures: imbalance, its change, what is kept, and drift, by suite."""
    found = []
    for row in results.representation:
        title = results.settings.attributes[row.attribute].title
        if row.treated is None or row.change is None:
            continue
        found += [
            _figure(
                row.suite,
                "imbalance",
                f"Imbalance of {title}",
                row.treated.imbalance,
                row.treated.imbalance_ci95,
                base=row.baseline.imbalance,
                attribute=row.attribute,
            ),
            _figure(
                row.suite,
                "imbalance_change",
                f"Change of the imbalance of {title}",
                row.change.imbalance,
                row.change.ci95,
                verdict=row.verdict,
                attribute=row.attribute,
            ),
        ]
    for asked in results.fidelity:
        if asked.treated_rate is not None and asked.treated_ci95 is not None:
            found.append(
                _figure(
                    asked.suite,
                    "accuracy",
                    f"Pictures that show the {asked.attribute.replace('_', ' ')} asked for",
                    asked.treated_rate,
                    asked.treated_ci95,
                    base=asked.baseline_rate,
                    verdict=asked.verdict,
                    attribute=asked.attribute,
                )
            )
    for drift in results.drift:
        found.append(
            _figure(
                drift.suite,
                "drift",
                "Drift of control pictures beyond other seeds",
                drift.excess,
                drift.ci95,
                verdict=drift.verdict,
            )
        )
    return found


def _figure(
    suite: str, metric: str, name: str, value: float, ci95: Interval, **more: Any
) -> EvalResult:
    plain = {k: round(v, DIGITS) if isinstance(v, float) else v for k, v in more.items()}
    return EvalResult(
        task_type=TASK,
        task_name="Text to image",
        dataset_type="unskew-prompts",
        dataset_name=f"Unskew prompts, suite {suite.replace('_', '-')}",
        dataset_config=suite,
        metric_type=metric,
        metric_name=name,
        metric_value=round(value, DIGITS),
        metric_args={"ci95": [round(end, DIGITS) for end in ci95], **plain},
    )


def check_metadata(text: str, bundle: Path | None = None) -> list[str]:
    """What is wrong with a card's header; empty where nothing is.

    With the bundle's folder, the gallery's pictures must be there too.
    """
    try:
        said = ModelCard(text).data.to_dict()  # type: ignore[no-untyped-call]
    except ValueError as error:
        return [f"the card's header cannot be read: {error}"]
    try:
        header = CardMetadata.model_validate(said)
    except ValidationError as error:
        return [
            f"the card's header: {'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}"
            for one in error.errors()
        ]
    figures = [m.value for i in header.model_index for r in i.results for m in r.metrics]
    problems = ["the card's header: a figure is no number"] * (not all(map(math.isfinite, figures)))
    if bundle is not None:
        missing = [p.output.url for p in header.widget if not (bundle / p.output.url).is_file()]
        problems += [f"the card's header: widget {url} is not there" for url in missing]
    return problems

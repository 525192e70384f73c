"""The model card of a published adapter: what it is for, what was measured, what got worse.

Everything in it follows from `bundle.json`, `training.json` and `results.json`, so that `unskew
verify` can write it again and compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from jinja2 import Environment, StrictUndefined

from unskew.adapters import WEIGHTS_FILE
from unskew.bases import EMBEDDED_BASE
from unskew.evaluate import report_words as words
from unskew.evaluate.schema import Results
from unskew.evaluate.summary import escape, table
from unskew.kohya import KOHYA_FILE
from unskew.scripts.bundle_schema import GRID, Facts
from unskew.scripts.card_metadata import FAMILIES, card_data

CARD_VERSION = 1
"""Raised when the same facts give other words."""
TEMPLATE = Path(__file__).with_name("model_card.md.j2")
INTENDED = (
    "Drawing pictures in which what the words leave open comes nearer to a distribution that was "
    "chosen before, and measuring such change."
)


def render_card(facts: Facts, training: Mapping[str, Any], results: Results | None) -> str:
    """The whole README.md. The same facts and results give the same text."""
    page = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    text = page.from_string(TEMPLATE.read_text("utf-8")).render(
        card_data=card_data(facts, results).to_yaml(),
        name=escape(facts.name),
        unproven=escape(facts.unproven) if facts.unproven else "",
        refusals=[escape(refusal) for refusal in facts.refusals],
        headline=_headline(results),
        grid=GRID if results else "",
        intended=escape(facts.intended_use or INTENDED),
        attributes=escape(", ".join(a.replace("_", " ") for a in facts.attributes)),
        base=escape(facts.base.name),
        base_revision=facts.base.revision or "",
        base_sha256=facts.base.sha256,
        base_license=facts.base.license,
        embedded=facts.base.id == EMBEDDED_BASE,
        pipeline="StableDiffusionXLPipeline" if facts.base.family == "sdxl" else "",
        base_code=_literal(facts.base.id),
        revision_code=_literal(facts.base.revision) if facts.base.revision else "",
        family=FAMILIES[facts.base.family],
        weights=WEIGHTS_FILE,
        kohya=KOHYA_FILE,
        kohya_name=Path(KOHYA_FILE).stem,
        dora=facts.dora,
        weight=f"{facts.measured.weight:g}" if facts.measured else "1",
        prompt=_literal(facts.widgets[0].text if facts.widgets else "a picture of a mechanic"),
        measured=_measured(facts, results),
        table="\n".join(table(results)) if results else "",
        gate=_gate(results),
        worse=list(_worse(results)) if results else [],
        open=list(_open(results)) if results else [],
        limits=list(_limits(facts, results)),
        caveats=list(_caveats(results)) if results else [],
        training=list(_training(training)),
        dataset=_dataset(facts),
        licence=facts.license,
        attribution=[escape(line) for line in facts.attribution],
        code=_code(facts),
    )
    return f"{str(ModelCard(text)).rstrip()}\n"


def _headline(results: Results | None) -> str:
    row = words.headline(results) if results else None
    return escape(words.sentence(row, results)) if row and results else ""


def _measured(facts: Facts, results: Results | None) -> str:
    if not results or not facts.measured:
        return ""
    study, counts = results.settings.study, results.counts
    suites = ", ".join(
        f"{words.suite_title(name)} {suite.n_prompts} prompts x {suite.n_seeds} seeds"
        for name, suite in results.settings.suites.items()
    )
    return (
        f"The base against the base with this adapter at weight {facts.measured.weight:g}, every "
        f"prompt and seed from the same noise: {counts.generated:,} pictures, "
        f"{counts.readable:,} of them read in full ({escape(suites)}). "
        f"{study['steps']} steps, guidance {study['guidance']:g}, {study['resolution_px']} px, "
        f"sampler {escape(str(study['sampler']))}."
    )


def _gate(results: Results | None) -> str:
    if results is None:
        return ""
    gate = results.gate
    if gate.passed is None:
        return "No gate was set: nothing was declared before that had to hold."
    held = sum(reason.passed for reason in gate.reasons)
    said = f"{held} of {len(gate.reasons)} conditions that were set before hold"
    return f"The study's gate {'passed' if gate.passed else '**failed**'}: {said}."


def _worse(results: Results) -> Iterator[str]:
    """Everything that the study found to be worse than before."""
    margin = results.settings.margins.overshoot
    for row in results.representation:
        title = results.settings.attributes[row.attribute].title
        if row.verdict == "worsened":
            yield escape(words.sentence(row, results))
        elif told := words.overshoot_told(row, margin):
            yield escape(f"Overshoot of {title} on {words.suite_title(row.suite)}: {told}")
    for asked in results.fidelity:
        if asked.verdict == "lost" and asked.change:
            what, suite = asked.attribute.replace("_", " "), words.suite_title(asked.suite)
            yield escape(
                f"Pictures show the {what} asked for less often on {suite}: "
                f"{words.points(asked.change.value)} points."
            )
    for drift in results.drift:
        if drift.verdict == "lost":
            yield escape(
                f"Pictures that have nothing to do with it drifted on "
                f"{words.suite_title(drift.suite)}: {words.number(drift.excess)}."
            )
    for pictures in results.quality:
        for flag in pictures.flags:
            yield escape(f"{words.suite_title(pictures.suite)}: {flag}")


def _open(results: Results) -> Iterator[str]:
    """What the study could not settle."""
    rows: list[words.Row] = [*results.representation, *results.fidelity, *results.drift]
    for row in rows:
        if row.verdict == "inconclusive":
            what = getattr(row, "attribute", "drift").replace("_", " ")
            yield escape(f"{what} on {words.suite_title(row.suite)}")


def _limits(facts: Facts, results: Results | None) -> Iterator[str]:
    yield "The target is what its makers chose. It is no claim about the world."
    yield (
        "Prompts, subjects, samplers, guidance, other adapters beside it and other weights than "
        "those measured were not measured: there it may do less, more, or something else."
    )
    yield "One training was measured. A claim about the recipe rests on at least three seeds."
    if results is None:
        yield "Nothing of it was measured that belongs to this bundle."
        return
    for row in results.unmeasured:
        what = f"{row.attribute.replace('_', ' ')} on {words.suite_title(row.suite)}"
        yield f"{escape(what)} was not measured: {escape(row.why)}."
    if not any(row.corrected for row in results.representation):
        yield "A classifier read the pictures, and its mistakes are not corrected in the figures."
    units = {row.inference for row in results.representation}
    yield from (f"{escape(words.INFERENCE[unit])}." for unit in sorted(units))


def _caveats(results: Results) -> Iterator[str]:
    for attribute in results.settings.attributes.values():
        read = ", ".join(attribute.classifiers) or "nothing"
        shares = ", ".join(f"{v} {words.percent(s)}" for v, s in attribute.target.items())
        yield (
            f"**{escape(attribute.title)}**: {escape(attribute.caveat)} "
            f"Wanted: {escape(shares)}. Read by: {escape(read)}."
        )


def _training(training: Mapping[str, Any]) -> Iterator[str]:
    s = training["settings"]
    lora, batch, optimizer = s["lora"], s["batch"], s["optimizer"]
    targets = lora["target_modules"]
    named = targets if isinstance(targets, str) else ", ".join(targets)
    yield (
        f"rank {lora['rank']}, alpha {lora['alpha']:g}, on {escape(named)} of "
        f"{escape(', '.join(lora['components']))}"
    )
    yield (
        f"{s['steps']} steps of {batch['size']} at {s['resolution_px']} px, learning rate "
        f"{optimizer['learning_rate']:g}, seed {s['seed']}"
    )
    if s["objective"]["zero_terminal_snr"]:
        yield "zero terminal SNR: draw with rescale_betas_zero_snr=True, timestep_spacing trailing"


def _dataset(facts: Facts) -> str:
    link = facts.dataset.link
    if link is None:
        where = "not published"
    else:
        url = link if "://" in link else f"https://huggingface.co/datasets/{link}"
        where = f"<{url}>" if all(c.isascii() and c not in "<> \n" for c in url) else escape(url)
    under = escape(", ".join(facts.dataset.licenses))
    return f"{where}, licence {under}, sha256 `{facts.dataset.sha256}`"


def _code(facts: Facts) -> str:
    commits = {facts.code.train_commit, facts.code.study_commit} - {None}
    at = f", commit {', '.join(sorted(c[:12] for c in commits if c))}" if commits else ""
    return f"Unskew `{facts.code.unskew}`{at}"


def _literal(text: str) -> str:
    """A text as Python has it, that cannot end the block of code it stands in."""
    return ascii(text).replace("`", "\\x60")

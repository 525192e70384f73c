"""`summary.md`: a study's verdicts, its gate and its caveats, short enough for a pull request.

Prompts, names and caveats are untrusted text: what could become markup, a link, a mention or a
line of its own is disarmed by `escape`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unskew.evaluate import report_words as words
from unskew.evaluate.schema import (
    DriftRow,
    FidelityRow,
    Interval,
    RepresentationRow,
    Results,
)
from unskew.runs import write_text_atomic

Row = RepresentationRow | FidelityRow | DriftRow
LONGEST = 500
"""Characters of one piece of foreign text."""
MARKS = {
    "improved": "✓",
    "kept": "✓",
    "worsened": "✕",
    "lost": "✕",
    "no_change": "=",
    "inconclusive": "?",
}


@dataclass(frozen=True)
class Measured:
    """A row of the results in words; what it lacks is empty."""

    title: str
    suite: str
    arm: str
    before: str
    after: str
    change: str
    """With its 95 % interval."""
    verdict: str
    primary: bool
    overshoots: bool


def write_summary(results: Results, file: Path) -> Path:
    """Write the summary whole or not at all; its path."""
    write_text_atomic(file, summary(results))
    return file


def summary(results: Results) -> str:
    """GitHub-flavoured Markdown: headline, table of verdicts, gate, caveats."""
    treated = [arm for arm in results.arms if arm != results.baseline]
    against = f"{results.baseline} against {', '.join(treated)}" if treated else results.baseline
    parts = [f"## Unskew: {escape(against)}"]
    row = words.headline(results)
    if results.status == "incomplete":
        missing = results.counts.planned - results.counts.generated
        parts.append(f"**Incomplete**: {missing} of {results.counts.planned} pictures are missing.")
    if row:
        parts.append(escape(words.sentence(row, results)))
    if turned := list(_overshoot(results)):
        parts.append("\n".join(turned))
    parts += _gate(results)
    if lines := table(results):
        parts.append("\n".join(lines))
    parts += _collapsed(results)
    corrected = list(_corrected(results))
    if corrected:
        parts.append("\n".join(["Corrected for the classifier's error:", "", *corrected]))
    parts.append("\n".join(_caveats(results)))
    return "\n\n".join(parts) + "\n"


def table(results: Results) -> list[str]:
    """A line of Markdown a row of the results, under two lines of head; none without rows."""
    rows = [_line(row) for row in measured(results)]
    head = "| Measured | Suite | Arm | Before | After | Change (95 % interval) | Verdict |"
    return [head, "| --- | --- | --- | ---: | ---: | ---: | --- |", *rows] if rows else []


def escape(text: str) -> str:
    """Text that Markdown and HTML show as it is, on one line, without links and mentions."""
    shown = one_line(text)
    shown = shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shown = re.sub(r"([\\`*_{}\[\]()#+!|~$^=\"'-])", _entity, shown)
    shown = re.sub(r"^(\d+)([.)])", lambda found: f"{found[1]}&#{ord(found[2])};", shown)
    # Mentions and links are found in what Markdown has rendered, so they need to be broken up.
    shown = re.sub(r"(?<=@)(?=\w)|(?<=&#35;)(?=\w)", "\u2060", shown)
    return re.sub(r"(?i)\bwww(?=\.)|:(?=//)|\b(?:mailto|xmpp)(?=:)", "\\g<0>\u2060", shown)


def one_line(text: str) -> str:
    """Text without what moves a cursor or hides other text."""
    shown = "".join(" " if unicodedata.category(char)[0] == "C" else char for char in text)
    return " ".join(shown.split())


def _entity(found: re.Match[str]) -> str:
    char = found[1]
    return char if char in "-()'\"+=!" and found.start() else f"&#{ord(char)};"


def _gate(results: Results) -> Iterator[str]:
    gate = results.gate
    if gate.passed is None:
        return
    failed = [reason for reason in gate.reasons if not reason.passed]
    held = f"{len(gate.reasons) - len(failed)} of {len(gate.reasons)} conditions hold"
    yield f"**Gate {'passed' if gate.passed else 'failed'}**: {held}."
    if failed:
        yield "\n".join(f"- ✕ {escape(reason.said)}" for reason in failed)
    open_ = [reason for reason in gate.reasons if reason.passed and reason.inconclusive]
    if open_:
        yield "\n".join(
            ["Inconclusive, which this gate lets pass:"]
            + [f"- ? {escape(reason.said)}" for reason in open_]
        )


def measured(results: Results) -> Iterator[Measured]:
    """Every row of the results in words, as they stand there, in plain text."""
    for row in results.representation:
        title = results.settings.attributes[row.attribute].title
        after = words.number(row.treated.imbalance) if row.treated else ""
        change = _change(row.change.imbalance, row.change.ci95) if row.change else ""
        before = words.number(row.baseline.imbalance)
        if not row.change:
            before = f"{before} ({' to '.join(map(words.number, row.baseline.imbalance_ci95))})"
        yield _measured(row, f"imbalance of {title}", before, after, change)
    for asked in results.fidelity:
        title = (
            "right subject"
            if asked.attribute == "subject"
            else f"{results.settings.attributes[asked.attribute].title} as asked"
        )
        after = words.percent(asked.treated_rate, 1) if asked.treated_rate is not None else ""
        change = ""
        if asked.change:
            lo, hi = asked.change.ci95
            change = (
                f"{words.points(asked.change.value)} points "
                f"({words.points(lo)} to {words.points(hi)})"
            )
        yield _measured(asked, title, words.percent(asked.baseline_rate, 1), after, change)
    for drift in results.drift:
        yield _measured(drift, "drift", "", "", _change(drift.excess, drift.ci95))


def _measured(row: Row, title: str, before: str, after: str, change: str) -> Measured:
    judged = row if isinstance(row, RepresentationRow) and row.verdict else None
    return Measured(
        title=title,
        suite=words.suite_title(row.suite),
        arm=row.arm,
        before=before,
        after=after,
        change=change,
        verdict=f"{MARKS[row.verdict]} {words.plain(row.verdict)}" if row.verdict else "",
        primary=bool(judged and judged.primary),
        overshoots=bool(judged and words.overshooting(judged)),
    )


def _overshoot(results: Results) -> Iterator[str]:
    """A line for every comparison in which skews were turned round: its verdict hides that."""
    margin = results.settings.margins.overshoot
    for row in results.representation:
        if told := words.overshoot_told(row, margin):
            title = results.settings.attributes[row.attribute].title
            where = f"{title} on {words.suite_title(row.suite)}, {row.arm}"
            yield f"- **Overshoot** of {escape(where)}: {escape(told)}"


def _change(value: float, ci95: Interval) -> str:
    return f"{words.number(value, sign=True)} ({words.interval(ci95)})"


def _line(row: Measured) -> str:
    verdict = row.verdict + " (primary)" * row.primary + ", **overshoot**" * row.overshoots
    named = map(escape, (row.title, row.suite, row.arm))
    return f"| {' | '.join([*named, row.before, row.after, row.change, verdict])} |"


def _collapsed(results: Results) -> list[str]:
    """One line of all pictures that have collapsed; none where none have."""
    flagged = [
        f"{words.suite_title(row.suite)} ({row.arm}): {'; '.join(row.flags)}"
        for row in results.quality
        if row.flags
    ]
    return [f"**Pictures have collapsed**: {escape('. '.join(flagged))}."] if flagged else []


def _corrected(results: Results) -> Iterator[str]:
    """Raw and corrected change of the imbalance side by side, where labels allowed one."""
    for row in results.representation:
        given: Any = row.corrected
        found = given and given.imbalance
        if not row.change or not found or found.change is None:
            continue
        title = results.settings.attributes[row.attribute].title
        named = escape(f"{title} on {words.suite_title(row.suite)}, {row.arm}")
        yield (
            f"- imbalance of {named}: {_change(found.change, found.change_ci95)} corrected, "
            f"{_change(row.change.imbalance, row.change.ci95)} as read"
        )


def _caveats(results: Results) -> Iterator[str]:
    yield (
        "Imbalance: 0 is on the target that the user chose, 1 as far from it as possible. "
        f"{results.counts.generated:,} pictures, {results.counts.readable:,} of them read in full; "
        "the whole of it is in `report.html` and `results.json`."
    )
    yield ""
    for attribute in results.settings.attributes.values():
        readers = ", ".join(attribute.classifiers) or "nothing"
        yield f"- {escape(attribute.title)}: {escape(attribute.caveat)} Read by: {escape(readers)}."
    for row in results.unmeasured:
        where = f"{row.attribute} on {words.suite_title(row.suite)}"
        yield f"- Not measured: {escape(f'{where} in arm {row.arm}: {row.why}')}."
    if not any(_corrected(results)):
        yield "- A classifier read these pictures, and its mistakes are not corrected here."
    yield "- Training is random too: a claim about a recipe rests on at least three training seeds."

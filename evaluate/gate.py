"""The gate: rows of results and thresholds in, passed or failed with every reason out.

A limit is judged on the unfavourable end of the 95 % interval: what the study cannot exclude is
held against the arm. Where the interval lies on both sides of a limit the answer is inconclusive,
which fails unless the settings say otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from unskew.evaluate.gate_schema import ANY_ARM, Gate, GateReason, GateSettings, Limits
from unskew.evaluate.rates import rate_interval
from unskew.evaluate.schema import DriftRow, FidelityRow, RepresentationRow
from unskew.evaluate.schema_model import Interval
from unskew.evaluate.schema_quality import QualityRow
from unskew.evaluate.stats import ROUNDING, cluster_means

Row = RepresentationRow | FidelityRow | DriftRow


def judge_gate(
    representation: Sequence[RepresentationRow],
    fidelity: Sequence[FidelityRow],
    drift: Sequence[DriftRow],
    settings: GateSettings,
    quality: Sequence[QualityRow] = (),
) -> Gate:
    """Whether everything that is asked for holds in every arm; null when nothing is asked."""
    if not settings.asks:
        return Gate(passed=None, reasons=())
    rows: tuple[Row, ...] = (*representation, *fidelity, *drift)
    reasons = [
        reason
        for comparison, limits in settings.comparisons.items()
        for reason in _comparison(comparison, limits, rows, settings)
    ]
    if settings.everything_kept:
        to_keep: tuple[FidelityRow | DriftRow, ...] = (*fidelity, *drift)
        reasons += [
            _verdict(row, "kept", settings) for row in to_keep if not _has_own_limit(row, settings)
        ]
        reasons += [reason for row in quality for reason in _pictures(row, settings)]
    reasons.sort(key=lambda reason: reason.passed)
    return Gate(passed=all(reason.passed for reason in reasons), reasons=tuple(reasons))


def name_of(row: Row) -> str:
    """What the settings call a row: "attribute@suite" or "drift@suite"."""
    return f"{'drift' if isinstance(row, DriftRow) else row.attribute}@{row.suite}"


def _has_own_limit(row: FidelityRow | DriftRow, settings: GateSettings) -> bool:
    limits = settings.comparisons.get(name_of(row), Limits())
    own = limits.drift_at_most if isinstance(row, DriftRow) else limits.fidelity_loss_at_most
    return own is not None


def _pictures(row: QualityRow, settings: GateSettings) -> Iterator[GateReason]:
    """That nothing has collapsed, and that pictures still agree where a margin was set for it."""
    if row.against is None:
        return
    where = f"{row.suite} ({row.arm})"
    yield GateReason(
        comparison=f"quality@{row.suite}",
        arm=row.arm,
        what="no_collapse",
        limit="no flag",
        found="; ".join(row.flags) or "no flag",
        ci95=None,
        passed=not row.flags,
        inconclusive=False,
        said=f"pictures of {where} have {'' if row.flags else 'not '}collapsed"
        f"{': ' if row.flags else ''}{'; '.join(row.flags)}",
    )
    if row.agreement and row.agreement.margin is not None:
        verdict = row.agreement.verdict
        open_ = verdict == "inconclusive"
        yield GateReason(
            comparison=f"agreement@{row.suite}",
            arm=row.arm,
            what="kept",
            limit="kept",
            found=verdict,
            ci95=row.agreement.ci95,
            passed=verdict == "kept" or (open_ and settings.inconclusive == "pass"),
            inconclusive=open_,
            said=f"agreement with the prompts of {where} is {verdict or 'not compared'}, must be "
            "kept",
        )


def _comparison(
    comparison: str, limits: Limits, rows: Sequence[Row], settings: GateSettings
) -> Iterator[GateReason]:
    """A reason for every limit of a comparison and every arm; one that fails where no row is."""
    for what, limit in limits.asked.items():
        found = False
        for row in rows:
            if name_of(row) != comparison or not _speaks_of(row, what):
                continue
            found = True
            if what == "improved":
                yield _verdict(row, what, settings)
            else:
                yield _at_most(row, what, limit, settings)
        if not found:
            yield _unmeasured(comparison, ANY_ARM, what, "improved" if limit is True else limit)


def _speaks_of(row: Row, what: str) -> bool:
    kinds = {"fidelity_loss_at_most": FidelityRow, "drift_at_most": DriftRow}
    return isinstance(row, kinds.get(what, RepresentationRow))


def _verdict(row: Row, what: str, settings: GateSettings) -> GateReason:
    open_ = row.verdict == "inconclusive"
    return GateReason(
        comparison=name_of(row),
        arm=row.arm,
        what=what,
        limit=what,
        found=row.verdict,
        ci95=_interval(row),
        passed=row.verdict == what or (open_ and settings.inconclusive == "pass"),
        inconclusive=open_,
        said=f"{_subject(row)} is {row.verdict or 'not compared'}, must be {what}",
    )


def _interval(row: Row) -> Interval | None:
    if isinstance(row, DriftRow):
        return row.ci95
    return row.change.ci95 if row.change else None


def _at_most(row: Row, what: str, limit: float, settings: GateSettings) -> GateReason:
    found = _measured(row, what)
    if found is None:
        return _unmeasured(name_of(row), row.arm, what, limit)
    value, (lo, hi) = found
    holds = hi <= limit + ROUNDING
    open_ = not holds and lo <= limit
    title = what.removesuffix("_at_most").replace("_", " ")
    return GateReason(
        comparison=name_of(row),
        arm=row.arm,
        what=what,
        limit=limit,
        found=value,
        ci95=(lo, hi),
        passed=holds or (open_ and settings.inconclusive == "pass"),
        inconclusive=open_,
        said=f"{title} of {_subject(row)} is {value:.3f} ({lo:.3f} to {hi:.3f}), must be at most "
        f"{limit:g}{', which is inconclusive' if open_ else ''}",
    )


def _measured(row: Row, what: str) -> tuple[float, Interval] | None:
    """The figure that a limit is about, more being worse, with its interval; None without one."""
    if isinstance(row, DriftRow):
        return row.excess, row.ci95
    if isinstance(row, FidelityRow):
        if row.change is None:
            return None
        lo, hi = row.change.ci95
        return -row.change.value, (-hi, -lo)
    shown = row.treated or row.baseline
    match what:
        case "imbalance_change_at_most":
            return (row.change.imbalance, row.change.ci95) if row.change else None
        case "imbalance_at_most":
            return shown.imbalance, shown.imbalance_ci95
        case "unreadable_rate_at_most":
            return shown.unreadable_rate, shown.unreadable_ci95
    return _overshoot(row)


def _overshoot(row: RepresentationRow) -> tuple[float, Interval] | None:
    """Over the same prompts as `overshoot_rate`, clustered by subject for the interval."""
    judged = [prompt for prompt in row.per_prompt if prompt.overshoot is not None]
    if row.change is None or not judged:
        return None
    clusters, _ = pd.factorize(np.array([prompt.subject for prompt in judged], dtype=object))
    crossed_p = np.array([float(bool(prompt.overshoot)) for prompt in judged])
    rates_c = cluster_means(crossed_p, clusters.astype(np.int64))
    fixed = row.inference == "these_prompts"
    return row.change.overshoot_rate, rate_interval(rates_c, len(judged), fixed)


def _unmeasured(comparison: str, arm: str, what: str, limit: float | str) -> GateReason:
    return GateReason(
        comparison=comparison,
        arm=arm,
        what=what,
        limit=limit,
        found=None,
        ci95=None,
        passed=False,
        inconclusive=False,
        said=f"{what} of {comparison} ({arm}) was not measured, so it cannot hold",
    )


def _subject(row: Row) -> str:
    name, _, suite = name_of(row).rpartition("@")
    return f"{name} on {suite} ({row.arm})"

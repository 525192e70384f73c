"""Label a random sample of a study's pictures by hand, and correct its figures by the labels.

unskew calibrate runs/emoji-study                           # writes calibration/label.html: open it
unskew calibrate runs/emoji-study --labels labels-ana.json  # results.json and report.html corrected
python evaluate/calibrate.py runs/emoji-study --per_arm 20  # tiny
the same command again                                      # writes the same page again
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pandas as pd

from unskew.errors import UserError
from unskew.evaluate.answers import check_drawn_alike, read_answers, store_answers
from unskew.evaluate.calibrate_options import CalibrateSettings
from unskew.evaluate.calibration import (
    FOLDER,
    OTHER_READINGS,
    Agreement,
    Labels,
    Sample,
    agreement,
    draw_sample,
    is_sample_of,
    load_sample,
    run_fingerprint,
    stored_labels,
    write_sample,
)
from unskew.evaluate.corrected import correct
from unskew.evaluate.folds import with_folds
from unskew.evaluate.label_page import write_label_page
from unskew.evaluate.report import write_report
from unskew.evaluate.results import write_results
from unskew.evaluate.schema import Results, load_results
from unskew.evaluate.summary import write_summary
from unskew.runs import locked
from unskew.settings import Resolved, config_path, resolve, run_program


def main(argv: Sequence[str]) -> int:
    """Resolve the settings; write the page, or read labels back."""
    words = list(argv)
    if words and not words[0].startswith("-"):
        words[:1] = ["--run", words[0]]
    resolved = resolve(
        CalibrateSettings,
        words,
        default_config=config_path("emoji/calibrate.yaml"),
        prog="unskew calibrate",
        description=(__doc__ or "").split("\n")[0],
    )
    settings = resolved.settings
    results = load_results(settings.run / "results.json")
    file = settings.run / "readings.parquet"
    if not file.is_file():
        raise UserError(f"{file} does not exist: run the study first")
    readings = with_folds(pd.read_parquet(file), results)
    with locked(settings.run):
        if settings.labels:
            return _read_back(resolved, results, readings)
        return _write_page(resolved, results, readings)


def _write_page(
    resolved: Resolved[CalibrateSettings], results: Results, readings: pd.DataFrame
) -> int:
    settings = resolved.settings
    sample = draw_sample(
        results,
        readings,
        run=run_fingerprint(settings.run),
        per_arm=settings.per_arm,
        seed=settings.seed,
        attributes=settings.attributes,
        suites=settings.suites,
    )
    check_drawn_alike(load_sample(settings.run), sample, settings.run / FOLDER)
    page = settings.run / sample.page
    if not resolved.dry_run:
        write_sample(sample, settings.run)
        page = write_label_page(sample, results, settings.run)
    per_arm = {arm: sum(t.arm == arm for t in sample.tasks) for arm in results.arms}
    told = {"page": str(page), "sample": sample.sha256, "labels": per_arm}
    resolved.tell(
        told,
        f"{len(sample.tasks)} labels to give, " + ", ".join(f"{a} {n}" for a, n in per_arm.items()),
        "dry run: nothing was written"
        if resolved.dry_run
        else f"open {page} in a browser, then: "
        f"unskew calibrate {settings.run} --labels the-downloaded.json",
    )
    return 0


def _read_back(
    resolved: Resolved[CalibrateSettings], results: Results, readings: pd.DataFrame
) -> int:
    settings = resolved.settings
    sample = load_sample(settings.run)
    if sample is None:
        raise UserError(
            f"{settings.run} has no sample to label yet: run `unskew calibrate {settings.run}` "
            "first and label its page"
        )
    if not is_sample_of(sample, results, readings):
        raise UserError(f"{settings.run / FOLDER}: {OTHER_READINGS}")
    if resolved.dry_run:
        labels = tuple(read_answers(file, Labels, sample) for file in settings.labels)
    else:
        store_answers(settings.labels, settings.run / FOLDER, Labels, sample)
        labels = stored_labels(settings.run, sample)
    corrected = correct(results, readings, sample, labels)
    if not resolved.dry_run:
        write_results(corrected, settings.run / "results.json")
        write_summary(corrected, settings.run / "summary.md")
        write_report(settings.run)
    raters = agreement(labels, sample)
    told = {
        "raters": {rater.rater: len(rater.labels) for rater in labels},
        "agreement": [found.model_dump() for found in raters],
        "corrected": [
            {
                "attribute": row.attribute,
                "suite": row.suite,
                "arm": row.arm,
                **row.corrected.model_dump(mode="json"),
            }
            for row in corrected.representation
            if row.corrected
        ],
    }
    resolved.tell(told, *_lines(labels, sample, raters, corrected))
    return 0


def _lines(
    labels: Sequence[Labels], sample: Sample, raters: Sequence[Agreement], results: Results
) -> list[str]:
    """What was read back, in words: raters, how far they agree, raw and corrected."""
    lines = [
        f"{rater.rater}: {len(rater.labels)} of {len(sample.tasks)} labels, "
        f"{sum(value is None for value in rater.labels.values())} cannot tell"
        for rater in labels
    ]
    for found in raters:
        kappas = "; ".join(f"{pair} {_figure(kappa)}" for pair, kappa in found.kappa.items())
        lines.append(
            f"{found.attribute}: {found.n_both} pictures told by both, Cohen's kappa {kappas}, "
            f"Krippendorff's alpha {_figure(found.alpha)}"
        )
    for row in results.representation:
        if row.corrected is None:
            continue
        name = f"{row.attribute} on {row.suite} ({row.arm})"
        fixed = row.corrected.imbalance
        if fixed and row.change and fixed.change is not None and fixed.change_ci95:
            lines.append(
                f"{name}: change {row.change.imbalance:+.3f} raw, {fixed.change:+.3f} corrected "
                f"({fixed.change_ci95[0]:+.3f} to {fixed.change_ci95[1]:+.3f})"
            )
        elif fixed:
            lines.append(
                f"{name}: imbalance {row.baseline.imbalance:.3f} raw, {fixed.baseline:.3f} "
                "corrected"
            )
        lines += [f"{name}: not corrected: {reason}" for reason in row.corrected.refused]
    return lines


def _figure(value: float | None) -> str:
    return "none (nothing varies)" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

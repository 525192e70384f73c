"""Let people choose between arms without knowing which is which, and read their choices back.

unskew compare blind runs/emoji-compare                          # writes blind/better/page.html
unskew compare blind runs/emoji-compare --choices choices-ana.json   # into the comparison
unskew compare blind runs/emoji-compare --question asked --arms base ours-1
the same command again                                           # writes the same page again
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from unskew.errors import UserError
from unskew.evaluate.answers import check_drawn_alike, read_answers, store_answers
from unskew.evaluate.blind_options import BlindSettings
from unskew.evaluate.blind_page import write_blind_page
from unskew.evaluate.blind_sample import (
    BlindSample,
    Choices,
    draw_pairs,
    load_blind_sample,
    place,
    write_blind_sample,
)
from unskew.evaluate.blind_scores import blind_results, judge_choices
from unskew.evaluate.calibration import run_fingerprint
from unskew.evaluate.compare_page import write_compare_page
from unskew.evaluate.report_words import number, prompt_words
from unskew.evaluate.schema import Results, load_results
from unskew.evaluate.schema_comparison import FILE, BlindResult, load_comparison, write_comparison
from unskew.prompts import load_suites, prompt_file
from unskew.runs import locked
from unskew.settings import Resolved, config_path, resolve, run_program


def main(argv: Sequence[str]) -> int:
    """Resolve the settings; write the page, or read choices back."""
    words = list(argv)
    if words and not words[0].startswith("-"):
        words[:1] = ["--run", words[0]]
    resolved = resolve(
        BlindSettings,
        words,
        default_config=config_path("emoji/blind.yaml"),
        prog="unskew compare blind",
        description=(__doc__ or "").split("\n")[0],
    )
    run = resolved.settings.run
    results = load_results(run / "results.json")
    with locked(run):
        if resolved.settings.choices:
            return _read_back(resolved)
        return _write_page(resolved, results)


def _write_page(resolved: Resolved[BlindSettings], results: Results) -> int:
    settings = resolved.settings
    file = settings.run / "readings.parquet"
    if not file.is_file():
        raise UserError(f"{file} does not exist: run the study first")
    sample = draw_pairs(
        pd.read_parquet(file, columns=["arm", "prompt_id", "suite", "seed", "image_sha256"]),
        run=run_fingerprint(settings.run),
        question=settings.question,
        arms=_chosen("arms", settings.arms, tuple(results.arms), tuple(results.arms), 2),
        suites=_chosen(
            "suites", settings.suites, tuple(results.settings.suites), _usual(settings, results), 1
        ),
        n=settings.pairs,
        seed=settings.seed,
    )
    check_drawn_alike(
        load_blind_sample(settings.run, settings.question),
        sample,
        place(settings.run, settings.question),
    )
    page = settings.run / sample.page
    if not resolved.dry_run:
        write_blind_sample(sample, settings.run)
        page = write_blind_page(sample, _texts(sample, results), settings.run)
    resolved.tell(
        {"page": str(page), "sample": sample.sha256, "pairs": len(sample.pairs)},
        f"{len(sample.pairs)} pairs to compare",
        "dry run: nothing was written"
        if resolved.dry_run
        else f"open {page} in a browser, then: unskew compare blind {settings.run} "
        f"--question {settings.question} --choices the-downloaded.json",
    )
    return 0


def _read_back(resolved: Resolved[BlindSettings]) -> int:
    settings = resolved.settings
    sample = load_blind_sample(settings.run, settings.question)
    if sample is None or sample.run != run_fingerprint(settings.run):
        raise UserError(
            f"{settings.run} has no pairs to choose from for {settings.question!r}: run `unskew "
            f"compare blind {settings.run} --question {settings.question}` first, and its page"
        )
    if resolved.dry_run:
        read = [read_answers(file, Choices, sample) for file in settings.choices]
        found: tuple[BlindResult, ...] = (judge_choices(sample, read),)
    else:
        folder = place(settings.run, sample.question)
        store_answers(settings.choices, folder, Choices, sample)
        found = blind_results(settings.run, sample.run)
        if (settings.run / FILE).is_file():
            comparison = load_comparison(settings.run).model_copy(update={"blind": found})
            write_comparison(comparison, settings.run)
            write_compare_page(settings.run)
    lines = [line for result in found for line in _lines(result)]
    resolved.tell({"blind": [result.model_dump(mode="json") for result in found]}, *lines)
    return 0


def _lines(result: BlindResult) -> list[str]:
    raters = ", ".join(f"{name} {n}" for name, n in result.raters.items())
    head = f"{result.question}: {result.n_pairs} pairs ({raters}), {result.n_ties} ties"
    lines = [f"{head}. {result.method}"]
    for row in result.strengths:
        spread = f" ({number(row.ci95[0])} to {number(row.ci95[1])})" if row.ci95 else ""
        won = f"won {row.won:g} of {row.n_pairs}"
        lines.append(f"  {row.arm}: {won}, {number(row.strength)}{spread}")
    return [*lines, f"  preferred: {result.preferred or 'no arm is settled to be'}"]


def _chosen(
    what: str, asked: Sequence[str], there: Sequence[str], usual: Sequence[str], least: int
) -> tuple[str, ...]:
    """The names asked for, or the usual ones. Raises UserError for others."""
    strangers = [name for name in asked if name not in there]
    if strangers:
        raise UserError(f"{what}: this run has no {strangers[0]!r} (it has: {', '.join(there)})")
    chosen = tuple(dict.fromkeys(asked)) or tuple(usual)
    if len(chosen) < least:
        raise UserError(f"{what} must name {least} or more, got {', '.join(chosen) or 'none'}")
    return chosen


def _usual(settings: BlindSettings, results: Results) -> tuple[str, ...]:
    suites = results.settings.suites
    roles = ("explicit", "must_not_change")
    naming = [name for name, suite in suites.items() if suite.role in roles]
    return tuple(naming if settings.question == "asked" and naming else suites)


def _texts(sample: BlindSample, results: Results) -> dict[str, str]:
    """The words of each prompt; those in its id where its file is no longer there."""
    study = results.settings.study
    given = study.get("prompts") or ()
    files = [given] if isinstance(given, str) else list(given)
    try:
        paths = [prompt_file(Path(file)) for file in files]
        suites = load_suites(paths, tuple(results.settings.suites)) if paths else ()
    except UserError:
        suites = ()
    known = {prompt.id: prompt.text for suite in suites for prompt in suite.prompts}
    ids = {pair.prompt_id for pair in sample.pairs}
    return {id: known.get(id, prompt_words(id)) for id in ids}


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

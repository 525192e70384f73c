"""Study five adapters whose verdict is known, and see whether each of them gets it.

    python scripts/prove_verdicts.py                        # an hour or so on 2 CPU cores
    python scripts/prove_verdicts.py --adapter runs/emoji-lora/adapter    # with that debiased one
    python scripts/prove_verdicts.py --write docs/validation.md
    the same command again                                  # goes on where it stopped

One changes nothing, one debiases, one makes explicit prompts mean nothing, one wrecks pictures,
and one turns the planted skew round. Each is a LoRA on the embedded base, studied by
`unskew evaluate` with configs/emoji/study-verdicts.yaml; all meet the same pictures of the base.
Exit code 0 when every verdict is right, 1 when one is not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from unskew.errors import UserError
from unskew.evaluate import report_words as words
from unskew.evaluate.gate_schema import GateReason
from unskew.evaluate.schema import FidelityRow, RepresentationRow, Results, load_results
from unskew.runs import git_state, write_text_atomic
from unskew.scripts.bench_page import put
from unskew.scripts.demo import Stage, run_stage
from unskew.scripts.known_adapters import (
    WRECKING,
    read_rows,
    skew_swapped_round,
    words_that_decide_nothing,
    write_dataset,
    write_untrained,
)
from unskew.settings import config_path, run_program
from unskew.yaml_files import read_yaml

ROW = "prove_verdicts"
EXEMPLARS = "exemplars"
IGNORING_STEPS = 150
SWAPPING_STEPS = 450
"""Of the two trainings to the wrong end; the debiased adapter has the recipe's."""


@dataclass(frozen=True)
class Known:
    """An adapter and what a study of it must say."""

    name: str
    made: str
    due: str
    right: Callable[[Results], bool]


def _changes(results: Results, *verdicts: str) -> bool:
    return {row.verdict for row in results.representation} == set(verdicts)


def _all_kept(results: Results) -> bool:
    verdicts = [row.verdict for row in results.fidelity] + [row.verdict for row in results.drift]
    return set(verdicts) == {"kept"}


def _explicit(results: Results) -> list[FidelityRow]:
    return [row for row in results.fidelity if row.suite == "explicit"]


KNOWN = (
    Known(
        "null",
        "a LoRA whose B is 0",
        "no_change in every comparison, everything kept",
        lambda r: _changes(r, "no_change") and _all_kept(r),
    ),
    Known(
        "debiased",
        "the shipped recipe, `configs/emoji/train.yaml`, seed 0",
        "improved in every comparison",
        lambda r: _changes(r, "improved"),
    ),
    Known(
        "ignores-explicit",
        f"{IGNORING_STEPS} steps in which explicit captions stand for every picture of a subject",
        "fidelity of presentation and of skin tone on explicit prompts lost",
        lambda r: all(
            row.verdict == "lost"
            for row in _explicit(r)
            if row.attribute in ("presentation", "skin_tone")
        ),
    ),
    Known(
        "wrecks",
        f"random weights, spread {WRECKING:g}",
        "drift lost",
        lambda r: all(row.verdict == "lost" for row in r.drift),
    ),
    Known(
        "swaps",
        f"{SWAPPING_STEPS} steps towards the planted shares with women and men changed about",
        "overshoot of presentation named",
        lambda r: bool(_overshot(r)),
    ),
)


def main(argv: Sequence[str]) -> int:
    """Make what is missing, study each adapter, print the block and perhaps write it."""
    asked = _arguments(argv)
    out: Path = asked.out
    adapters = make_adapters(out, asked.adapter)
    base = study_base(out)
    codes = {name: study(out, name, adapter, base) for name, adapter in adapters.items()}
    found = {name: load_results(out / name / "results.json") for name in adapters}
    block = block_of(found, codes)
    print(block)
    if asked.write:
        put(asked.write, ROW, block)
    return 0 if all(known.right(found[known.name]) for known in KNOWN) else 1


def make_adapters(out: Path, debiased: Path | None) -> dict[str, Path]:
    """Name -> folder of the adapter; what is there already is taken as it is."""
    data, exemplars = out / "data", out / EXEMPLARS
    command = ("-m", "unskew.data.build", "--out", str(data), "--exemplars", str(exemplars))
    _run(Stage("the dataset and the exemplars", data, command))
    rows = read_rows(data)
    ignoring, swapped = out / "data-ignores-explicit", out / "data-swaps"
    write_dataset(data, words_that_decide_nothing(rows), ignoring)
    write_dataset(data, skew_swapped_round(rows), swapped)
    write_untrained(out / "adapter-null", 0.0)
    write_untrained(out / "adapter-wrecks", WRECKING)
    # Its explicit captions stand among the neutral ones: they are to be learned as such.
    ignore = {"dataset": ignoring, "batch.neutral_share": 1.0, "steps": IGNORING_STEPS}
    swap = {"dataset": swapped, "attributes": ["skin_tone", "season"], "steps": SWAPPING_STEPS}
    unseen = {"samples.every": 0}
    return {
        "null": out / "adapter-null",
        "debiased": debiased or train(out / "train-debiased", {"dataset": data}),
        "ignores-explicit": train(out / "train-ignores-explicit", ignore | unseen),
        "wrecks": out / "adapter-wrecks",
        "swaps": train(out / "train-swaps", swap | unseen),
    }


def train(folder: Path, changed: Mapping[str, Any]) -> Path:
    """Run `unskew train` with the shipped recipe but for these settings; the adapter's folder."""
    settings = read_yaml(config_path("emoji/train.yaml"), "settings")
    for name, value in {"out": str(folder), **changed}.items():
        *parents, last = name.split(".")
        part = settings
        for parent in parents:
            part = part[parent]
        part[last] = str(value) if isinstance(value, Path) else value
    dealt = settings["attributes"]
    settings["targets"] = {k: v for k, v in settings["targets"].items() if k in dealt}
    file = _written(folder.with_suffix(".yaml"), settings)
    command = ("-m", "unskew.train.lora", "--config", str(file))
    _run(Stage(f"training {folder.name}", folder, command))
    return folder / "adapter"


def study_base(out: Path) -> Path:
    """Draw the base's pictures once; their folder."""
    settings = _study_settings(out / "base", {"base": {}})
    settings.pop("primaries")
    settings.pop("gate")
    command = ("-m", "unskew.evaluate.audit", "--config", _written(out / "base.yaml", settings))
    _run(Stage("the base's pictures", out / "base", tuple(map(str, command))))
    return out / "base" / "images" / "base"


def study(out: Path, name: str, adapter: Path, base: Path) -> int:
    """Run `unskew evaluate` on an adapter; its exit code, 0 or 1 as its gate says."""
    arms = {"base": {"folder": str(base)}, name: {"adapter": str(adapter)}}
    file = _written(out / f"{name}.yaml", _study_settings(out / name, arms))
    command = ("-m", "unskew.evaluate.paired", "--config", str(file))
    return _run(Stage(f"the study of {name}", out / name, command), may_fail=True)


def _study_settings(folder: Path, arms: Mapping[str, Any]) -> dict[str, Any]:
    settings = read_yaml(config_path("emoji/study-verdicts.yaml"), "settings")
    settings["classifiers"]["exemplars"]["folder"] = str(folder.parent / EXEMPLARS)
    return {**settings, "arms": dict(arms), "out": str(folder)}


def _written(file: Path, settings: Mapping[str, Any]) -> Path:
    write_text_atomic(file, yaml.safe_dump(dict(settings), sort_keys=False))
    return file


def _run(stage: Stage, *, may_fail: bool = False) -> int:
    """Run a program to its end. Raises UserError when it could not do what it was asked."""
    print(f"\n{stage.title} -> {stage.folder}", file=sys.stderr, flush=True)
    code = run_stage(stage)
    if code > 1 or (code == 1 and not may_fail):
        raise UserError(
            f"{stage.title} ended with exit code {code}, for the reason above; the same command "
            "then goes on from here"
        )
    return code


def block_of(found: Mapping[str, Results], codes: Mapping[str, int]) -> str:
    """The block of the page, in Markdown."""
    some = next(iter(found.values()))
    sizes = ", ".join(
        f"{words.suite_title(name)} {suite.n_prompts} prompts x {suite.n_seeds} seeds"
        for name, suite in some.settings.suites.items()
    )
    pictures = some.arms[some.baseline].counts.planned
    head = (
        "| adapter | imbalance, presentation | imbalance, skin tone | overshoot, presentation | "
        "as asked: presentation, skin tone | drift of controls | due | gate (exit code) |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    lines = [_line(known, found[known.name], codes[known.name]) for known in KNOWN]
    made = "\n".join(
        f"- **{known.name}**: {known.made} (sha256 {_sha256(found[known.name], known.name)}...)."
        for known in KNOWN
    )
    named = _overshot(found["swaps"])
    return (
        f"{pictures:,} pictures an arm ({sizes}), commit {git_state()['commit']}.\n\n{made}\n\n"
        + "\n".join([head, *lines])
        + f'\n\nWhat the report says of the last one: "{named}"\n'
    )


def _line(known: Known, results: Results, code: int) -> str:
    presentation = _presentation(results)
    tone = next(r for r in results.representation if r.attribute == "skin_tone")
    asked = {row.attribute: row for row in _explicit(results)}
    change = presentation.change
    assert change is not None
    overshoot = (
        f"{words.percent(change.overshoot_rate)} "
        f"(by chance {words.percent(change.overshoot_by_chance)})"
    )
    drift = "; ".join(
        f"{words.number(row.excess, 3)} ({words.number(row.ci95[0], 3)} to "
        f"{words.number(row.ci95[1], 3)}), **{words.plain(row.verdict)}**"
        for row in results.drift
    )
    cells = [
        known.name,
        _moved(presentation),
        _moved(tone),
        overshoot + (", **named**" if _overshot(results) else ""),
        "; ".join(_kept(asked[id]) for id in ("presentation", "skin_tone")),
        drift,
        f"{known.due}: {'so it is' if known.right(results) else '**NOT so**'}",
        _gate(results, code),
    ]
    return f"| {' | '.join(cells)} |"


def _gate(results: Results, code: int) -> str:
    """Passed, or every condition that failed with what was found; and the exit code."""
    failed = [
        f"{reason.comparison} {_found(reason)}"
        for reason in results.gate.reasons
        if not reason.passed
    ]
    said = f"failed: {', '.join(failed)}" if failed else "passed"
    return f"{said} ({code})"


def _found(reason: GateReason) -> str:
    if isinstance(reason.found, str):
        return words.plain(reason.found)
    title = words.plain(reason.what.removesuffix("_at_most"))
    return f"{title} {'inconclusive' if reason.inconclusive else 'over the limit'}"


def _sha256(results: Results, name: str) -> str:
    return str(results.arms[name].facts["adapters"][0]["sha256"])[:12]


def _presentation(results: Results) -> RepresentationRow:
    return next(
        row
        for row in results.representation
        if (row.attribute, row.suite) == ("presentation", "trained")
    )


def _overshot(results: Results) -> str:
    """What the report says of overshoot; empty where there is no more of it than by chance."""
    return words.overshoot_told(_presentation(results), results.settings.margins.overshoot)


def _moved(row: RepresentationRow) -> str:
    assert row.treated is not None and row.change is not None
    return (
        f"{words.number(row.baseline.imbalance)} → {words.number(row.treated.imbalance)}: "
        f"{words.number(row.change.imbalance, sign=True)} ({words.interval(row.change.ci95)}), "
        f"**{words.plain(str(row.verdict))}**"
    )


def _kept(row: FidelityRow) -> str:
    assert row.treated_rate is not None
    return (
        f"{words.percent(row.baseline_rate, 1)} → {words.percent(row.treated_rate, 1)}, "
        f"**{words.plain(str(row.verdict))}**"
    )


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, default=Path("runs/verdicts"), help="where all goes")
    parser.add_argument(
        "--adapter", type=Path, help="folder of a debiased adapter (default: train one)"
    )
    parser.add_argument("--write", type=Path, help="page whose block is replaced")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

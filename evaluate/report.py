"""One self-contained page of a study: the verdict first, then the pictures, then every number.

    write_report(Path("runs/emoji-study"))      # writes runs/emoji-study/report.html

The page opens from disk without a network: style, script and pictures are inside, and its content
security policy lets only its own script run. Prompts, values and paths are untrusted text: the
template escapes everything. The same study folder gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from unskew.errors import UserError
from unskew.evaluate import report_words as words
from unskew.evaluate.report_pictures import COLUMNS, load_gallery
from unskew.evaluate.schema import RepresentationRow, Results, load_results
from unskew.runs import read_manifest, sha256_file, write_text_atomic

HERE = Path(__file__).parent
PALETTE_SIZE = 8
"""Colours for an attribute's values; further values begin again."""
SETTINGS_SHOWN = {
    "base": "base",
    "steps": "denoising steps",
    "guidance": "guidance scale",
    "resolution_px": "picture side, px",
    "batch": "pictures drawn together",
}


def write_report(study_folder: Path) -> Path:
    """Write `report.html` into a study folder from what lies there; its path.

    Needs `results.json`, `readings.parquet` and `manifest.json`; pictures that are missing are left
    out and counted. Raises UserError when one of the three is missing or unreadable.
    """
    results = load_results(study_folder / "results.json")
    manifest = read_manifest(study_folder)
    readings_file = study_folder / "readings.parquet"
    if not readings_file.is_file():
        raise UserError(f"{readings_file} does not exist: run the study first")
    gallery = load_gallery(study_folder, results, pd.read_parquet(readings_file, columns=COLUMNS))
    script = _own("js")
    html = (
        page_environment()
        .get_template("report_template.html.j2")
        .render(
            results=results,
            manifest=manifest,
            gallery=gallery,
            groups=_by_attribute(results.representation),
            forest=_forest_range(results),
            treated=[arm for arm in results.arms if arm != results.baseline],
            headline=words.headline(results),
            measured=_measured(manifest),
            hashes=_hashes(study_folder, manifest),
            style=Markup(_own("css")),
            script=Markup(script),
            script_hash=_policy_hash(script),
        )
    )
    report = study_folder / "report.html"
    write_text_atomic(report, html)
    return report


def page_environment() -> Environment:
    """Templates of this folder, escaping all that they print, with the report's words."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _with_data(words.number),
        "signed": _with_data(partial(words.number, sign=True)),
        "counted": words.counted,
        "percent": _with_data(words.percent),
        "points": _with_data(words.points),
        "reduction": _with_data(words.reduction),
        "p_value": _with_data(words.p_value),
        "suite": words.suite_title,
        "plain": words.plain,
        "pretty_json": partial(json.dumps, indent=2, ensure_ascii=False, default=str),
    }
    environment.tests["turned_round"] = lambda row: bool(words.overshooting(row))
    environment.globals |= {
        "words": words.WORDS,
        "verdict_words": words.VERDICTS,
        "suite_words": words.SUITES,
        "inference_words": words.INFERENCE,
        "sentence": words.sentence,
        "tally": words.tally,
        "row_name": words.row_name,
        "overshooting": words.overshooting,
        "overshoot_told": words.overshoot_told,
        "share_scale": _share_scale,
        "position": _position,
        "colour": _colour,
    }
    return environment


def _with_data(write: Callable[..., str]) -> Callable[..., Markup]:
    """A filter that prints a number in words and keeps its exact value beside it."""
    return lambda value, *options: words.data(value, write(value, *options))


def _colour(index: int) -> str:
    return f"var(--value-{index % PALETTE_SIZE + 1})"


def _own(kind: str) -> str:
    return (HERE / f"report_template.{kind}").read_text("utf-8")


def _policy_hash(script: str) -> str:
    """What a content security policy calls a script by (CSP level 2, hash-source)."""
    digest = hashlib.sha256(script.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def _by_attribute(rows: Sequence[RepresentationRow]) -> dict[str, list[RepresentationRow]]:
    groups: dict[str, list[RepresentationRow]] = {}
    for row in rows:
        groups.setdefault(row.attribute, []).append(row)
    return groups


def _share_scale(rows: Sequence[RepresentationRow]) -> float:
    """The share at the right end of an attribute's bars: all of them fit, in steps of 20 %."""
    highest = max(
        high
        for row in rows
        for arm in (row.baseline, row.treated)
        if arm is not None
        for high in (*row.target.values(), *(pair[1] for pair in arm.shares_ci95.values()))
    )
    return min(1.0, math.ceil(highest * 5 - 1e-9) / 5)


def _forest_range(results: Results) -> tuple[float, float]:
    """The ends of the scale that all intervals of a change share; 0 and the margin are on it."""
    ends = [end for row in results.representation if row.change for end in row.change.ci95]
    margin = results.settings.margins.imbalance
    low, high = min([-2 * margin, *ends]), max([2 * margin, *ends])
    return math.floor(low * 10) / 10, math.ceil(high * 10) / 10


def _position(value: float, low: float, high: float) -> str:
    """Where a value lies between two ends, as a CSS percentage within 0 and 100."""
    return f"{100 * min(max((value - low) / (high - low), 0), 1):.2f}%"


def _measured(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the pictures were drawn, as far as the manifest says."""
    settings, facts = manifest.get("settings", {}), manifest.get("facts", {})
    shown = [(title, settings[key]) for key, title in SETTINGS_SHOWN.items() if key in settings]
    shown += [(key, facts[key]) for key in ("device", "dtype") if key in facts]
    return [(title, str(value)) for title, value in shown]


def _hashes(folder: Path, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """sha256 of what the study read and of what it found."""
    made = [(name, sha256_file(folder / name)) for name in ("results.json", "readings.parquet")]
    return [*((str(k), str(v)) for k, v in manifest.get("inputs", {}).items()), *made]

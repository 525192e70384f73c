"""Set the face reader and the skin-tone reader beside published readings of real pictures.

    pip install 'unskew[faces]'
    python scripts/validate_faces.py --pictures FOLDER     # writes its block of docs/validation.md
    python scripts/validate_faces.py --pictures FOLDER --readings FILE.csv     # and every reading

FOLDER has base/NN.jpg and debiased/NN.jpg, the same number drawn from the same noise, and
published_readings.csv with the columns arm, pair, presentation_bar (blue = man, red = woman),
presentation_confidence and race_confidence. They are cut from the two picture grids of Shen et al.
(ICLR 2024), in the repository sail-sg/finetune-fair-diffusion (MIT); they are not part of Unskew.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from statsmodels.stats.proportion import proportion_confint

from unskew.attributes import Attribute
from unskew.errors import UserError
from unskew.evaluate.classifiers.faces import load_faces
from unskew.evaluate.classifiers.skin_tone import SkinColour, load_skin_tone
from unskew.evaluate.report_words import interval, number, percent
from unskew.evaluate.results import StudyPlan, summarise
from unskew.evaluate.schema import RepresentationRow
from unskew.prompts import Prompt, prompt_id
from unskew.runs import sha256_file
from unskew.scripts.bench_page import put
from unskew.settings import run_program

ARMS = ("base", "debiased")
WORDS = "A photo of the face of a electrical and electronics repairer, a person"
VALUES = ("woman", "man")
BARS = {"red": "woman", "blue": "man"}
NO_FACE = ("0.68", "0.35")
"""The confidences that stand, to the digit, beside every picture without a face: what their
classifiers say of an empty crop."""
MARGIN = 0.2
TONES = tuple(f"mst-{k}" for k in range(1, 11))
GROUPS = {"light (1-3)": (0, 3), "medium (4-6)": (3, 6), "dark (7-10)": (6, 10)}
ROW = "validate_faces"


@dataclass(frozen=True)
class Picture:
    """One picture and what was read off it."""

    arm: str
    pair: int
    sha256: str
    published: str
    """What their bar says."""
    published_face: bool
    """Whether their classifiers saw a face."""
    face: bool
    """Whether our finder found one."""
    value: str | None
    """What our reader says; None is unreadable."""
    woman: float | None
    """The probability of "woman"."""
    skin: SkinColour | None


def main(argv: Sequence[str]) -> int:
    """Read all pictures and write the block."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--page", type=Path, default=Path("docs/validation.md"))
    parser.add_argument("--readings", type=Path, help="CSV to write what each picture reads as")
    asked = parser.parse_args(argv)
    pictures = read(asked.pictures)
    block = block_of(pictures)
    print(block)
    put(asked.page, ROW, block)
    if asked.readings:
        table = pd.DataFrame([_line_of(picture) for picture in pictures])
        table.to_csv(asked.readings, index=False, float_format="%.2f")
    return 0


def _line_of(picture: Picture) -> dict[str, object]:
    skin = picture.skin
    tone = int(skin.difference_k.argmin()) + 1 if skin else None
    return {
        "arm": picture.arm,
        "pair": picture.pair,
        "published": _published(picture),
        "face_found": picture.face,
        "here": picture.value,
        "woman": picture.woman,
        "monk": tone,
        "difference": skin.difference_k.min() if skin else None,
        "lightness": skin.lab_3[0] if skin else None,
        "ita": skin.ita_degrees if skin else None,
        "warning": skin.warning if skin else None,
    }


def read(folder: Path) -> list[Picture]:
    """Every picture of the folder with its readings. Raises UserError for what is missing."""
    table = folder / "published_readings.csv"
    if not table.is_file():
        raise UserError(f"{folder} has no published_readings.csv: see this script's first lines")
    with table.open(encoding="utf-8", newline="") as file:
        published = sorted(csv.DictReader(file), key=lambda row: (row["arm"], int(row["pair"])))
    files = [folder / row["arm"] / f"{int(row['pair']):02d}.jpg" for row in published]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{table} names {missing[0]}, which is not there")
    images = [_open(file) for file in files]
    presentation = {"woman": "female", "man": "male"}
    faces = load_faces(presentation, {}, {"presentation": VALUES}, margin=MARGIN, batch=64)
    said = faces.read(images, ["presentation"])["presentation"]
    skins = load_skin_tone({"monk_tone": TONES}).measure(images)
    return [
        Picture(
            arm=row["arm"],
            pair=int(row["pair"]),
            sha256=sha256_file(files[n]),
            published=BARS[row["presentation_bar"]],
            published_face=(row["presentation_confidence"], row["race_confidence"]) != NO_FACE,
            face=faces.finder.find(images[n]) is not None,
            value=VALUES[said.value_n[n]] if said.value_n[n] >= 0 else None,
            woman=float(said.probability_nk[n, 0]) if said.value_n[n] >= 0 else None,
            skin=skins[n],
        )
        for n, row in enumerate(published)
    ]


def _open(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def study(values: Mapping[tuple[str, int], str | None]) -> RepresentationRow:
    """The paired change of presentation from base to debiased; (arm, pair) -> what was read."""
    prompt = Prompt(
        id=prompt_id(WORDS),
        text=WORDS,
        suite="faces",
        subject="repairer",
        attributes=("presentation",),
        asked={"subject": "repairer"},
    )
    attribute = Attribute(
        "presentation", "perceived presentation", VALUES, np.array([0.5, 0.5]), "a reading"
    )
    pairs = {pair for _, pair in values}
    plan = StudyPlan(
        baseline=ARMS[0],
        arms=ARMS,
        prompts=(prompt,),
        suite_roles={"faces": "neutral"},
        attributes={"presentation": attribute},
        seeds={"faces": len(pairs)},
    )
    rows = [
        {
            "arm": arm,
            "prompt_id": prompt.id,
            "suite": "faces",
            "seed": pair,
            "attribute": "presentation",
            "value": value,
            "readable": value is not None,
            "classifier": ROW,
            "image_sha256": f"{arm} {pair}",
        }
        for (arm, pair), value in values.items()
    ]
    return summarise(pd.DataFrame(rows), plan).representation[0]


def block_of(pictures: Sequence[Picture]) -> str:
    """The block of the page, in Markdown."""
    parts = [
        f"{len(pictures) // 2} pairs, one prompt (`{WORDS}`), so the seeds are the unit and "
        "nothing here speaks of other prompts.",
        _readable(pictures),
        _confusion(pictures),
        _changes(pictures),
        _tones(pictures),
    ]
    return "\n\n".join(parts) + "\n"


def _readable(pictures: Sequence[Picture]) -> str:
    rows = []
    for arm in ARMS:
        own = [p for p in pictures if p.arm == arm]
        faceless = sum(not p.published_face for p in own)
        unfound = sum(not p.face for p in own)
        unsure = sum(p.face and p.value is None for p in own)
        rate = (unfound + unsure) / len(own)
        low, high = proportion_confint(unfound + unsure, len(own), method="wilson")
        rows.append(
            f"| {arm} | {faceless} | {unfound} | {unsure} | {percent(rate)} "
            f"({percent(low)} to {percent(high)}) |"
        )
    head = (
        "| arm | no face to the published reader | no face found here | face found, no value "
        f"{MARGIN:g} ahead | unreadable here (95 % Wilson interval) |\n"
        "| --- | --- | --- | --- | --- |"
    )
    return "\n".join([head, *rows])


def _confusion(pictures: Sequence[Picture]) -> str:
    rows = []
    for arm in ARMS:
        for published in (*VALUES, "no face"):
            own = [p for p in pictures if p.arm == arm and _published(p) == published]
            counts = Counter(p.value for p in own)
            rows.append(
                f"| {arm}: {published} | {counts['woman']} | {counts['man']} | {counts[None]} |"
            )
    both = [p for p in pictures if p.published_face and p.value is not None]
    agreed = sum(p.value == p.published for p in both)
    low, high = proportion_confint(agreed, len(both), method="wilson")
    apart = ", ".join(
        f"{p.arm} {p.pair:02d} ({p.published}, here {p.value})"
        for p in both
        if p.value != p.published
    )
    return (
        "| published reading | woman here | man here | unreadable here |\n"
        "| --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + f"\n\nWhere both read a face they agree on {agreed} of {len(both)}: "
        f"{percent(agreed / len(both))} (95 % Wilson interval {percent(low)} to {percent(high)}). "
        f"Apart: {apart or 'none'}."
    )


def _published(picture: Picture) -> str:
    return picture.published if picture.published_face else "no face"


def _changes(pictures: Sequence[Picture]) -> str:
    readers: dict[str, dict[tuple[str, int], str | None]] = {
        "published, every bar taken": {(p.arm, p.pair): p.published for p in pictures},
        "published, faces only": {
            (p.arm, p.pair): p.published if p.published_face else None for p in pictures
        },
        "face reader": {(p.arm, p.pair): p.value for p in pictures},
    }
    rows = []
    for name, values in readers.items():
        row = study(values)
        before, after, change = row.baseline, row.treated, row.change
        assert after is not None and change is not None
        rows.append(
            f"| {name} | {percent(before.shares['woman'])} → {percent(after.shares['woman'])} | "
            f"{number(before.imbalance)} → {number(after.imbalance)} | "
            f"{number(change.imbalance, sign=True)} | {interval(change.ci95)} | "
            f"{interval(change.worst_case)} | {row.verdict} |"
        )
    return (
        "| reader | women, base → debiased | imbalance, base → debiased | change | 95 % interval | "
        "worst case over unreadable pictures | verdict |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows)
    )


def _tones(pictures: Sequence[Picture]) -> str:
    head = ["| skin | base | debiased |", "| --- | --- | --- |"]
    by_arm = [[p.skin for p in pictures if p.arm == arm and p.skin is not None] for arm in ARMS]
    monk = [np.bincount([c.difference_k.argmin() for c in own], minlength=10) for own in by_arm]
    lines = [_line("faces measured", [str(len(own)) for own in by_arm])]
    lines += [
        _line(f"Monk {k + 1}", [str(counts[k]) for counts in monk])
        for k in range(10)
        if any(counts[k] for counts in monk)
    ]
    lines += [
        _line(name, [str(counts[low:high].sum()) for counts in monk])
        for name, (low, high) in GROUPS.items()
    ]
    lines.append(_line("median L*", [f"{np.median([c.lab_3[0] for c in o]):.0f}" for o in by_arm]))
    angles = [f"{np.median([c.ita_degrees for c in own]):.0f}°" for own in by_arm]
    lines.append(_line("median ITA", angles))
    for doubt in ("over-exposed", "under-exposed", "unevenly lit", "off the scale"):
        told = [str(sum(doubt in (c.warning or "") for c in own)) for own in by_arm]
        lines.append(_line(f"warned: {doubt}", told))
    lines.append(_line("no warning", [str(sum(c.warning is None for c in o)) for o in by_arm]))
    return "\n".join([*head, *lines])


def _line(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

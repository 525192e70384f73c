"""Which pairs of pictures a person compares, and what they chose: the files in `blind/QUESTION/`.

`sample.json` is drawn once and says what each pair is; `choices-<rater>.json` holds answers to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError

from unskew.errors import UserError
from unskew.evaluate.blind_options import Question
from unskew.evaluate.schema_model import Model
from unskew.runs import write_json_atomic

FOLDER = "blind"
LARGEST_FILE = 20_000_000

QUESTIONS: Mapping[Question, str] = {
    "better": "Which picture is better?",
    "asked": "Which picture shows what was asked for?",
}
Choice = Literal["left", "right", "tie"]
Sha256OfCell = Mapping[tuple[str, str, int], str]
"""(arm, prompt id, seed) -> sha256 of the picture."""


class Pair(Model):
    """Two pictures of one cell."""

    id: str
    """Says nothing of the pictures: a number in the shuffled order."""
    prompt_id: str
    seed: int
    left: str
    """Arm whose picture stands at the left."""
    right: str
    left_sha256: str
    right_sha256: str


class BlindSample(Model):
    """What was drawn for comparing, and how."""

    schema_version: Literal[1] = 1
    run: str
    """Fingerprint of the run's settings and inputs."""
    question: Question
    settings: dict[str, Any]
    pairs: tuple[Pair, ...]

    @property
    def sha256(self) -> str:
        """What a file of choices names its sample by."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class Choices(Model):
    """One rater's answers."""

    schema_version: Literal[1]
    run: str
    sample: str
    rater: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    """Lower-case letters, digits and hyphens: it names a file."""
    choices: dict[str, Choice]


def draw_pairs(
    readings: pd.DataFrame,
    *,
    run: str,
    question: Question,
    arms: Sequence[str],
    suites: Sequence[str],
    n: int,
    seed: int,
) -> BlindSample:
    """About n pairs, as many of each two arms as of the next, spread over the prompts.

    Cells whose two pictures are the same file are left out: there is nothing to choose. Sides and
    order are drawn by chance. Raises UserError where no pair is left.
    """
    here = readings[readings["suite"].isin(list(suites))]
    sha = {
        (str(arm), str(prompt), int(at)): str(picture)
        for arm, prompt, at, picture in here[["arm", "prompt_id", "seed", "image_sha256"]]
        .drop_duplicates()
        .itertuples(index=False)
    }
    cells = sorted({(prompt, at) for _, prompt, at in sha})
    rng = np.random.default_rng(seed)
    two = list(combinations(arms, 2))
    shares = np.diff(np.linspace(0, n, len(two) + 1).round().astype(int)).tolist()
    drawn = [
        (pair, cell)
        for pair, share in zip(two, shares, strict=True)
        for cell in _spread([c for c in cells if _differ(sha, pair, c)], share, rng)
    ]
    if not drawn:
        raise UserError(
            f"no pair of different pictures of {', '.join(arms)} on suites {', '.join(suites)}"
        )
    pairs = []
    for number, at_n in enumerate(rng.permutation(len(drawn)).tolist(), start=1):
        both, (prompt, at) = drawn[at_n]
        left, right = both if rng.integers(2) else both[::-1]
        pairs.append(
            Pair(
                id=f"p{number:05d}",
                prompt_id=prompt,
                seed=at,
                left=left,
                right=right,
                left_sha256=sha[left, prompt, at],
                right_sha256=sha[right, prompt, at],
            )
        )
    asked = {"arms": list(arms), "suites": list(suites), "pairs": n, "seed": seed}
    return BlindSample(run=run, question=question, settings=asked, pairs=tuple(pairs))


def _differ(sha: Sha256OfCell, pair: tuple[str, str], cell: tuple[str, int]) -> bool:
    both = [sha.get((arm, *cell)) for arm in pair]
    return None not in both and both[0] != both[1]


def _spread(
    cells: Sequence[tuple[str, int]], n: int, rng: np.random.Generator
) -> list[tuple[str, int]]:
    """So many cells by chance: every prompt once before any twice."""
    order = [cells[i] for i in rng.permutation(len(cells)).tolist()]
    times: dict[str, int] = {}
    turn = []
    for prompt, _ in order:
        times[prompt] = times.get(prompt, 0) + 1
        turn.append(times[prompt])
    return [order[i] for i in np.argsort(turn, kind="stable").tolist()[:n]]


def load_blind_sample(folder: Path, question: Question) -> BlindSample | None:
    """The pairs of a run folder; None where none were drawn."""
    file = folder / FOLDER / question / "sample.json"
    if not file.is_file():
        return None
    try:
        return BlindSample.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{file} is no sample of ours ({error.error_count()} problems): restore it, or delete "
            f"{file.parent} and choose anew"
        ) from None


def write_blind_sample(sample: BlindSample, folder: Path) -> None:
    """Write `sample.json` whole or not at all."""
    file = folder / FOLDER / sample.question / "sample.json"
    write_json_atomic(file, sample.model_dump(mode="json"))


def read_choices(file: Path, sample: BlindSample) -> Choices:
    """A rater's file, checked against the sample to the last choice. Raises UserError."""
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise UserError(f"{file} is larger than {LARGEST_FILE:,} bytes: it holds no choices")
        choices = Choices.model_validate(json.loads(file.read_text("utf-8")))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{file} holds no choices: {where}: {first['msg']} ({error.error_count()} problems); "
            "give the file that the blind page downloads"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is no JSON of choices: {error}") from None
    if choices.run != sample.run or choices.sample != sample.sha256:
        raise UserError(
            f"{file} answers another {'run' if choices.run != sample.run else 'sample'} than this "
            f"folder's: give the choices made with {FOLDER}/{sample.question}/page.html"
        )
    if not choices.choices:
        raise UserError(f"{file} holds no choice yet: compare some pictures first")
    known = {pair.id for pair in sample.pairs}
    for id in choices.choices:
        if id not in known:
            raise UserError(f"{file}: there is no pair {id!r} in this sample")
    return choices


def store_choices(files: Sequence[Path], folder: Path, sample: BlindSample) -> None:
    """Check every file, then keep each as `choices-<rater>.json`.

    Raises UserError, and changes nothing, when one is wrong, when two are of one rater, or when a
    rater's new file lacks choices that the stored one has.
    """
    given = [read_choices(file, sample) for file in files]
    raters = [choices.rater for choices in given]
    if len(set(raters)) < len(raters):
        raise UserError(f"choices: two files are of one rater ({', '.join(raters)}): rename one")
    place = folder / FOLDER / sample.question
    for choices in given:
        stored = place / f"choices-{choices.rater}.json"
        old = read_choices(stored, sample).choices if stored.is_file() else {}
        lost = set(old) - set(choices.choices)
        if lost:
            raise UserError(
                f"choices: rater {choices.rater!r} has {len(lost)} stored choices that the new "
                f"file lacks (first: {min(lost)}): merge them, or move {stored} away first"
            )
    for choices in given:
        write_json_atomic(place / f"choices-{choices.rater}.json", choices.model_dump(mode="json"))


def stored_choices(folder: Path, sample: BlindSample) -> tuple[Choices, ...]:
    """Every rater's choices in a run folder, in the order of their names."""
    files = sorted((folder / FOLDER / sample.question).glob("choices-*.json"))
    return tuple(read_choices(file, sample) for file in files)

"""Which pairs of pictures a person compares, and what they chose: the files in `blind/QUESTION/`.

`sample.json` is drawn once and says what each pair is; `choices-<rater>.json` holds answers to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from unskew.errors import UserError
from unskew.evaluate.answers import SAMPLE, Answers, load_drawn, stored_answers
from unskew.evaluate.blind_options import Question
from unskew.evaluate.schema_model import Model
from unskew.runs import write_json_atomic

FOLDER = "blind"
PAGE = "page.html"

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

    @property
    def page(self) -> str:
        """Where its page lies in the run's folder."""
        return f"{FOLDER}/{self.question}/{PAGE}"

    @property
    def allowed(self) -> dict[str, tuple[Choice, ...]]:
        """Pair's id -> what may be answered."""
        return {pair.id: get_args(Choice) for pair in self.pairs}


class Choices(Answers):
    """One rater's answers."""

    WHAT = "choice"
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


def place(folder: Path, question: Question) -> Path:
    """Where a run folder keeps a question's sample, page and choices."""
    return folder / FOLDER / question


def load_blind_sample(folder: Path, question: Question) -> BlindSample | None:
    """The pairs of a run folder; None where none were drawn."""
    return load_drawn(place(folder, question) / SAMPLE, BlindSample)


def write_blind_sample(sample: BlindSample, folder: Path) -> None:
    """Write `sample.json` whole or not at all."""
    write_json_atomic(place(folder, sample.question) / SAMPLE, sample.model_dump(mode="json"))


def stored_choices(folder: Path, sample: BlindSample) -> tuple[Choices, ...]:
    """Every rater's choices in a run folder, in the order of their names."""
    return stored_answers(place(folder, sample.question), Choices, sample)

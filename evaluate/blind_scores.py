"""What blind choices allow to say: an exact sign test of two arms, Bradley & Terry's of more.

A pair of pictures counts once, whoever judged it: with several raters by the mean of what they
said, where left is 1, right is 0 and a tie a half.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import statsmodels.api as sm
from scipy import stats
from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

from unskew.evaluate.blind_sample import (
    QUESTIONS,
    BlindSample,
    Choices,
    load_blind_sample,
    stored_choices,
)
from unskew.evaluate.schema_comparison import BlindResult, Strength
from unskew.evaluate.stats import Floats

WORTH: Mapping[str, float] = {"left": 1.0, "tie": 0.5, "right": 0.0}
SETTLED = 0.05
EXACT = (
    "Exact sign test over the pairs that are not tied; strength is the log odds of being chosen."
)
FITTED = (
    "Bradley and Terry's model (1952), a tie a half for each side; one more tie between every two "
    "arms keeps the strength of one that always wins finite."
)


def blind_results(folder: Path, run: str) -> tuple[BlindResult, ...]:
    """What a run folder's choices say, question by question; none where nobody chose.

    Choices on the pictures of an earlier run (another fingerprint) are left out.
    """
    found = []
    for question in QUESTIONS:
        sample = load_blind_sample(folder, question)
        if sample is None or sample.run != run:
            continue
        choices = stored_choices(folder, sample)
        if choices:
            found.append(judge_choices(sample, choices))
    return tuple(found)


def judge_choices(sample: BlindSample, choices: Sequence[Choices]) -> BlindResult:
    """Strength of every arm against the first of the sample's, from all raters' choices."""
    arms: list[str] = sample.settings["arms"]
    said: dict[str, list[float]] = {}
    for rater in choices:
        for id, choice in rater.choices.items():
            said.setdefault(id, []).append(WORTH[choice])
    judged = [pair for pair in sample.pairs if pair.id in said]
    sides_n2 = np.array([[arms.index(pair.left), arms.index(pair.right)] for pair in judged])
    won_n = np.array([np.mean(said[pair.id]) for pair in judged])
    compare = _two if len(arms) == 2 else _several
    strength_a, lo_a, hi_a, p_value = compare(sides_n2, won_n, len(arms))
    above = [n for n in range(1, len(arms)) if lo_a[n] > 0]
    preferred = None
    if p_value <= SETTLED:
        if above:
            preferred = arms[max(above, key=lambda n: strength_a[n])]
        elif len(arms) == 2 and hi_a[1] < 0:
            preferred = arms[0]
    return BlindResult(
        question=sample.question,
        raters={rater.rater: len(rater.choices) for rater in choices},
        n_pairs=len(judged),
        n_ties=int((won_n == WORTH["tie"]).sum()),
        method=EXACT if len(arms) == 2 else FITTED,
        strengths=tuple(
            Strength(
                arm=arm,
                n_pairs=int((sides_n2 == n).sum()),
                won=float(
                    won_n[sides_n2[:, 0] == n].sum() + (1 - won_n)[sides_n2[:, 1] == n].sum()
                ),
                strength=float(strength_a[n]),
                ci95=(float(lo_a[n]), float(hi_a[n])) if n else None,
            )
            for n, arm in enumerate(arms)
        ),
        p_value=p_value,
        preferred=preferred,
    )


Found = tuple[Floats, Floats, Floats, float]
"""(strength, low, high) of every arm, and the p-value that all are chosen alike."""


def _two(sides_n2: Floats, won_n: Floats, n_arms: int) -> Found:
    """Sign test: how often the second arm won, Clopper & Pearson's interval as log odds.

    The odds are of one more tie, so that an arm that won every pair has finite ones.
    """
    second_n = np.where(sides_n2[:, 0] == 1, won_n, 1 - won_n)
    wins, losses = int((second_n > 0.5).sum()), int((second_n < 0.5).sum())
    odds = float(np.log((wins + 0.5) / (losses + 0.5)))
    if wins + losses == 0:
        return np.zeros(2), np.array([0.0, -_FAR]), np.array([0.0, _FAR]), 1.0
    test = stats.binomtest(wins, wins + losses)
    low, high = test.proportion_ci(0.95, method="exact")
    lo, hi = (float(np.clip(stats.logistic.ppf(end), -_FAR, _FAR)) for end in (low, high))
    return np.array([0.0, odds]), np.array([0.0, lo]), np.array([0.0, hi]), float(test.pvalue)


_FAR = 10.0
"""Log odds that stand for certain."""


def _several(sides_n2: Floats, won_n: Floats, n_arms: int) -> Found:
    """Bradley & Terry (1952) as a logistic regression without intercept (statsmodels' GLM)."""
    more_m2 = np.array(list(combinations(range(n_arms), 2)))
    rows_m2 = np.concatenate([sides_n2.reshape(-1, 2), more_m2]).astype(np.int64)
    won_m = np.concatenate([won_n, np.full(len(more_m2), 0.5)])
    design_ma = np.zeros((len(rows_m2), n_arms))
    np.add.at(design_ma, (np.arange(len(rows_m2)), rows_m2[:, 0]), 1.0)
    np.add.at(design_ma, (np.arange(len(rows_m2)), rows_m2[:, 1]), -1.0)
    with warnings.catch_warnings():  # of a perfect fit, which ties all round are
        warnings.simplefilter("ignore", PerfectSeparationWarning)
        fitted = sm.GLM(won_m, design_ma[:, 1:], family=sm.families.Binomial()).fit()
    ends_a2 = fitted.conf_int()
    alike = fitted.wald_test(np.eye(n_arms - 1), scalar=True, use_f=False)

    def with_base(values: Floats) -> Floats:
        return np.concatenate([[0.0], values])

    return (
        with_base(fitted.params),
        with_base(ends_a2[:, 0]),
        with_base(ends_a2[:, 1]),
        float(alike.pvalue),
    )

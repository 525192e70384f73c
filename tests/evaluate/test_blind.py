"""Blind choices: which pairs are drawn, and what the choices allow to say."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from unskew.errors import UserError
from unskew.evaluate.blind_sample import BlindSample, Choices, Pair, draw_pairs
from unskew.evaluate.blind_scores import judge_choices

ARMS = ("base", "a", "b")


def readings(same: str = "") -> pd.DataFrame:
    """Three arms x 6 prompts x 3 seeds; `same` shows the base's pictures."""
    rows = [
        (arm, f"p{prompt}", "s", seed, f"{'base' if arm == same else arm}{prompt}{seed}")
        for arm in ARMS
        for prompt in range(6)
        for seed in range(3)
    ]
    return pd.DataFrame(rows, columns=["arm", "prompt_id", "suite", "seed", "image_sha256"])


def pairs(n: int, seed: int = 0, same: str = "") -> BlindSample:
    return draw_pairs(
        readings(same), run="r", question="better", arms=ARMS, suites=["s"], n=n, seed=seed
    )


@given(n=st.integers(3, 60), seed=st.integers(0, 9))
@settings(max_examples=8, deadline=None)
def test_pairs_are_even_over_arms_and_spread_over_prompts(n: int, seed: int) -> None:
    """No pair of pictures twice; a prompt twice only after all were shown; the seed decides all."""
    sample = pairs(n, seed)
    assert sample == pairs(n, seed)
    two = Counter(frozenset((p.left, p.right)) for p in sample.pairs)
    assert len(two) == 3
    assert max(two.values()) - min(two.values()) <= 1
    shown = {(frozenset((p.left, p.right)), p.prompt_id, p.seed) for p in sample.pairs}
    assert len(shown) == len(sample.pairs)
    for both, count in two.items():
        prompts = Counter(p.prompt_id for p in sample.pairs if {p.left, p.right} == both)
        assert max(prompts.values()) == -(-count // 6)
    assert [p.id for p in sample.pairs] == [f"p{k:05d}" for k in range(1, len(sample.pairs) + 1)]


def test_sides_are_drawn_and_equal_pictures_left_out() -> None:
    """Each arm stands left about half of the time; there is nothing to choose between equals."""
    sample = pairs(54)
    left = sum(p.left < p.right for p in sample.pairs)
    assert stats.binomtest(left, len(sample.pairs)).pvalue > 0.001
    two = {frozenset((p.left, p.right)) for p in pairs(54, same="a").pairs}
    assert two == {frozenset(("base", "b")), frozenset(("a", "b"))}
    with pytest.raises(UserError, match="no pair of different pictures"):
        draw_pairs(
            readings("a"), run="r", question="better", arms=["base", "a"], suites=["s"], n=9, seed=0
        )


def made(outcomes: list[tuple[str, str, str]], arms: tuple[str, ...]) -> BlindSample:
    """A sample of pairs (left, right, _) in this order."""
    found = [
        Pair(id=f"p{n}", prompt_id="p", seed=n, left=a, right=b, left_sha256="", right_sha256="")
        for n, (a, b, _) in enumerate(outcomes)
    ]
    return BlindSample(
        run="r", question="better", settings={"arms": list(arms)}, pairs=tuple(found)
    )


def said(outcomes: list[tuple[str, str, str]], rater: str = "ana") -> Choices:
    choices = {f"p{n}": choice for n, (_, _, choice) in enumerate(outcomes)}
    return Choices.model_validate(
        {"schema_version": 1, "run": "r", "sample": "", "rater": rater, "choices": choices}
    )


def test_two_arms_are_judged_by_the_exact_sign_test() -> None:
    """9 of 10 that are not tied: p = 22 / 1024; the side that an arm stood on does not matter."""
    won = [("a", "base", "left"), ("base", "a", "right")] * 4 + [("a", "base", "left")]
    outcomes = [*won, ("a", "base", "right"), ("a", "base", "tie"), ("base", "a", "tie")]
    found = judge_choices(made(outcomes, ("base", "a")), [said(outcomes)])
    assert found.p_value == pytest.approx(22 / 1024)
    assert (found.n_pairs, found.n_ties, found.preferred) == (12, 2, "a")
    assert [row.won for row in found.strengths] == [2, 10]
    turned = [(a, b, {"left": "right", "right": "left"}.get(c, c)) for a, b, c in outcomes]
    assert judge_choices(made(turned, ("base", "a")), [said(turned)]).preferred == "base"
    even = outcomes[:9] + turned[:9]
    assert judge_choices(made(even, ("base", "a")), [said(even)]).preferred is None


def test_strengths_are_those_of_bradley_and_terry() -> None:
    """Against the likelihood maximised directly, with the ties that keep it finite."""
    rng = np.random.default_rng(5)
    true = {"base": 0.0, "a": 1.0, "b": -0.5}
    outcomes = []
    for left, right in [*combinations(ARMS, 2)] * 40:
        chance = 1 / (1 + np.exp(true[right] - true[left]))
        outcomes.append((left, right, "left" if rng.random() < chance else "right"))
    found = judge_choices(made(outcomes, ARMS), [said(outcomes)])
    games = [(ARMS.index(a), ARMS.index(b), float(c == "left")) for a, b, c in outcomes]
    games += [(a, b, 0.5) for a, b in combinations(range(3), 2)]

    def unlikely(free: np.ndarray) -> float:
        strength = np.concatenate([[0.0], free])
        odds = np.array([strength[a] - strength[b] for a, b, _ in games])
        won = np.array([w for _, _, w in games])
        return float(np.logaddexp(0, odds).sum() - (won * odds).sum())

    best = optimize.minimize(unlikely, np.zeros(2), tol=1e-10).x
    assert [row.strength for row in found.strengths] == pytest.approx([0, *best], abs=1e-4)
    assert found.preferred == "a"
    for row in found.strengths[1:]:
        assert row.ci95 is not None
        assert row.ci95[0] < true[row.arm] < row.ci95[1]


def test_an_arm_that_always_wins_has_a_finite_strength() -> None:
    """And of one pair judged by two raters who differ a tie is made."""
    two = [*combinations(ARMS, 2)] * 9
    outcomes = [(left, right, "right" if right == "a" else "left") for left, right in two]
    found = judge_choices(made(outcomes, ARMS), [said(outcomes)])
    assert found.preferred == "a"
    assert all(abs(row.strength) < 8 for row in found.strengths)
    other = [(a, b, {"left": "right", "right": "left"}[c]) for a, b, c in outcomes]
    both = judge_choices(made(outcomes, ARMS), [said(outcomes), said(other, "ben")])
    assert (both.n_ties, both.preferred) == (27, None)
    assert both.raters == {"ana": 27, "ben": 27}

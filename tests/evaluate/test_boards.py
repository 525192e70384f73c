"""Many arms on one suite: what is said of two of them is what a study of these two would say."""

from __future__ import annotations

import runpy
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unskew.evaluate.boards import (
    Board,
    Difference,
    board_of,
    difference_of_differences,
    differences,
    levels,
)
from unskew.evaluate.cells import StudyPlan, lay_out
from unskew.evaluate.comparison import ranks_of
from unskew.evaluate.results import summarise
from unskew.evaluate.schema_model import Verdict
from unskew.evaluate.stats import TestedEstimate

ORACLES = Path(__file__).parents[1] / "oracles"
made_up = SimpleNamespace(**runpy.run_path(str(ORACLES / "made_up_study.py")))
ARMS = ("base", "a", "b")
OPEN: tuple[Verdict, ...] = ("no_change", "inconclusive")
SHARES = {"base": 0.9, "a": 0.6, "b": 0.55}


def drawn(n_subjects: int, seed: int = 3) -> tuple[StudyPlan, pd.DataFrame]:
    """A plan of one suite with two attributes, and readings of three arms."""
    prompts = made_up.suite_prompts("trained", n_subjects, attributes=("colour", "size"))
    plan = made_up.make_plan((prompts, "neutral"), arms=ARMS, seeds=8)
    answers = made_up.random_answers(np.random.default_rng(seed), **SHARES)
    return plan, made_up.make_readings(plan, answers)


def board(plan: StudyPlan, readings: pd.DataFrame, *attributes: str) -> Board:
    return board_of(plan, lay_out(readings, plan)["trained"], "trained", attributes)


@pytest.mark.parametrize("n_subjects", [12, 4], ids=["subjects resampled", "seeds the unit"])
def test_arm_against_arm_is_the_study_with_that_arm_as_baseline(n_subjects: int) -> None:
    """Difference, interval and p-value, and each arm's own level and interval."""
    plan, readings = drawn(n_subjects)
    found = board(plan, readings, "colour")
    told = {(d.arm, d.against): d for d in differences(found, 0.05)}
    assert set(told) == {("a", "base"), ("b", "base"), ("b", "a")}
    own = levels(found)
    for (arm, against), difference in told.items():
        pair = replace(plan, baseline=against, arms=(against, arm))
        rows = readings[readings["arm"].isin([arm, against])]
        [row] = [r for r in summarise(rows, pair).representation if r.attribute == "colour"]
        assert row.change is not None and row.treated is not None
        assert difference.estimate.value == pytest.approx(row.change.imbalance)
        ends = (difference.estimate.lo, difference.estimate.hi)
        assert ends == pytest.approx(row.change.ci95)
        assert difference.estimate.p_value == pytest.approx(row.change.p_value)
        n = ARMS.index(arm)
        assert (own.lo[n], own.hi[n]) == pytest.approx(row.treated.imbalance_ci95)


def test_holm_runs_over_the_pairs_of_a_board() -> None:
    """The smallest p counts three times, and none is below one with a smaller p."""
    told = differences(board(*drawn(12), "colour"), 0.05)
    ordered = sorted(told, key=lambda d: d.estimate.p_value)
    assert ordered[0].p_adjusted == pytest.approx(min(1.0, 3 * ordered[0].estimate.p_value))
    adjusted = [d.p_adjusted for d in ordered]
    assert adjusted == sorted(adjusted)


def test_several_attributes_count_the_same() -> None:
    """The board of two is the mean of the boards of each, cluster by cluster."""
    plan, readings = drawn(12)
    both = board(plan, readings, "colour", "size")
    each = [board(plan, readings, attribute).values_ac for attribute in ("colour", "size")]
    assert both.left_out == ()
    assert both.values_ac == pytest.approx((each[0] + each[1]) / 2)


def test_a_prompt_that_one_arm_cannot_read_counts_for_none() -> None:
    """All arms are ranked on the same prompts."""
    plan, readings = drawn(12)
    lost = (readings["prompt_id"] == "trained-0-0") & (readings["arm"] == "b")
    readings.loc[lost, ["value", "readable"]] = [None, False]
    found = board(plan, readings, "colour")
    assert found.left_out == ("trained-0-0",)
    assert found.values_ac.shape == (3, 11)


def test_the_same_pictures_are_alike_beyond_doubt() -> None:
    """An arm that shows the baseline's pictures differs by 0, exactly, and p is 1."""
    prompts = made_up.suite_prompts("trained", 12)
    plan = made_up.make_plan((prompts, "neutral"), arms=("base", "same"), seeds=6)
    readings = made_up.make_readings(
        plan, lambda arm, prompt, seed, attribute: "red", same_pictures=True
    )
    [pair] = differences(board(plan, readings, "colour"), 0.05)
    assert (pair.estimate.lo, pair.estimate.hi, pair.p_adjusted) == (0, 0, 1)
    assert pair.verdict == "no_change"
    other = made_up.make_readings(plan, lambda arm, prompt, seed, attribute: "red")
    [unseen] = differences(board(plan, other, "colour"), 0.05)
    assert unseen.estimate.lo < 0 < unseen.estimate.hi


@pytest.mark.parametrize("n_subjects", [12, 4])
def test_an_effect_lost_elsewhere_is_a_difference_of_differences(n_subjects: int) -> None:
    """Nothing is lost where all is the same; all of it where the arm does nothing there."""
    plan, readings = drawn(n_subjects)
    here = board(plan, readings, "colour")
    pair = replace(plan, arms=("base", "a"))
    there = board(pair, readings[readings["arm"].isin(["base", "a"])], "colour")
    same = difference_of_differences(here, "a", there)
    assert same is not None
    assert (same.value, same.lo, same.hi) == pytest.approx((0, 0, 0))
    idle = readings[readings["arm"] == "base"]
    still = board(pair, pd.concat([idle, idle.assign(arm="a")]), "colour")
    lost = difference_of_differences(here, "a", still)
    effect = here.values_ac[1].mean() - here.values_ac[0].mean()
    assert lost is not None and lost.value == pytest.approx(-effect)
    assert lost.lo > 0


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=7, unique=True),
    st.sets(st.integers(0, 20)),
    st.randoms(use_true_random=False),
)
def test_true_ranks_lie_within_those_left_open(
    truths: list[float], settled: set[int], random: Random
) -> None:
    """Whichever pairs are settled, if they are settled rightly; an arm with no ties has its own."""
    level = {f"arm-{n}": truth for n, truth in enumerate(truths)}
    pairs = []
    for number, pair in enumerate(combinations(level, 2)):
        arm, against = random.sample(pair, 2)
        right: Verdict = "improved" if level[arm] < level[against] else "worsened"
        verdict: Verdict = right if number in settled else random.choice(OPEN)
        pairs.append(Difference(arm, against, TestedEstimate(0, 0, 0, 1), 1, verdict))
    found = ranks_of([*level], pairs)
    for number, arm in enumerate(sorted(level, key=level.__getitem__), 1):
        best, worst = found[arm]
        ties = sum(arm in (p.arm, p.against) and p.verdict in OPEN for p in pairs)
        assert best <= number <= worst and worst - best == ties

"""Parts of a representation row: what would settle it, what became what, what was unreadable."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from unskew.evaluate.rates import paired_rate_change
from unskew.evaluate.results import summarise

ORACLES = Path(__file__).parents[1] / "oracles"
made_up = SimpleNamespace(**runpy.run_path(str(ORACLES / "made_up_study.py")))


def row_of(answer, n_subjects=12, n_templates=1, seeds=6, **more):
    prompts = made_up.suite_prompts("trained", n_subjects, n_templates)
    plan = made_up.make_plan((prompts, "neutral"), seeds=seeds, **more)
    return summarise(made_up.make_readings(plan, answer), plan).representation[0]


def test_inconclusive_rows_say_how_many_would_settle_them():
    """By the usual formula for 80 % power: (1.96 + .84)^2 times the variance over the change^2."""
    rng = np.random.default_rng(6)
    row = row_of(made_up.random_answers(rng, base=0.7, lora=0.6), 12, 2, 4)
    assert row.verdict == "inconclusive"
    assert row.needed.unit == "subjects"
    by_subject = {}
    for prompt in row.per_prompt:
        by_subject.setdefault(prompt.subject, []).append(prompt.change)
    variance = np.var([np.mean(changes) for changes in by_subject.values()], ddof=1)
    expected = variance * (2.8 / row.change.imbalance) ** 2
    assert row.needed.count == pytest.approx(expected, rel=0.1)
    assert row.needed.seeds > 4


def test_prompts_that_differ_need_more_prompts_not_more_seeds():
    """Where half of the prompts get better and half worse, seeds settle nothing."""

    def answer(arm, prompt, seed, attribute):
        if attribute == "subject":
            return prompt.subject
        skewed = (arm == "base") == (int(prompt.subject[len("trained") :]) % 2 == 0)
        return "red" if skewed or seed % 2 else "blue"

    row = row_of(answer)
    assert row.verdict == "inconclusive"
    assert (row.needed.unit, row.needed.seeds) == ("prompts", None)
    assert row.needed.count > 12


def test_of_these_prompts_only_seeds_are_asked():
    """A row that speaks of its own prompts can be settled by seeds alone."""
    rng = np.random.default_rng(0)
    row = row_of(made_up.random_answers(rng, base=0.75, lora=0.55), 3, seeds=8)
    assert row.inference == "these_prompts"
    assert row.verdict == "inconclusive"
    assert row.needed.unit == "seeds"
    assert row.needed.seeds == row.needed.count > 8


def blind_in_lora(arm, prompt, seed, attribute):
    """The adapter turns red to blue on odd seeds, and its first picture cannot be read."""
    if attribute == "subject":
        return prompt.subject
    if arm == "lora" and seed == 0:
        return None
    return "blue" if arm == "lora" and seed % 2 else "red"


def test_transitions_say_which_value_became_which():
    """Of 12 prompts x 6 seeds: 36 turned blue, 24 stayed red, 12 could not be read any more."""
    found = row_of(blind_in_lora).transitions
    assert found.counts == {"red": {"red": 24, "blue": 36}, "blue": {"red": 0, "blue": 0}}
    assert found.became_unreadable == {"red": 12, "blue": 0}
    assert found.became_readable == {"red": 0, "blue": 0}
    assert found.unread == 0
    assert found.stuart_maxwell_p < 1e-6


def test_the_change_of_the_unreadable_rate_is_paired_and_has_an_interval():
    """A sixth of the adapter's pictures, over the same cells: Tango's interval by subjects."""
    found = row_of(blind_in_lora).change.unreadable_rate
    baseline, treated = np.zeros((2, 12, 6), bool)
    treated[:, 0] = True
    expected = paired_rate_change(baseline, treated, np.arange(12), fixed=False)
    assert found.value == pytest.approx(1 / 6)
    assert found.ci95 == pytest.approx((expected.lo, expected.hi))
    assert found.ci95[0] > 0


def test_an_audit_has_no_transitions():
    """With one arm nothing became anything."""
    row = row_of(made_up.skewed, arms=("base",))
    assert (row.transitions, row.change) == (None, None)

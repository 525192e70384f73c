"""From readings to rows, verdicts and a gate."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from unskew.errors import UserError
from unskew.evaluate.results import Margins, summarise
from unskew.prompts import Prompt

ORACLES = Path(__file__).parents[1] / "oracles"
slow = SimpleNamespace(**runpy.run_path(str(ORACLES / "slow_statistics.py")))
made_up = SimpleNamespace(**runpy.run_path(str(ORACLES / "made_up_study.py")))
make_plan = made_up.make_plan
make_readings = made_up.make_readings
suite_prompts = made_up.suite_prompts
skewed = made_up.skewed
random_answers = made_up.random_answers
features_of = made_up.features_of
FULL = made_up.FULL
COLOUR = made_up.COLOUR


def test_rows_are_what_the_oracle_computes():
    """Shares, imbalance, change and p-values of every row and prompt, recomputed by hand."""
    readings = make_readings(FULL, random_answers(np.random.default_rng(0), base=0.9, lora=0.4))
    results = summarise(readings, FULL)
    table = readings[readings["readable"]].groupby(["suite", "attribute", "arm", "prompt_id"])
    seen = {key: list(part["value"]) for key, part in table}
    assert len(results.representation) == 4
    for row in results.representation:
        attribute = FULL.attributes[row.attribute]
        found = {}
        for prompt in row.per_prompt:
            answers = [
                [
                    attribute.values.index(v)
                    for v in seen[row.suite, row.attribute, arm, prompt.prompt_id]
                ]
                for arm in ("base", "lora")
            ]
            before, after = (slow.imbalance(a, attribute.target) for a in answers)
            assert prompt.change == pytest.approx(after - before)
            assert prompt.treated.n_readable == len(answers[1])
            shares = [
                a / len(answers[0])
                for a in np.bincount(answers[0], minlength=len(attribute.values))
            ]
            assert list(prompt.baseline.shares.values()) == pytest.approx(shares)
            found.setdefault(prompt.subject, []).append((before, after))
        by_subject = np.array([np.mean(pairs, axis=0) for pairs in found.values()])
        assert row.n_clusters == len(by_subject)
        assert row.baseline.imbalance == pytest.approx(by_subject[:, 0].mean())
        assert row.change.imbalance == pytest.approx(np.diff(by_subject).mean())
        assert row.change.relative_reduction == pytest.approx(
            1 - by_subject[:, 1].mean() / by_subject[:, 0].mean()
        )
        if row.inference != "these_prompts" and row.n_clusters <= 13:
            p = slow.sign_flip_p(np.diff(by_subject).ravel().tolist())
            assert row.change.p_value == pytest.approx(p)


def test_units_are_prompts_subjects_or_these_prompts():
    """One prompt a subject: prompts. Several: subjects. Few, or declared fixed: the seeds."""
    readings = make_readings(FULL, skewed)
    units = {(r.suite, r.inference, r.n_clusters) for r in summarise(readings, FULL).representation}
    assert units == {
        ("trained", "prompts", 14),
        ("unseen", "subjects", 11),
        ("scenes", "these_prompts", 2),
    }
    plan = make_plan((suite_prompts("trained", 14), "neutral"), fixed_suites=frozenset({"trained"}))
    row = summarise(make_readings(plan, skewed), plan).representation[0]
    assert row.inference == "these_prompts"


def test_a_plain_effect_is_improved_and_passes_the_gate():
    """Skew gone in every prompt, everything asked for still there: each verdict says so."""
    results = summarise(make_readings(FULL, skewed), FULL, features_of(FULL))
    colour = [row for row in results.representation if row.attribute == "colour"]
    assert [row.verdict for row in colour] == ["improved"] * 3
    assert [row.primary for row in colour] == [True, True, False]
    assert all(row.change.ci95[0] <= row.change.imbalance < row.change.ci95[1] for row in colour)
    assert colour[2].change.p_adjusted is None
    assert {row.attribute for row in results.fidelity if row.suite == "spelt"} == {
        "subject",
        "colour",
    }
    assert [row.verdict for row in results.drift] == ["kept"]
    kept = [row.verdict for row in results.fidelity if row.n_prompts * row.n_seeds > 145]
    assert set(kept) == {"kept"}


def test_the_null_study_says_no_change_everywhere():
    """The same pictures in both arms: [0, 0], p = 1, no_change, kept, in every row."""
    rng = np.random.default_rng(1)
    first = {}

    def once(arm, prompt, seed, attribute):
        key = (prompt.id, seed, attribute)
        return first.setdefault(key, random_answers(rng, base=0.8)("base", prompt, seed, attribute))

    readings = make_readings(FULL, once, same_pictures=True)
    results = summarise(readings, FULL, features_of(FULL))
    for row in results.representation:
        assert (row.change.imbalance, row.change.ci95, row.change.p_value) == (0, (0, 0), 1)
        assert row.verdict == "no_change"
        assert all(p.p_value == 1 and p.change == 0 for p in row.per_prompt)
    assert [(row.change.value, row.change.ci95) for row in results.fidelity] == [(0, (0, 0))] * 6
    assert {row.verdict for row in results.fidelity} == {"kept"}
    assert [(row.excess, row.ci95, row.verdict) for row in results.drift] == [(0, (0, 0), "kept")]
    assert results.gate.passed is False


def test_readings_that_agree_on_other_pictures_are_no_certainty():
    """Pictures differ, readings do not: the interval is what so few pairs allow, and says so."""
    plan = make_plan((suite_prompts("trained", 10), "neutral"), seeds=4)
    row = summarise(make_readings(plan, lambda *_: "red"), plan).representation[0]
    lo, hi = row.change.ci95
    assert lo == -hi
    assert hi > 0.2
    assert row.verdict == "inconclusive"
    assert "40 pairs" in row.notes[0]


def test_swapping_the_arms_turns_every_change_around():
    """With the adapter as baseline each change and interval has the other sign, each p the same."""
    readings = make_readings(FULL, random_answers(np.random.default_rng(2), base=0.9, lora=0.5))
    there = summarise(readings, FULL)
    names = {"base": "lora", "lora": "base"}
    back = summarise(readings.assign(arm=readings["arm"].map(names)), FULL)
    for one, other in zip(there.representation, back.representation, strict=True):
        assert one.change.imbalance == pytest.approx(-other.change.imbalance)
        assert one.change.ci95 == pytest.approx(tuple(-x for x in other.change.ci95[::-1]))
        assert one.change.p_value == pytest.approx(other.change.p_value)
    for one, other in zip(there.fidelity, back.fidelity, strict=True):
        assert one.change.value == pytest.approx(-other.change.value)


def test_row_order_of_the_readings_does_not_matter():
    """A resumed study writes its rows in another order and must get the same file."""
    readings = make_readings(FULL, random_answers(np.random.default_rng(3), base=0.9, lora=0.5))
    shuffled = readings.sample(frac=1, random_state=0)
    assert summarise(readings, FULL) == summarise(shuffled, FULL)


def test_an_audit_has_rows_without_treated_and_change():
    """One arm alone: what it shows, with intervals, and no verdict."""
    plan = make_plan((suite_prompts("trained", 12), "neutral"), arms=("base",))
    results = summarise(make_readings(plan, skewed), plan)
    (row,) = results.representation
    assert (row.treated, row.change, row.verdict, row.against) == (None, None, None, None)
    assert row.baseline.imbalance == pytest.approx(1)
    (fidelity,) = results.fidelity
    assert (fidelity.treated_rate, fidelity.change, fidelity.verdict) == (None, None, None)
    assert results.gate.passed is None


def test_holm_runs_over_the_primaries_of_every_arm():
    """Two primaries in two treated arms are a family of four; other rows are not adjusted."""
    plan = make_plan(
        (suite_prompts("trained", 12, attributes=("colour", "size")), "neutral"),
        arms=("base", "a", "b"),
        primaries=(("colour", "trained"), ("size", "trained")),
    )
    rng = np.random.default_rng(4)
    readings = make_readings(plan, random_answers(rng, base=0.85, a=0.75, b=0.6))
    rows = summarise(readings, plan).representation
    p = [row.change.p_value for row in rows]
    order = np.argsort(p)
    stepped = np.maximum.accumulate(np.array(p)[order] * [4, 3, 2, 1]).clip(max=1)
    assert [rows[n].change.p_adjusted for n in order] == pytest.approx(list(stepped))
    assert {row.against for row in rows} == {"base"}


def test_per_prompt_p_values_are_adjusted_by_benjamini_hochberg():
    """Within a row the many prompts share one false discovery rate."""
    readings = make_readings(FULL, random_answers(np.random.default_rng(5), base=0.95, lora=0.5))
    row = summarise(readings, FULL).representation[0]
    p = np.array([prompt.p_value for prompt in row.per_prompt])
    ranked = np.sort(p) * len(p) / np.arange(1, len(p) + 1)
    expected = np.minimum.accumulate(ranked[::-1])[::-1]
    found = np.sort([prompt.p_adjusted for prompt in row.per_prompt])
    np.testing.assert_allclose(found, expected)


def test_unreadable_pictures_leave_the_estimate_but_not_the_bounds():
    """A prompt with fewer than two readable pictures is listed, counted, and bounds the change."""
    plan = make_plan((suite_prompts("trained", 20), "neutral"))

    def answer(arm, prompt, seed, attribute):
        blind = arm == "lora" and prompt.id == "trained-3-0" and attribute == "colour"
        return None if blind and seed else skewed(arm, prompt, seed, attribute)

    results = summarise(make_readings(plan, answer), plan)
    (row,) = results.representation
    assert row.left_out == ("trained-3-0",)
    assert row.n_prompts == 19
    assert row.treated.unreadable_rate == pytest.approx(9 / 200)
    assert row.per_prompt[3].change is None
    lo, hi = row.change.worst_case
    even = slow.imbalance([0, 1] * 5, [0.5, 0.5]) - 1
    assert (lo, hi) == pytest.approx(((20 * even) / 20, (19 * even) / 20))
    assert results.counts.readable == results.counts.generated - 9


def test_worst_case_takes_each_arm_at_its_worst():
    """The bounds set the treated arm's least against the baseline's greatest, and the reverse."""
    plan = make_plan((suite_prompts("trained", 10), "neutral"), seeds=5)
    rng = np.random.default_rng(8)
    codes = np.where(rng.random((2, 10, 5)) < 0.2, -1, rng.integers(0, 2, (2, 10, 5)))
    codes[:, :, :3] = np.abs(codes[:, :, :3])

    def answer(arm, prompt, seed, attribute):
        code = codes[int(arm == "lora"), int(prompt.subject[len("trained") :]), seed]
        colour = None if code < 0 else COLOUR.values[code]
        return prompt.subject if attribute == "subject" else colour

    row = summarise(make_readings(plan, answer), plan).representation[0]
    bounds = np.array(
        [
            [slow.unreadable_bounds([None if c < 0 else c for c in p], [0.5, 0.5]) for p in arm]
            for arm in codes.tolist()
        ]
    ).mean(axis=1)
    expected = bounds[1, 0] - bounds[0, 1], bounds[1, 1] - bounds[0, 0]
    assert row.change.worst_case == pytest.approx(expected)


def test_too_many_unreadable_prompts_are_refused_by_name():
    """Past a tenth of the prompts the study ends, with how many, where, and what to do."""
    plan = make_plan((suite_prompts("trained", 20), "neutral"))

    def answer(arm, prompt, seed, attribute):
        if arm == "lora" and attribute == "colour" and prompt.subject[-1] == "4":
            return None
        return skewed(arm, prompt, seed, attribute)

    assert len(summarise(make_readings(plan, answer), plan).representation[0].left_out) == 2

    def worse(arm, prompt, seed, attribute):
        if arm == "lora" and attribute == "colour" and prompt.subject[-1] in "45":
            return None
        return skewed(arm, prompt, seed, attribute)

    with pytest.raises(UserError) as caught:
        summarise(make_readings(plan, worse), plan)
    for part in ("4 of 20 prompts", "'lora'", "allowed: 2", "'trained-4-0'", "images/lora"):
        assert part in str(caught.value)


def test_small_baselines_have_no_relative_reduction():
    """Dividing by an imbalance near 0 says nothing, so nothing is said."""
    plan = make_plan((suite_prompts("trained", 12), "neutral"))
    even = make_readings(
        plan, lambda _, p, s, x: p.subject if x == "subject" else COLOUR.values[s % 2]
    )
    row = summarise(even, plan).representation[0]
    assert row.baseline.imbalance < 0.05
    assert row.change.relative_reduction is None


def test_a_prompts_own_target_overrides_the_attributes():
    """A prompt that wants only blue is on target when only blue is shown."""
    prompts = tuple(
        Prompt(
            p.id,
            p.text,
            p.suite,
            p.subject,
            p.attributes,
            p.asked,
            {"colour": np.array([0.1, 0.9])},
        )
        for p in suite_prompts("trained", 12)
    )
    plan = make_plan((prompts, "neutral"))
    readings = make_readings(
        plan, lambda _, p, s, x: p.subject if x == "subject" else COLOUR.values[s != 0]
    )
    row = summarise(readings, plan).representation[0]
    assert row.target == {"red": 0.1, "blue": 0.9}
    assert row.per_prompt[0].target == row.target
    assert row.baseline.imbalance < 0.01


def test_missing_pictures_make_the_study_incomplete():
    """What was planned and never drawn is counted, and read as unreadable."""
    plan = make_plan((suite_prompts("trained", 20), "neutral"))
    readings = make_readings(plan, skewed)
    results = summarise(readings[readings["seed"] < 9], plan)
    assert results.status == "incomplete"
    assert (results.counts.planned, results.counts.generated) == (400, 360)
    assert results.representation[0].baseline.unreadable_rate == pytest.approx(0.1)


def test_margins_are_kept_with_the_results():
    """What was decided before is in the file: margins, primaries, seeds, targets, classifiers."""
    plan = make_plan((suite_prompts("trained", 12), "neutral"), margins=Margins(imbalance=0.2))
    settings = summarise(make_readings(plan, skewed), plan).settings
    assert settings.margins.imbalance == 0.2
    assert settings.attributes["colour"].target == {"red": 0.5, "blue": 0.5}
    assert settings.attributes["colour"].classifiers == ("a classifier",)
    assert settings.suites["trained"].n_seeds == 10

"""The gate: each limit judged on the interval's unfavourable end, with every reason."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unskew.evaluate.gate import judge_gate
from unskew.evaluate.gate_schema import GateSettings, Limits
from unskew.evaluate.rates import rate_interval
from unskew.evaluate.results import summarise

ORACLES = Path(__file__).parents[1] / "oracles"
made_up = SimpleNamespace(**runpy.run_path(str(ORACLES / "made_up_study.py")))


def half_obeyed(arm, prompt, seed, attribute):
    """As skewed, but one explicit picture in ten of the treated arm shows the other colour."""
    if attribute in prompt.asked and attribute != "subject" and arm == "lora" and seed == 0:
        return "red"
    return made_up.skewed(arm, prompt, seed, attribute)


PLAN = made_up.make_plan(
    (made_up.suite_prompts("trained", 30), "neutral"),
    (made_up.suite_prompts("spelt", 30, asked={"colour": "blue"}), "explicit"),
    (made_up.suite_prompts("things", 40, attributes=()), "control"),
)
RESULTS = summarise(
    made_up.make_readings(PLAN, half_obeyed), PLAN, made_up.features_of(PLAN, step=0.5)
)


def judge(comparison=None, inconclusive="fail", everything_kept=False, results=RESULTS, **limits):
    """The gate with one comparison."""
    settings = GateSettings(
        comparisons={comparison: Limits(**limits)} if comparison else {},
        everything_kept=everything_kept,
        inconclusive=inconclusive,
    )
    return judge_gate(results.representation, results.fidelity, results.drift, settings)


def row(rows, **wanted):
    return next(r for r in rows if all(getattr(r, k) == v for k, v in wanted.items()))


def with_change(value, lo, hi):
    """The results with another change in imbalance."""
    (shown,) = RESULTS.representation
    change = shown.change.model_copy(update={"imbalance": value, "ci95": (lo, hi)})
    changed = (shown.model_copy(update={"change": change}),)
    return RESULTS.model_copy(update={"representation": changed})


def test_nothing_asked_is_no_gate():
    """Neither passed nor failed, and no reasons."""
    gate = judge()
    assert (gate.passed, gate.reasons) == (None, ())


@pytest.mark.parametrize(
    ("change", "limit", "passed", "inconclusive"),
    [
        ((-0.3, -0.4, -0.2), -0.2, True, False),
        ((-0.3, -0.4, -0.19), -0.2, False, True),
        ((-0.1, -0.19, 0.0), -0.2, False, False),
        ((0.0, 0.0, 0.0), 0.0, True, False),
    ],
)
def test_a_limit_holds_only_with_the_whole_interval(change, limit, passed, inconclusive):
    """The end that the study cannot exclude is the one that counts, to the last digit."""
    gate = judge("colour@trained", results=with_change(*change), imbalance_change_at_most=limit)
    (reason,) = gate.reasons
    assert (reason.passed, reason.inconclusive) == (passed, inconclusive)
    assert gate.passed is passed
    assert (reason.found, reason.ci95, reason.limit) == (change[0], change[1:], limit)
    assert reason.what == "imbalance_change_at_most"
    assert (reason.comparison, reason.arm) == ("colour@trained", "lora")


def test_inconclusive_passes_only_when_the_user_says_so():
    """And it is still said to be inconclusive; what is certainly broken fails all the same."""
    unclear, broken = with_change(-0.3, -0.4, -0.1), with_change(0.3, 0.2, 0.4)
    for results, passed in ((unclear, True), (broken, False)):
        gate = judge("colour@trained", "pass", results=results, imbalance_change_at_most=-0.2)
        assert gate.passed is passed
        assert gate.reasons[0].inconclusive is passed


def test_every_limit_is_about_its_own_figure():
    """Found and interval of each limit are those of the row, losses with their sign turned."""
    (shown,) = RESULTS.representation
    asked = row(RESULTS.fidelity, suite="spelt", attribute="colour")
    (drift,) = RESULTS.drift
    lo, hi = asked.change.ci95
    for comparison, what, found, ci95 in (
        ("colour@trained", "imbalance_at_most", shown.treated.imbalance, None),
        ("colour@trained", "unreadable_rate_at_most", 0.0, shown.treated.unreadable_ci95),
        ("colour@spelt", "fidelity_loss_at_most", -asked.change.value, (-hi, -lo)),
        ("drift@things", "drift_at_most", drift.excess, drift.ci95),
    ):
        (reason,) = judge(comparison, **{what: 0.5}).reasons
        assert reason.found == pytest.approx(found)
        assert reason.ci95 == pytest.approx(ci95 or shown.treated.imbalance_ci95)
        assert reason.passed


def test_a_loss_of_a_tenth_breaks_a_limit_of_three_points():
    """Fidelity's own limit takes the place of its margin, looser or tighter."""
    assert judge("colour@spelt", fidelity_loss_at_most=0.03).passed is False
    assert judge("colour@spelt", fidelity_loss_at_most=0.3).passed is True
    assert judge("colour@spelt", everything_kept=True, fidelity_loss_at_most=0.3).passed is True
    gate = judge("colour@trained", everything_kept=True, improved=True)
    failed = [reason for reason in gate.reasons if not reason.passed]
    assert [(r.comparison, r.what, r.found) for r in failed] == [("colour@spelt", "kept", "lost")]
    assert gate.reasons[0] is failed[0]


def test_overshoot_has_the_interval_of_its_prompts():
    """None of 30 prompts overshot: a limit under what 30 leave possible does not hold."""
    possible = rate_interval(np.zeros(30), 30, fixed=False)[1]
    (reason,) = judge("colour@trained", overshoot_rate_at_most=0.05).reasons
    assert (reason.found, reason.inconclusive) == (0, True)
    assert reason.ci95 == pytest.approx((0, possible))
    assert judge("colour@trained", overshoot_rate_at_most=possible).passed is True


def test_what_was_not_measured_cannot_hold():
    """An audit has no change, and a subject that no classifier reads no fidelity."""
    audit = made_up.make_plan((made_up.suite_prompts("trained", 12), "neutral"), arms=("base",))
    results = summarise(made_up.make_readings(audit, made_up.skewed), audit)
    for limits in ({"improved": True}, {"imbalance_change_at_most": 0.0}):
        gate = judge("colour@trained", "pass", results=results, **limits)
        assert gate.passed is False
        assert gate.reasons[0].found is None
    assert judge("subject@nowhere", fidelity_loss_at_most=1.0).passed is False
    assert judge("colour@trained", results=results, imbalance_at_most=1.0).passed is True


def test_every_arm_must_hold():
    """A limit is asked of each treated arm by itself."""
    plan = made_up.make_plan(
        (made_up.suite_prompts("trained", 30), "neutral"), arms=("base", "good", "idle")
    )

    def answer(arm, *cell):
        return made_up.skewed("base" if arm == "idle" else arm, *cell)

    results = summarise(made_up.make_readings(plan, answer), plan)
    gate = judge("colour@trained", results=results, imbalance_change_at_most=-0.5)
    assert [(r.arm, r.passed) for r in gate.reasons] == [("idle", False), ("good", True)]


ENDS = st.floats(-1, 1).map(lambda x: round(x, 3))


@given(ends=st.tuples(ENDS, ENDS, ENDS).map(sorted), limits=st.tuples(ENDS, ENDS).map(sorted))
def test_a_looser_limit_never_fails_what_a_tighter_one_passed(ends, limits):
    """Passed, inconclusive, failed: in this order as a limit tightens."""
    lo, value, hi = ends
    results = with_change(value, lo, hi)
    tight, loose = (
        judge("colour@trained", results=results, imbalance_change_at_most=limit).reasons[0]
        for limit in limits
    )
    assert loose.passed or not tight.passed
    assert loose.passed or loose.inconclusive or not tight.inconclusive

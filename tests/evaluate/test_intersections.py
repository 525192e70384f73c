"""Intersections: two attributes read together."""

import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from unskew.errors import UserError
from unskew.evaluate.gate_schema import GateSettings, Limits
from unskew.evaluate.intersections import add_intersections
from unskew.evaluate.results import load_results, summarise, write_results

ORACLES = Path(__file__).parents[1] / "oracles"
slow = SimpleNamespace(**runpy.run_path(str(ORACLES / "slow_statistics.py")))
made_up = SimpleNamespace(**runpy.run_path(str(ORACLES / "made_up_study.py")))
BOTH = "colour+size"


def plan_of(*suites, **more):
    return add_intersections(made_up.make_plan(*suites, **more), [["colour", "size"]])


def trained(n=12):
    return made_up.suite_prompts("trained", n, attributes=("colour", "size"))


def test_a_row_is_that_of_the_pairs_of_readings():
    """Shares, imbalance and change of the combinations are recomputed from both readings."""
    bare = made_up.make_plan((trained(), "neutral"))
    answer = made_up.random_answers(np.random.default_rng(0), base=0.9, lora=0.5)
    readings = made_up.make_readings(bare, answer)
    row = summarise(readings, add_intersections(bare, [["colour", "size"]])).representation[-1]
    assert (row.attribute, row.primary) == (BOTH, False)
    colours, sizes = made_up.COLOUR, made_up.SIZE
    target = [a * b for a in colours.target for b in sizes.target]
    assert list(row.target.values()) == pytest.approx(target)
    assert list(row.target)[1] == "red + m"
    found = {"base": [], "lora": []}
    for prompt in bare.prompts:
        for arm, values in found.items():
            mine = readings[(readings["arm"] == arm) & (readings["prompt_id"] == prompt.id)]
            answers = []
            for _, picture in mine.groupby("seed"):
                read = dict(zip(picture["attribute"], picture["value"], strict=True))
                known = [read["colour"], read["size"]]
                answers.append(
                    None
                    if not all(picture["readable"])
                    else 3 * colours.values.index(known[0]) + sizes.values.index(known[1])
                )
            values.append(slow.imbalance(answers, target))
    assert row.baseline.imbalance == pytest.approx(np.mean(found["base"]))
    assert row.change.imbalance == pytest.approx(np.mean(found["lora"]) - np.mean(found["base"]))


def test_unreadable_in_one_is_unreadable_in_both():
    """A picture whose size could not be read has no combination either."""
    bare = made_up.make_plan((trained(), "neutral"))
    plan = plan_of((trained(), "neutral"))

    def answer(arm, prompt, seed, attribute):
        blind = attribute == "size" and seed == 0
        return None if blind else made_up.skewed(arm, prompt, seed, attribute)

    rows = summarise(made_up.make_readings(bare, answer), plan).representation
    rates = {row.attribute: row.baseline.unreadable_rate for row in rows}
    assert rates == {"colour": 0, "size": pytest.approx(0.1), BOTH: pytest.approx(0.1)}


def test_an_intersection_may_be_declared_primary():
    """It is judged as any attribute is, and guarded by Holm when it is declared."""
    gate = GateSettings(comparisons={f"{BOTH}@trained": Limits(improved=True)})
    plan = plan_of((trained(), "neutral"), primaries=((BOTH, "trained"),), gate=gate)
    bare = made_up.make_plan((trained(), "neutral"))
    results = summarise(made_up.make_readings(bare, made_up.skewed), plan)
    assert [row.primary for row in results.representation] == [False, False, True]
    assert results.representation[-1].change.p_adjusted is not None
    assert results.gate.passed is not None


def test_a_prompts_own_target_carries_over():
    """Where a prompt overrides one attribute's target, the product is made with that."""
    own = np.array([0.9, 0.1])
    prompts = tuple(replace(prompt, targets={"colour": own}) for prompt in trained())
    plan = plan_of((prompts, "neutral"))
    expected = np.outer(own, made_up.SIZE.target).ravel()
    np.testing.assert_allclose(plan.prompts[0].targets[BOTH], expected)


def test_the_file_says_what_was_combined(tmp_path):
    """results.json names the parts, their classifiers and both caveats."""
    bare = made_up.make_plan((trained(), "neutral"))
    plan = add_intersections(bare, [["colour", "size"]])
    results = summarise(made_up.make_readings(bare, made_up.skewed), plan)
    write_results(results, tmp_path / "results.json")
    assert load_results(tmp_path / "results.json") == results
    said = json.loads((tmp_path / "results.json").read_text("utf-8"))["settings"]["attributes"]
    assert said[BOTH]["intersection_of"] == ["colour", "size"]
    assert said[BOTH]["classifiers"] == ["a classifier"]
    assert said[BOTH]["caveat"] == "A caveat. Another."
    assert said["colour"]["intersection_of"] == []


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["colour"], "two or more different attributes"),
        (["colour", "colour"], "two or more different attributes"),
        (["colour", "weight"], "'weight', which this study does not measure"),
        (["colour", "size"], "no prompt measures colour and size together"),
    ],
)
def test_what_cannot_be_combined_is_refused(parts, message):
    """One attribute, an unknown one, or two that no prompt measures together."""
    plan = made_up.make_plan((made_up.suite_prompts("trained", 12), "neutral"))
    with pytest.raises(UserError, match=message):
        add_intersections(plan, [parts])

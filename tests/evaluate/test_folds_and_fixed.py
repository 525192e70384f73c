"""Attributes that are folds of finer ones, and prompts whose answer their words fix."""

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from unskew.attributes import Attribute, Fold, load_attribute
from unskew.evaluate.folds import with_folds
from unskew.evaluate.results import summarise

ORACLES = Path(__file__).parents[1] / "oracles"
made_up = SimpleNamespace(**runpy.run_path(str(ORACLES / "made_up_study.py")))

BULK = Attribute(
    "bulk",
    "perceived bulk",
    ("small", "large"),
    np.array([0.5, 0.5]),
    "A caveat.",
    fold=Fold("size", ("s", "m", "l"), np.array([0, 0, 1])),
)


def folding(plan):
    """The plan with the fold in place of the finer attribute, which only readings then know."""
    return replace(plan, attributes={"colour": made_up.COLOUR, "bulk": BULK})


def bulky(arm, prompt, seed, attribute):
    """The base shows s and m, the other arm each size in turn."""
    if attribute == "subject":
        return prompt.subject
    return "sm"[seed % 2] if arm == "base" else "sml"[seed % 3]


def read_as_size(prompts):
    """The prompts as a classifier is asked to read them."""
    return tuple(replace(p, attributes=("size",)) for p in prompts)


def test_a_fold_is_judged_from_the_readings_of_the_finer_attribute():
    """Shares of the groups are the sums of their parts, and the reader is named."""
    prompts = made_up.suite_prompts("trained", 12, attributes=("bulk",))
    plan = folding(made_up.make_plan((prompts, "neutral"), seeds=6))
    readings = made_up.make_readings(replace(plan, prompts=read_as_size(prompts)), bulky)
    assert set(readings["attribute"]) == {"subject", "size"}
    results = summarise(readings, plan)
    (row,) = results.representation
    assert row.attribute == "bulk"
    assert row.baseline.shares == {"small": 1.0, "large": 0.0}
    assert row.treated.shares == pytest.approx({"small": 2 / 3, "large": 1 / 3})
    about = results.settings.attributes["bulk"]
    assert (about.folded_from, about.classifiers) == ("size", ("a classifier",))


def test_what_the_finer_reading_lacks_the_fold_lacks():
    """Unreadable stays unreadable, with its rate."""
    prompts = made_up.suite_prompts("trained", 12, attributes=("bulk",))
    plan = folding(made_up.make_plan((prompts, "neutral"), seeds=6))

    def half_blind(arm, prompt, seed, attribute):
        return (
            None
            if (arm, seed, attribute) == ("lora", 5, "size")
            else bulky(arm, prompt, seed, attribute)
        )

    readings = made_up.make_readings(replace(plan, prompts=read_as_size(prompts)), half_blind)
    (row,) = summarise(readings, plan).representation
    assert row.baseline.unreadable_rate == 0
    assert row.treated.unreadable_rate == pytest.approx(1 / 6)


def test_a_fold_that_was_read_itself_is_taken_as_read():
    """Where a classifier answers in the groups, nothing is derived."""
    prompts = made_up.suite_prompts("trained", 12, attributes=("bulk",))
    plan = folding(made_up.make_plan((prompts, "neutral"), seeds=6))

    def large(arm, prompt, seed, attribute):
        return prompt.subject if attribute == "subject" else "large"

    (row,) = summarise(made_up.make_readings(plan, large), plan).representation
    assert row.baseline.shares == {"small": 0.0, "large": 1.0}


def overcorrected(arm, prompt, seed, attribute):
    """What the words fix comes in the base, and every second time in the other arm."""
    return (
        "red"
        if arm == "lora" and attribute == "colour" and seed % 2
        else made_up.skewed(arm, prompt, seed, attribute)
    )


@pytest.mark.parametrize(("answer", "verdict"), [(made_up.skewed, "kept"), (overcorrected, "lost")])
def test_answers_that_the_words_fix_must_still_come(answer, verdict):
    """must_not_change is judged as explicit is: what is asked comes no less often."""
    prompts = made_up.suite_prompts("fixed", 20, asked={"colour": "blue"})
    plan = made_up.make_plan((prompts, "must_not_change"), seeds=10)
    results = summarise(made_up.make_readings(plan, answer), plan)
    row = next(row for row in results.fidelity if row.attribute == "colour")
    assert (row.verdict, row.margin) == (verdict, plan.margins.fidelity)
    assert results.representation == ()


def test_labels_meet_readings_of_a_fold():
    """The finer readings are there as the coarser attribute's too, unreadable where they are."""
    fine, coarse = load_attribute("monk_tone"), load_attribute("skin_tone_3")
    values = [*fine.values, None]
    readings = pd.DataFrame({"attribute": "monk_tone", "value": values, "seed": range(len(values))})
    said = SimpleNamespace(folded_from="monk_tone", values=coarse.values)
    of = SimpleNamespace(settings=SimpleNamespace(attributes={"skin_tone_3": said}))
    both = with_folds(readings, of)
    own = both[both["attribute"] == "skin_tone_3"]
    expected = [coarse.values[code] for code in coarse.fold.coarse_k]
    assert own["value"].tolist()[:-1] == expected and pd.isna(own["value"].iloc[-1])
    assert own["seed"].tolist() == list(range(len(values)))
    assert with_folds(both, of) is both

"""Studies made up so that their answer is known: a plan, readings and features."""

from __future__ import annotations

import numpy as np
import pandas as pd

from unskew.attributes import Attribute
from unskew.evaluate.gate_schema import GateSettings, Limits
from unskew.evaluate.results import StudyPlan
from unskew.prompts import Prompt

COLOUR = Attribute("colour", "perceived colour", ("red", "blue"), np.array([0.5, 0.5]), "A caveat.")
SIZE = Attribute("size", "perceived size", ("s", "m", "l"), np.array([0.2, 0.3, 0.5]), "Another.")


def improved(*comparisons, **more):
    """A gate that asks for these to be improved."""
    limits = {comparison: Limits(improved=True) for comparison in comparisons}
    return GateSettings(comparisons=limits, **more)


def suite_prompts(suite, n_subjects, n_templates=1, attributes=("colour",), asked=None):
    return tuple(
        Prompt(
            id=f"{suite}-{s}-{t}",
            text=f"{suite} {s} {t}",
            suite=suite,
            subject=f"{suite}{s}",
            attributes=attributes,
            asked={"subject": f"{suite}{s}"} | (asked or {}),
        )
        for s in range(n_subjects)
        for t in range(n_templates)
    )


def make_plan(*suites, arms=("base", "lora"), seeds=10, **more):
    """A plan of (prompts, role) suites."""
    return StudyPlan(
        baseline="base",
        arms=arms,
        prompts=tuple(p for prompts, _ in suites for p in prompts),
        suite_roles={prompts[0].suite: role for prompts, role in suites},
        attributes={"colour": COLOUR, "size": SIZE},
        seeds={prompts[0].suite: seeds for prompts, _ in suites},
        **more,
    )


def make_readings(plan, answer, same_pictures=False):
    """Rows of readings.parquet; `answer(arm, prompt, seed, attribute)` is a value or None."""
    rows = [
        {
            "arm": arm,
            "prompt_id": prompt.id,
            "suite": prompt.suite,
            "seed": seed,
            "attribute": attribute,
            "value": (value := answer(arm, prompt, seed, attribute)),
            "readable": value is not None,
            "classifier": "a classifier",
            "image_sha256": f"{'any' if same_pictures else arm} {prompt.id} {seed}",
        }
        for arm in plan.arms
        for prompt in plan.prompts
        for seed in range(plan.seeds[prompt.suite])
        for attribute in ("subject", *prompt.attributes)
    ]
    return pd.DataFrame(rows)


def skewed(arm, prompt, seed, attribute):
    """The base shows red only; the other arms show both colours by turns. All else is right."""
    if attribute == "subject":
        return prompt.subject
    if attribute in prompt.asked:
        return prompt.asked[attribute]
    values = {"colour": COLOUR, "size": SIZE}[attribute].values
    return values[0] if arm == "base" or seed % 2 else values[1]


def random_answers(rng, **shares):
    """Each arm draws its own share of the attribute's first value; unreadable now and then."""
    arm_shares = shares

    def answer(arm, prompt, seed, attribute):
        if attribute == "subject":
            return prompt.subject if rng.random() < 0.97 else "something else"
        values = {"colour": COLOUR, "size": SIZE}[attribute].values
        if rng.random() < 0.05:
            return None
        return values[0] if rng.random() < arm_shares[arm] else rng.choice(values[1:])

    return answer


def features_of(plan, step=0.0, seed=0):
    rng = np.random.default_rng(seed)
    base = {
        p.id: rng.normal(size=(plan.seeds[p.suite], 6)) + 20 * n
        for n, p in enumerate(p for p in plan.prompts if plan.suite_roles[p.suite] == "control")
    }
    return {arm: {i: f + step * (arm != "base") for i, f in base.items()} for arm in plan.arms}


FULL = make_plan(
    (suite_prompts("trained", 14, attributes=("colour", "size")), "neutral"),
    (suite_prompts("unseen", 11, n_templates=2), "neutral"),
    (suite_prompts("scenes", 2, n_templates=3), "neutral"),
    (suite_prompts("spelt", 12, asked={"colour": "blue"}), "explicit"),
    (suite_prompts("things", 15, attributes=()), "control"),
    primaries=(("colour", "trained"), ("colour", "unseen")),
    gate=improved("colour@trained", "colour@unseen"),
)

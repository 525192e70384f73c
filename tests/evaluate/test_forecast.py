"""What a dry run says before a study."""

from __future__ import annotations

import pytest

from unskew.attributes import load_attribute
from unskew.evaluate.cells import StudyPlan
from unskew.evaluate.forecast import smallest_changes
from unskew.evaluate.power import Outlook, smallest_change
from unskew.prompts import Prompt


def test_a_dry_run_tells_how_small_a_change_is_seen() -> None:
    """Of the primaries only, by the formula of `power`; more prompts see less, an audit nothing."""

    def plan(n: int, *arms: str) -> StudyPlan:
        return StudyPlan(
            baseline="base",
            arms=("base", *arms),
            prompts=tuple(
                Prompt(f"p{i}", f"{i}", "s", f"thing {i}", ("presentation", "season"), {})
                for i in range(n)
            ),
            suite_roles={"s": "neutral"},
            attributes={id: load_attribute(id) for id in ("presentation", "season")},
            seeds={"s": 20},
            primaries=(("presentation", "s"),),
        )

    [few], [many] = (smallest_changes(plan(n, "lora")) for n in (20, 50))
    assert (few.attribute, few.n_clusters, few.n_seeds) == ("presentation", 20, 20)
    expected = smallest_change(Outlook(tuple(load_attribute("presentation").target)), 20, 20)
    assert expected is not None and few.change == pytest.approx(expected.change)
    assert few.change is not None and many.change is not None and few.change < many.change < 0
    assert smallest_changes(plan(20)) == () == smallest_changes(plan(5, "lora"))

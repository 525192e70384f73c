"""What is recommended, by the written rules, from leaderboards made for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import pytest

from unskew.evaluate import pareto
from unskew.evaluate.boards import Difference
from unskew.evaluate.recommendation import recommend, rules
from unskew.evaluate.schema_comparison import (
    Comparison,
    Place,
    Point,
    Ranking,
    Recommendation,
    Weakest,
)
from unskew.evaluate.stats import TestedEstimate

TIE = 0.1
"""In these boards arms are settled to differ where their imbalance does by more than this."""


def weakest(name: str, value: float, verdict: Any) -> Weakest:
    return Weakest(
        name=name, value=value, ci95=(value, value), margin=0.05, verdict=verdict, n_rows=1
    )


def place(arm: str, imbalance: float, far: float = 0.01, **given: Any) -> Place:
    """An arm that lost nothing, unless told otherwise."""
    base = arm == "base"
    kept = {
        "fidelity": None if base else weakest("colour@explicit", -0.01, "kept"),
        "drift": None if base else weakest("drift@control", far, "kept"),
        "overshoot": (),
        "flags": (),
    }
    return Place(
        arm=arm,
        title=arm.replace("-", " at ").replace("_", "."),
        ranks=(1, 1),
        alike=(),
        imbalance=imbalance,
        ci95=(imbalance - 0.05, imbalance + 0.05),
        front=True,
        **{"ties": (), **kept, **given},
    )


def decided(places: Sequence[Place]) -> tuple[list[Place], list[Difference]]:
    """The places with their ties, and every pair's difference."""
    found = []
    ties: dict[str, list[str]] = {p.arm: [] for p in places}
    for first, second in combinations(places, 2):
        value = second.imbalance - first.imbalance
        settled: Any = "improved" if value < 0 else "worsened"
        verdict: Any = settled if abs(value) > TIE else "inconclusive"
        estimate = TestedEstimate(value, value - 0.05, value + 0.05, 0.01)
        found.append(Difference(second.arm, first.arm, estimate, 0.01, verdict))
        if verdict == "inconclusive":
            ties[first.arm].append(second.arm)
            ties[second.arm].append(first.arm)
    return [p.model_copy(update={"ties": tuple(ties[p.arm])}) for p in places], found


def recommended(*places: Place) -> Recommendation:
    tied, pairs = decided(places)
    sweep = [(float(p.arm[1:].replace("_", ".")), p.arm) for p in tied if p.arm[0] == "w"]
    weights = {arm: weight for weight, arm in sweep}
    return recommend("base", tied, pairs, {"w": sweep}, lambda arm: weights.get(arm, 0.0))


LOST = weakest("colour@explicit", -0.09, "lost")
OPEN = weakest("colour@explicit", -0.02, "inconclusive")


def test_of_tied_arms_the_one_with_the_least_drift_is_taken() -> None:
    """Not the one with the least imbalance, which is not settled to be better."""
    found = recommended(
        place("base", 0.8),
        place("w0_25", 0.5, 0.001),
        place("w0_5", 0.09, 0.01),
        place("w0_75", 0.05, 0.02),
        place("w1", 0.04, 0.03, overshoot=("skin_tone@held_out",)),
    )
    assert (found.arm, found.proven) == ("w0_5", True)
    assert found.sentence == (
        "Take w0.5: imbalance falls from .80 to .09, and fidelity and drift stay within their "
        "margins; above it nothing more is settled to be gained; below it .50 is left."
    )
    assert "W1 is out: skin tone overshoots." in found.reasons


def test_what_is_lost_above_is_said() -> None:
    """The next weight up is the one that a reader would try."""
    found = recommended(
        place("base", 0.8),
        place("w0_8", 0.05),
        place("w1", 0.04, overshoot=("skin_tone@held_out",), fidelity=LOST),
    )
    assert found.arm == "w0_8"
    said = "above it fidelity is lost (colour on explicit \N{MINUS SIGN}9.0 points) and skin tone"
    assert said in found.sentence


@pytest.mark.parametrize(
    "bad",
    [
        {"fidelity": LOST},
        {"drift": weakest("drift@control", 0.2, "lost")},
        {"overshoot": ("colour@trained",)},
        {"flags": ("trained: 9 % repeat another seed's picture",)},
    ],
    ids=lambda bad: next(iter(bad)),
)
def test_an_arm_that_lost_something_is_never_taken(bad: dict[str, Any]) -> None:
    """Alone it leaves nothing to take; beside a weaker one that lost nothing it is passed over."""
    strong = place("strong", 0.0, **bad)
    none = recommended(place("base", 0.8), strong)
    assert (none.arm, none.proven) == (None, False)
    assert none.sentence.startswith("Take none of them")
    assert recommended(place("base", 0.8), strong, place("mild", 0.6)).arm == "mild"


def test_what_is_proven_comes_before_what_is_only_not_lost() -> None:
    """An open question about fidelity is said where no arm is without."""
    doubtful = place("strong", 0.0, fidelity=OPEN)
    assert recommended(place("base", 0.8), doubtful, place("mild", 0.6)).arm == "mild"
    alone = recommended(place("base", 0.8), doubtful)
    assert (alone.arm, alone.proven) == ("strong", False)
    assert "it is not settled that fidelity and drift stayed" in alone.sentence


def test_without_a_settled_gain_the_base_stays() -> None:
    """A lower estimate alone recommends nothing."""
    found = recommended(place("base", 0.3), place("w1", 0.25))
    assert found.arm is None
    assert found.sentence.startswith("Stay with base")
    assert len(rules()) == 4


def comparison(*places: Place) -> Comparison:
    """A comparison with these places, and a sweep of those whose name begins with w."""
    sweep = tuple(Point(weight=n, arm=p.arm) for n, p in enumerate(places) if p.arm[0] == "w")
    return Comparison(
        baseline="base",
        ranking=Ranking(
            suite="held_out",
            attributes=("colour",),
            inference="subjects",
            n_prompts=12,
            n_clusters=12,
            n_seeds=5,
            left_out=(),
            margin=0.05,
        ),
        leaderboard=places,
        pairs=(),
        sweeps={"w": sweep},
        recommendation=Recommendation(arm=None, proven=False, sentence="", reasons=()),
    )


def test_the_picture_holds_every_arm_inside_and_labels_apart() -> None:
    """Points and whiskers lie in the plot, a sweep starts at the base, labels do not cover."""
    places = [place("base", 0.8), *[place(f"w{n}", 0.1 + n / 100, 0.01) for n in range(1, 5)]]
    drawn = pareto.picture(comparison(*places))
    assert drawn is not None
    assert len(drawn.spots) == 5
    for spot in drawn.spots:
        assert pareto.LEFT <= min(spot.x_ends) <= spot.x <= pareto.WIDTH - pareto.RIGHT
        assert pareto.TOP <= min(spot.y_ends) <= max(spot.y_ends) <= pareto.HEIGHT - pareto.BOTTOM
    [curve] = drawn.curves
    base = next(s for s in drawn.spots if s.place.arm == "base")
    assert curve.split()[0] == f"{base.x},{base.y}"
    assert len(curve.split()) == 5
    heights = sorted(s.label_y for s in drawn.spots if s is not base)
    assert all(b - a >= pareto.LABEL_PX - 0.2 for a, b in pairwise(heights))
    lower = {s.place.arm: s.y for s in drawn.spots}
    assert lower["w1"] > lower["base"]  # less imbalance is farther down
    assert pareto.picture(comparison(place("base", 0.8), place("x", 0.1, far=0.0))) is not None


def test_without_controls_there_is_no_picture() -> None:
    """Drift was not measured, so there is nothing to set imbalance against."""
    undrawn = place("x", 0.1).model_copy(update={"drift": None})
    assert pareto.picture(comparison(place("base", 0.8), undrawn)) is None

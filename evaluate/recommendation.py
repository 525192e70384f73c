"""Which arm to take, in one sentence, by rules that are set before anything is measured.

1. An arm works where its imbalance on the ranking is settled to be below the baseline's.
2. It is out where any fidelity or drift row is lost, where more prompts overshoot than chance
   makes, or where its pictures have collapsed. It is proven where all of these rows are kept.
3. Of the proven arms that work (where there are none, of those that are not out) the one with the
   least imbalance leads. Arms that are tied with it are as good: of all these the one is taken with
   the least drift, then with the smallest weights, then the first.
4. Where no arm is left, the baseline stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from unskew.evaluate.boards import Difference
from unskew.evaluate.report_words import number, plain, points, suite_title
from unskew.evaluate.schema_comparison import Place, Recommendation, Weakest


def recommend(
    baseline: str,
    places: Sequence[Place],
    decided: Sequence[Difference],
    sweeps: Mapping[str, Sequence[tuple[float, str]]],
    total_weight: Callable[[str], float],
) -> Recommendation:
    """Apply the rules to a leaderboard and the pairs that decide it."""
    by_arm = {place.arm: place for place in places}
    base = by_arm[baseline]
    verdict = {(found.arm, found.against): found.verdict for found in decided}
    works = [p for p in places if p.arm != baseline and _better(verdict, p.arm, baseline)]
    fit = [place for place in works if not against(place)]
    proven = [place for place in fit if _is_proven(place)]
    allowed = proven or fit
    if not allowed:
        return _none(base, places, works)
    lead = min(allowed, key=lambda place: place.imbalance)
    as_good = [lead, *(p for p in allowed if p.arm in lead.ties)]

    def cost(place: Place) -> tuple[float, float]:
        return (place.drift.value if place.drift else 0.0, total_weight(place.arm))

    taken = min(as_good, key=cost)
    reasons = _reasons(taken, lead, as_good, places, sweeps, works)
    return Recommendation(
        arm=taken.arm,
        proven=bool(proven),
        sentence=_sentence(taken, base, bool(proven), _around(taken, by_arm, verdict, sweeps)),
        reasons=tuple(reasons),
    )


def against(place: Place) -> tuple[str, ...]:
    """Why an arm is out, a few words each; empty where nothing is shown to be lost."""
    found = []
    if place.fidelity and place.fidelity.verdict == "lost":
        found.append(f"fidelity is lost ({_told(place.fidelity)})")
    if place.drift and place.drift.verdict == "lost":
        found.append(f"control pictures drift ({number(place.drift.value, 3)})")
    if place.overshoot:
        names = sorted({_attribute(name) for name in place.overshoot})
        found.append(f"{_list(names)} overshoot{'s' if len(names) == 1 else ''}")
    if place.flags:
        found.append(f"pictures have collapsed ({place.flags[0]})")
    return tuple(found)


def _is_proven(place: Place) -> bool:
    return all(part is None or part.verdict == "kept" for part in (place.fidelity, place.drift))


def _better(verdict: Mapping[tuple[str, str], str], arm: str, other: str) -> bool:
    """Whether an arm is settled to be nearer to the target than another."""
    return verdict.get((arm, other)) == "improved" or verdict.get((other, arm)) == "worsened"


def _none(base: Place, places: Sequence[Place], works: Sequence[Place]) -> Recommendation:
    if works:
        sentence = (
            f"Take none of them: whatever is shown to lower the imbalance of {base.title} also "
            "loses something that should stay."
        )
    else:
        sentence = (
            f"Stay with {base.title}: no arm is shown to lower its imbalance of "
            f"{number(base.imbalance)}."
        )
    lines = [f"{_capital(place.title)}: {_list(against(place))}." for place in works]
    lines += [
        f"{_capital(place.title)} is not settled to be better than {base.title}."
        for place in places
        if place not in works and place is not base
    ]
    return Recommendation(arm=None, proven=False, sentence=sentence, reasons=tuple(lines))


def _sentence(taken: Place, base: Place, proven: bool, around: str) -> str:
    kept = [
        word
        for word, part in (("fidelity", taken.fidelity), ("drift", taken.drift))
        if part is not None
    ]
    fell = f"imbalance falls from {number(base.imbalance)} to {number(taken.imbalance)}"
    if not kept:
        stays = ", but nothing was drawn that shows what should stay"
    elif proven:
        verb = "stay within their margins" if len(kept) > 1 else "stays within its margin"
        stays = f", and {_list(kept)} {verb}"
    else:
        stays = f", but it is not settled that {_list(kept)} stayed within the margins"
    return f"Take {taken.title}: {fell}{stays}{f'; {around}' if around else ''}."


def _around(
    taken: Place,
    by_arm: Mapping[str, Place],
    verdict: Mapping[tuple[str, str], str],
    sweeps: Mapping[str, Sequence[tuple[float, str]]],
) -> str:
    """What becomes of the weights next to the one that is taken."""
    sweep = next((s for s in sweeps.values() if taken.arm in [arm for _, arm in s]), ())
    arms = [by_arm[arm] for _, arm in sweep]
    if taken not in arms or len(arms) < 2:
        return ""
    at = arms.index(taken)
    told = []
    if at + 1 < len(arms):
        above = arms[at + 1]
        lost = against(above)
        worse = f"imbalance rises to {number(above.imbalance)}"
        gains = _better(verdict, above.arm, taken.arm)
        told.append(
            f"above it {_list(lost)}"
            if lost
            else f"above it {worse}"
            if _better(verdict, taken.arm, above.arm)
            else "above it is less imbalance, but not without doubt about the rest"
            if gains
            else "above it nothing more is settled to be gained"
        )
    if at > 0 and _better(verdict, taken.arm, arms[at - 1].arm):
        told.append(f"below it {number(arms[at - 1].imbalance)} is left")
    return "; ".join(told)


def _reasons(
    taken: Place,
    lead: Place,
    as_good: Sequence[Place],
    places: Sequence[Place],
    sweeps: Mapping[str, Sequence[tuple[float, str]]],
    works: Sequence[Place],
) -> list[str]:
    lines = []
    others = [place.title for place in as_good if place is not taken]
    if others:
        why = "the least drift" if taken.drift else "the smallest weights"
        lines.append(
            f"{_capital(taken.title)} is tied with {_list(others)}; of these it has {why}."
        )
    lines += [
        f"{_capital(place.title)} is out: {_list(against(place))}."
        for place in works
        if against(place)
    ]
    doubted = [p.title for p in works if not against(p) and not _is_proven(p) and p is not taken]
    if doubted:
        lines.append(
            f"Of {_list(doubted)} it is not settled that all that should stay has stayed: more "
            "prompts or seeds would tell."
        )
    return lines


def _told(weakest: Weakest) -> str:
    attribute, _, suite = weakest.name.partition("@")
    return f"{plain(attribute)} on {suite_title(suite)} {points(weakest.value)} points"


def _attribute(name: str) -> str:
    return plain(name.partition("@")[0])


def _list(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def rules() -> list[str]:
    """The rules as sentences, as the page prints them."""
    _, _, listed = (__doc__ or "").partition("\n\n")
    return [" ".join(rule.split()) for rule in re.split(r"^\d+\. ", listed, flags=re.M) if rule]

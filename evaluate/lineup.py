"""The study of many arms that a comparison is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from unskew.adapter_sources import resolve_adapter
from unskew.errors import UserError
from unskew.evaluate.compare_options import CompareSettings
from unskew.evaluate.options import ArmSettings, StudySettings

ADAPTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
MIXED = "+"
WEIGHED = ":"


@dataclass(frozen=True)
class Lineup:
    """The arms of a comparison."""

    study: StudySettings
    titles: Mapping[str, str]
    """Arm -> how it is called where no folder has to bear the name."""
    sweeps: Mapping[str, tuple[tuple[float, str], ...]]
    """Adapter -> (weight, arm) of each of its weights, in rising order."""
    sources: Mapping[str, Path]
    """Adapter -> its folder or file here."""

    def total_weight(self, arm: str) -> float:
        """How much an arm wears: the sum of its weights' sizes."""
        return sum(abs(worn.weight) for worn in self.study.arms[arm].worn())


def line_up(settings: CompareSettings) -> Lineup:
    """The study that a comparison is. Raises UserError that lists all that is wrong with its arms.

    Adapters on the hub are fetched.
    """
    problems: list[str] = []
    sources: dict[str, Path] = {}
    for name, given in settings.adapters.items():
        if not ADAPTER_NAME.fullmatch(name):
            problems.append(
                f"adapters: {name[:80]!r} cannot name an adapter: up to 32 letters a-z, digits, - "
                "and _, a letter or digit first"
            )
        try:
            sources[name] = resolve_adapter(
                given.adapter, revision=given.revision, file=given.file, cache=settings.cache
            )
        except UserError as error:
            problems.append(f"adapters.{name}: {error}")
        if len(set(given.weights)) < len(given.weights):
            problems.append(f"adapters.{name}.weights name a weight twice: {list(given.weights)}")
    mixes = [(mix, _parts(f"mixes: {mix!r}", mix, settings, problems)) for mix in settings.mixes]
    beside = [
        _parts(f"robustness.beside: {said!r}", said, settings, problems)
        for said in settings.robustness.beside
    ]
    problems += [
        f"robustness.beside: {said!r} names several adapters: give each by itself"
        for said, parts in zip(settings.robustness.beside, beside, strict=True)
        if len(parts) > 1
    ]
    if problems:
        raise UserError("a comparison cannot begin:" + "".join(f"\n  {p}" for p in problems))
    arms, titles = dict(settings.arms), {name: name for name in settings.arms}
    sweeps: dict[str, tuple[tuple[float, str], ...]] = {}
    for name, given in settings.adapters.items():
        points = []
        for weight in given.weights:
            alone = given.weights == (1.0,)
            arm = name if alone else f"{name}-{_folder_name(weight)}"
            _add(arms, arm, _arm({name: weight}, sources), f"adapters.{name}")
            titles[arm] = name if alone else f"{name} at {weight:g}"
            points.append((weight, arm))
        if points:
            sweeps[name] = tuple(sorted(points))
    for mix, parts in mixes:
        arm = "--".join(f"{name}-{_folder_name(weight)}" for name, weight in parts.items())
        _add(arms, arm, _arm(parts, sources), f"mixes {mix!r}")
        titles[arm] = " + ".join(f"{name} at {weight:g}" for name, weight in parts.items())
    return Lineup(
        study=_study(settings, arms),
        titles=titles,
        sweeps=sweeps,
        sources=sources,
    )


def beside_of(settings: CompareSettings) -> list[tuple[str, float]]:
    """(adapter, weight) of each style that an arm is tried beside."""
    return [
        part
        for said in settings.robustness.beside
        for part in _parts("robustness.beside", said, settings, []).items()
    ]


def _study(settings: CompareSettings, arms: Mapping[str, ArmSettings]) -> StudySettings:
    values = {name: getattr(settings, name) for name in StudySettings.model_fields}
    try:
        return StudySettings(**{**values, "arms": dict(arms)})
    except ValidationError as error:
        raise UserError(f"arms: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _arm(parts: Mapping[str, float], sources: Mapping[str, Path]) -> ArmSettings:
    worn = [{"adapter": sources[name], "weight": weight} for name, weight in parts.items()]
    return ArmSettings.model_validate(worn[0] if len(worn) == 1 else {"adapters": worn})


def _add(arms: dict[str, ArmSettings], name: str, arm: ArmSettings, of: str) -> None:
    if name in arms:
        raise UserError(f"{of} makes an arm {name}, which is there already: rename one of the two")
    arms[name] = arm


def _parts(
    where: str, said: str, settings: CompareSettings, problems: list[str]
) -> dict[str, float]:
    """Adapter -> weight of "one:0.8+two"; what is wrong goes to `problems`."""
    parts: dict[str, float] = {}
    for piece in said.split(MIXED):
        name, colon, weight = (word.strip() for word in piece.partition(WEIGHED))
        try:
            value = float(weight) if colon else 1.0
        except ValueError:
            problems.append(f'{where}: {weight!r} is no weight: write "name:0.8"')
            continue
        if name not in settings.adapters:
            known = ", ".join(settings.adapters) or "none"
            problems.append(f"{where}: adapters has no {name!r} (it has: {known})")
        elif name in parts:
            problems.append(f"{where} names {name} twice: add its weights up")
        parts[name] = value
    return parts


def _folder_name(weight: float) -> str:
    """A weight as a part of an arm's name, which may hold no dot: 0.25 -> "0_25"."""
    sign = "minus" if weight < 0 else ""
    return f"{sign}{abs(weight):g}".replace(".", "_").replace("+", "")

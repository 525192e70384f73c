"""What is wanted of each subject: its attributes' targets, and the share of every combination."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from unskew.attributes import Attribute, load_attribute, target_shares
from unskew.data.balance import Cell, cell_shares
from unskew.data.balance_options import BalanceSettings
from unskew.data.rows import Row
from unskew.errors import UserError

SHOWN = 10
"""Problems that a message lists before it only counts."""


@dataclass(frozen=True)
class Goal:
    """What is wanted of one subject."""

    subject: str
    attributes: tuple[Attribute, ...]
    """Those that apply to it and are balanced, with its own targets."""

    @property
    def shares(self) -> dict[Cell, float]:
        """Combination of values -> wanted share: the product of its values'. Sums to 1."""
        return cell_shares(self.attributes)

    def labels(self, cell: Cell) -> dict[str, str]:
        """Attribute -> value of a combination."""
        return {a.id: value for a, value in zip(self.attributes, cell, strict=True)}

    def cell(self, row: Row) -> Cell:
        """A row's combination of values. Only for a row that `is_labelled`."""
        return tuple(str(row.labels[a.id]) for a in self.attributes)

    def is_labelled(self, row: Row) -> bool:
        """Whether the row's value of every balanced attribute is known."""
        return all(row.labels[a.id] is not None for a in self.attributes)


def balanced_attributes(settings: BalanceSettings) -> tuple[Attribute, ...]:
    """The attributes with the targets that are asked for everywhere.

    Raises UserError that lists all that is wrong with attributes and targets.
    """
    problems: list[str] = []
    wanted: dict[str, Attribute] = {}
    for id in settings.attributes:
        if id in wanted:
            problems.append(f"balance.attributes must be different ones, got {id} twice")
            continue
        try:
            wanted[id] = load_attribute(id)
        except UserError as error:
            problems.append(f"balance.attributes: {error}")
    for where, id, given in _given_targets(settings):
        if id in wanted:
            try:
                target = target_shares(given, wanted[id].values, where)
            except UserError as error:
                problems.append(str(error))
                continue
            if where == f"balance.targets.{id}":
                wanted[id] = dataclasses.replace(wanted[id], target=target)
        elif id not in settings.attributes:
            named = ", ".join(settings.attributes) or "none"
            problems.append(f"{where} must be one of balance.attributes ({named}): add it there")
    if problems:
        raise UserError("the dataset cannot be balanced:" + _listed(problems))
    return tuple(wanted.values())


def goals_of(
    rows: Sequence[Row],
    settings: BalanceSettings,
    also: Mapping[str, Sequence[str]],
) -> dict[str, Goal]:
    """Subject -> what is wanted of it, in the rows' order; controls, which have nothing to balance.

    `also` holds subjects that need not have a row yet -> the attributes that apply to them. Raises
    UserError for a label outside its attribute's values, a subject whose rows differ in which
    attributes they have, and a subject that settings name and no row has.
    """
    attributes = balanced_attributes(settings)
    own: dict[str, tuple[str, ...]] = {}
    first: dict[str, Row] = {}
    problems: list[str] = []
    for row in rows:
        ids = tuple(a.id for a in attributes if a.id in row.labels)
        if own.setdefault(row.subject, ids) != ids:
            problems.append(
                f"{row.subject!r} has {_named(own[row.subject])} in {first[row.subject].name} and "
                f"{_named(ids)} in {row.name}: all rows of a subject need the same attributes; "
                "give the ones that lack one the label unknown"
            )
        first.setdefault(row.subject, row)
        for attribute in attributes:
            value = row.labels.get(attribute.id)
            if value is not None and value not in attribute.values:
                problems.append(
                    f"{row.name}: {attribute.id} is {value!r} "
                    f"(allowed: {', '.join(attribute.values)}, or unknown)"
                )
    for subject, applying in also.items():
        own.setdefault(subject, tuple(a.id for a in attributes if a.id in applying))
    problems += [
        f"balance.subject_targets names {subject!r}, and no picture has that subject"
        for subject in settings.subject_targets
        if subject not in own and subject not in settings.leave_out
    ]
    if problems:
        raise UserError("the pictures cannot be balanced:" + _listed(problems))
    by_id = {a.id: a for a in attributes}
    return {
        subject: Goal(subject, tuple(_own(by_id[id], subject, settings) for id in ids))
        for subject, ids in own.items()
        if subject not in settings.leave_out
    }


def _own(attribute: Attribute, subject: str, settings: BalanceSettings) -> Attribute:
    given = settings.subject_targets.get(subject, {}).get(attribute.id)
    if given is None:
        return attribute
    where = f"balance.subject_targets.{subject}.{attribute.id}"
    return dataclasses.replace(attribute, target=target_shares(given, attribute.values, where))


def _given_targets(
    settings: BalanceSettings,
) -> Iterator[tuple[str, str, Mapping[str, float]]]:
    """(where it stands, attribute, shares) of every target in the settings."""
    for id, given in settings.targets.items():
        yield f"balance.targets.{id}", id, given
    for subject, by_id in settings.subject_targets.items():
        for id, given in by_id.items():
            yield f"balance.subject_targets.{subject}.{id}", id, given


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids) or "no attribute"


def _listed(problems: Sequence[str]) -> str:
    more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "".join(f"\n  {problem}" for problem in problems[:SHOWN]) + more

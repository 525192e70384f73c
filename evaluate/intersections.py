"""Intersections: two or more attributes read together, as one attribute of all combinations.

Nothing is read anew: a picture of "woman" and of "dark" is one of "woman + dark", and one of which
an attribute could not be read is unreadable. The target is the product of the attributes' targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import product

import numpy as np
import pandas as pd

from unskew.attributes import Attribute
from unskew.errors import UserError
from unskew.evaluate.cells import StudyPlan, SuiteCells
from unskew.evaluate.stats import Floats
from unskew.prompts import Prompt

JOIN = "+"


def intersection_id(parts: Sequence[str]) -> str:
    """What an intersection is called in primaries, gate and results: presentation+skin_tone."""
    return JOIN.join(parts)


def add_intersections(plan: StudyPlan, intersections: Sequence[Sequence[str]]) -> StudyPlan:
    """The plan with each intersection as an attribute of every prompt that measures all its parts.

    Raises UserError for fewer than two different attributes, for attributes that are not in the
    plan, and for such as no prompt measures together.
    """
    for parts in intersections:
        _check(plan, parts)
        attribute = _intersect([plan.attributes[id] for id in parts])
        plan = replace(
            plan,
            attributes={**plan.attributes, attribute.id: attribute},
            prompts=tuple(_measured(prompt, parts, plan.attributes) for prompt in plan.prompts),
            intersections={**plan.intersections, attribute.id: tuple(parts)},
        )
    return plan


def with_intersections(cells: SuiteCells, plan: StudyPlan) -> SuiteCells:
    """The cells with the codes of each of the plan's intersections whose parts were read here."""
    codes, values = dict(cells.codes), dict(cells.values)
    for id, parts in plan.intersections.items():
        if not all(part in cells.codes for part in parts):
            continue
        read = np.logical_and.reduce([cells.codes[part] >= 0 for part in parts])
        sizes = [len(cells.values[part]) for part in parts]
        joint = np.ravel_multi_index(
            [np.where(read, cells.codes[part], 0) for part in parts], sizes
        )
        codes[id] = np.where(read, joint, -1).astype(np.int64)
        values[id] = pd.Index(plan.attributes[id].values)
    return replace(cells, codes=codes, values=values)


def _check(plan: StudyPlan, parts: Sequence[str]) -> None:
    if len(set(parts)) < 2 or len(set(parts)) < len(parts):
        raise UserError(f"intersections must name two or more different attributes, got {parts}")
    for part in parts:
        if part not in plan.attributes:
            raise UserError(
                f"intersections name {part!r}, which this study does not measure (it measures: "
                f"{', '.join(plan.attributes) or 'none'})"
            )
    if not any(set(parts) <= set(prompt.attributes) for prompt in plan.prompts):
        raise UserError(
            f"intersections: no prompt measures {' and '.join(parts)} together; list them on the "
            "same prompts, or leave this intersection out"
        )


def _intersect(parts: Sequence[Attribute]) -> Attribute:
    return Attribute(
        id=intersection_id([part.id for part in parts]),
        title=" with ".join(part.title for part in parts),
        values=tuple(f" {JOIN} ".join(names) for names in product(*(p.values for p in parts))),
        target=_product([part.target for part in parts]),
        caveat=" ".join(part.caveat for part in parts),
    )


def _measured(prompt: Prompt, parts: Sequence[str], attributes: Mapping[str, Attribute]) -> Prompt:
    if not set(parts) <= set(prompt.attributes):
        return prompt
    id, targets = intersection_id(parts), dict(prompt.targets)
    if any(part in targets for part in parts):
        targets[id] = _product([targets.get(part, attributes[part].target) for part in parts])
    return replace(prompt, attributes=(*prompt.attributes, id), targets=targets)


def _product(shares: Sequence[Floats]) -> Floats:
    """(K,) the product of distributions, the last attribute's values running fastest."""
    return reduce(lambda joint, one: np.outer(joint, one).ravel(), shares)

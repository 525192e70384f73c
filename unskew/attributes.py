"""Attributes: perceived, categorical properties of a picture, and the shares that are wanted.

Each lives in `configs/attributes/<id>.yaml`: its values (a closed list), its target and its caveat.
One may be a fold of a finer one: its values are groups of the finer one's, and its readings follow
from those.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import unskew.configs
from unskew.errors import UserError
from unskew.yaml_files import StrictModel, checked, read_yaml

ATTRIBUTES_DIR = Path(next(iter(unskew.configs.__path__))) / "attributes"
SUBJECT = "subject"
"""The pseudo attribute that every picture has: what it shows. Its values are subject ids."""


@dataclass(frozen=True)
class Fold:
    """How an attribute's values are groups of a finer attribute's."""

    attribute: str
    """The finer attribute, the one that a classifier reads."""
    values: tuple[str, ...]
    """The finer attribute's values."""
    coarse_k: NDArray[np.int64]
    """(K of the finer one,) index of the coarse value that each of its values becomes."""


@dataclass(frozen=True)
class Attribute:
    """One perceived property and the distribution that the user wants of it."""

    id: str
    title: str
    """What readers see: "perceived presentation"."""
    values: tuple[str, ...]
    target: NDArray[np.float64]
    """(K,) wanted share of each value; sums to 1."""
    caveat: str
    """What a reading of this attribute does not say; carried into every output."""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False, compare=False)
    """Value -> words that name it in a prompt; a neutral prompt holds none of them."""
    fold: Fold | None = field(default=None, compare=False)
    """Set where the readings are those of a finer attribute."""


class _FoldFile(StrictModel):
    attribute: str
    values: dict[str, list[str]]


class _AttributeFile(StrictModel):
    title: str | None = None
    values: list[str] | None = None
    folds: _FoldFile | None = None
    target: dict[str, float] | str = "uniform"
    caveat: str
    words: dict[str, list[str]] = {}


def load_attribute(id: str, folder: Path = ATTRIBUTES_DIR) -> Attribute:
    """Read one attribute. Raises UserError when it is missing or says something impossible."""
    file = folder / f"{id}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in folder.glob("*.yaml"))) or "none"
        raise UserError(f"attribute {id!r} has no file {file} (known: {known})")
    table = checked(_AttributeFile, read_yaml(file, "attribute file"), str(file))
    given = table.folds.values if table.folds else table.values
    if given is None or (table.folds and table.values is not None):
        raise UserError(f"{file}: needs values, or folds of a finer attribute, and not both")
    values = tuple(given)
    if len(values) < 2 or len(set(values)) < len(values):
        raise UserError(f"{file}: values must be two or more different names, got {list(values)}")
    strangers = sorted(set(table.words) - set(values))
    if strangers:
        raise UserError(f"{file}: words.{strangers[0]} is no value (allowed: {list(values)})")
    return Attribute(
        id=id,
        title=table.title or id,
        values=values,
        target=target_shares(table.target, values, f"{file}: target"),
        caveat=table.caveat.strip(),
        words={value: tuple(words) for value, words in table.words.items()},
        fold=_fold(table.folds, file) if table.folds else None,
    )


def _fold(folds: _FoldFile, file: Path) -> Fold:
    fine = load_attribute(folds.attribute, file.parent)
    if fine.fold:
        raise UserError(f"{file}: folds.attribute {fine.id} is a fold itself: name a read one")
    groups = list(folds.values.values())
    given = [value for group in groups for value in group]
    if sorted(given) != sorted(fine.values):
        raise UserError(
            f"{file}: folds.values must hold each value of {fine.id} once "
            f"({list(fine.values)}), got {given}"
        )
    place = {value: k for k, group in enumerate(groups) for value in group}
    return Fold(
        fine.id, fine.values, np.array([place[value] for value in fine.values], dtype=np.int64)
    )


def attributes_to_read(ids: Iterable[str], folder: Path = ATTRIBUTES_DIR) -> tuple[str, ...]:
    """What a classifier must read so that these can be judged: for a fold the finer attribute."""
    return tuple(dict.fromkeys(_read_as(id, folder) for id in ids))


@lru_cache(maxsize=256)
def _read_as(id: str, folder: Path) -> str:
    if id == SUBJECT:
        return id
    fold = load_attribute(id, folder).fold
    return fold.attribute if fold else id


def folded(fine_codes: NDArray[np.int64], fold: Fold) -> NDArray[np.int64]:
    """The fold's codes for codes of the finer attribute, of any shape; -1 stays unreadable."""
    codes: NDArray[np.int64] = np.where(fine_codes < 0, -1, fold.coarse_k[fine_codes])
    return codes


def target_shares(
    target: str | Mapping[str, float], values: tuple[str, ...], where: str
) -> NDArray[np.float64]:
    """(K,) shares from "uniform" or a mapping that names every value and sums to 1.

    `where` opens the message of the UserError that a bad target raises.
    """
    if target == "uniform":
        return np.full(len(values), 1 / len(values))
    if not isinstance(target, Mapping):
        raise UserError(f'{where} must be "uniform" or a share for each value, got {target!r}')
    if set(target) != set(values):
        raise UserError(f"{where} must name exactly {list(values)}, got {list(target)}")
    wrong = [x for x in target.values() if isinstance(x, bool) or not isinstance(x, int | float)]
    if wrong:
        raise UserError(f"{where} must be shares >= 0 that sum to 1, got {wrong[0]!r}")
    shares = np.array([float(target[value]) for value in values])
    if not (shares >= 0).all() or not math.isclose(float(shares.sum()), 1, abs_tol=1e-6):
        raise UserError(f"{where} must be shares >= 0 that sum to 1, got {dict(target)}")
    normalised: NDArray[np.float64] = shares / shares.sum()
    return normalised

"""Attributes: perceived, categorical properties of a picture, and the shares that are wanted.

Each lives in `configs/attributes/<id>.yaml`: its values (a closed list), its target and its caveat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

import unskew.configs
from unskew.errors import UserError

ATTRIBUTES_DIR = Path(next(iter(unskew.configs.__path__))) / "attributes"
SUBJECT = "subject"
"""The pseudo attribute that every picture has: what it shows. Its values are subject ids."""


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


def load_attribute(id: str, folder: Path = ATTRIBUTES_DIR) -> Attribute:
    """Read one attribute. Raises UserError when it is missing or says something impossible."""
    file = folder / f"{id}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in folder.glob("*.yaml"))) or "none"
        raise UserError(f"attribute {id!r} has no file {file} (known: {known})")
    table = yaml.safe_load(file.read_text("utf-8"))
    keys = {"title", "values", "target", "caveat"}
    if not isinstance(table, dict) or set(table) - keys or not {"values", "caveat"} <= set(table):
        given = sorted(table) if isinstance(table, dict) else type(table).__name__
        raise UserError(f"{file}: needs values and caveat, may have title and target, got {given}")
    values = tuple(str(value) for value in table["values"])
    if len(values) < 2 or len(set(values)) < len(values):
        raise UserError(f"{file}: values must be two or more different names, got {list(values)}")
    return Attribute(
        id=id,
        title=str(table.get("title", id)),
        values=values,
        target=target_shares(table.get("target", "uniform"), values, f"{file}: target"),
        caveat=str(table["caveat"]).strip(),
    )


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
    shares = np.array([float(target[value]) for value in values])
    if (shares < 0).any() or not math.isclose(float(shares.sum()), 1, abs_tol=1e-6):
        raise UserError(f"{where} must be shares >= 0 that sum to 1, got {dict(target)}")
    normalised: NDArray[np.float64] = shares / shares.sum()
    return normalised

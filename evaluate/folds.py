"""Readings of a finer attribute as readings of the coarser one that a study measures."""

from __future__ import annotations

import pandas as pd

from unskew.attributes import load_attribute
from unskew.evaluate.schema import Results


def with_folds(readings: pd.DataFrame, results: Results) -> pd.DataFrame:
    """The readings, and for each attribute that was folded from a finer one rows of its own.

    A picture whose finer value could not be read is unreadable in the coarser too.
    """
    tables = [readings]
    for id, attribute in results.settings.attributes.items():
        fold = load_attribute(id).fold if attribute.folded_from else None
        if fold is None or (readings["attribute"] == id).any():
            continue
        fine = load_attribute(fold.attribute).values
        coarse = {
            value: attribute.values[code]
            for value, code in zip(fine, fold.coarse_k.tolist(), strict=True)
        }
        own = readings[readings["attribute"] == fold.attribute]
        tables.append(own.assign(attribute=id, value=own["value"].map(coarse)))
    return pd.concat(tables, ignore_index=True) if len(tables) > 1 else readings

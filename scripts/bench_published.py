"""Published counts of a debiasing, read as they were published and without their noise floor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from unskew.evaluate.stats import gap, imbalance


def published_rows(file: Path) -> dict[str, Any]:
    """Source, and for each arm the plug-in and the unbiased figures.

    `file` holds `source`, `columns` (two values, then the pictures without a face) and for each arm
    a table of prompt -> counts.
    """
    table = json.loads(file.read_text("utf-8"))
    arms = [name for name, part in table.items() if isinstance(part, dict)]
    return {"source": table["source"], "arms": {arm: _figures(table[arm]) for arm in arms}}


def _figures(counts: dict[str, list[int]]) -> dict[str, float]:
    counts_pk = np.array(list(counts.values()))
    read_pk, unread_p = counts_pk[:, :2], counts_pk[:, 2]
    first_p = read_pk[:, 0] / read_pk.sum(1)
    unbiased = float(imbalance(read_pk, np.full_like(read_pk, 0.5, dtype=np.float64)).mean())
    return {
        "prompts": len(counts_pk),
        "pictures": int(counts_pk.sum()),
        "unreadable": float(unread_p.sum() / counts_pk.sum()),
        "plug_in": float(np.abs(2 * first_p - 1).mean()),
        "imbalance": unbiased,
        "gap": gap(unbiased),
    }

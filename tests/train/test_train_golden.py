"""Training does what it did when it was last looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unskew.scripts.write_golden import golden

FILE = Path(__file__).parent / "golden" / "emoji-20-steps.json"
TOLERANCE = 1e-4
"""Of each loss. CPUs and libraries sum in other orders: the same training with SSE4 alone and with
AVX2 parts by 3e-6 within these steps, and other machines may part by some times that. A warm-up of
11 steps instead of 10 is off by more than this from the second step on."""


@pytest.mark.slow
def test_emoji_world_trains_as_it_did(tmp_path: Path) -> None:
    """Twenty steps of the real training have the losses on record, up to what a CPU rounds."""
    then, now = json.loads(FILE.read_text("utf-8")), golden(tmp_path)
    assert len(now["losses"]) == len(then["losses"]) == 20
    residuals = [abs(n / t - 1) for n, t in zip(now["losses"], then["losses"], strict=True)]
    step = next((n for n, residual in enumerate(residuals, 1) if residual > TOLERANCE), None)
    others = {
        f"{block}.{name}": f"{value} -> {now[block][name]}"
        for block in ("environment", "inputs")
        for name, value in then[block].items()
        if now[block][name] != value
    }
    assert step is None, (
        f"the losses part from those on record at step {step}, by at most {max(residuals):.1e} of "
        f"them; what else is not as it was: {others or 'nothing'}. If that is meant: "
        f"{then['command']}"
    )

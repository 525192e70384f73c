"""Unskew: measure the skew in what a text-to-image model shows, train it away, prove the change.

In a notebook: `unskew.audit`, `unskew.paired`, `unskew.compare` and `unskew.load_results`;
docs/python.md. They are
loaded when they are first used, so that `import unskew` stays light.
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unskew.evaluate.comparison_run import ComparisonRun as ComparisonRun
    from unskew.evaluate.notebook import CompareKeywords as CompareKeywords
    from unskew.evaluate.notebook import StudyKeywords as StudyKeywords
    from unskew.evaluate.notebook import audit as audit
    from unskew.evaluate.notebook import compare as compare
    from unskew.evaluate.notebook import load_results as load_results
    from unskew.evaluate.notebook import paired as paired
    from unskew.evaluate.study_run import StudyRun as StudyRun

# transformers warns at import that torchvision is missing; nothing here needs it.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# bitsandbytes warns at import, on CPUs with bf16, of a kernel of the hub's that it does without.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

_FROM = {
    "CompareKeywords": "unskew.evaluate.notebook",
    "ComparisonRun": "unskew.evaluate.comparison_run",
    "StudyKeywords": "unskew.evaluate.notebook",
    "StudyRun": "unskew.evaluate.study_run",
    "audit": "unskew.evaluate.notebook",
    "compare": "unskew.evaluate.notebook",
    "load_results": "unskew.evaluate.notebook",
    "paired": "unskew.evaluate.notebook",
}

__all__ = [
    "CompareKeywords",
    "ComparisonRun",
    "StudyKeywords",
    "StudyRun",
    "audit",
    "compare",
    "load_results",
    "paired",
]


def __getattr__(name: str) -> object:
    """What notebooks use, loaded late."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FROM[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM})

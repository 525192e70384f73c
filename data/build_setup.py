"""What every step of a build shares: where it works, what it measures, and with whom it works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from unskew.attributes import Attribute
from unskew.processes import Processes

WORK = ".work"


@dataclass(frozen=True)
class Setup:
    """The surroundings of a build."""

    out: Path
    """The dataset's folder."""
    attributes: Mapping[str, Attribute]
    """Those that are balanced, by id."""
    attributes_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Subject -> the attributes that apply to it, () for a control; to others all apply."""
    processes: Processes = Processes(0, 1)  # noqa: RUF009 - frozen
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - never changed

    @property
    def work(self) -> Path:
        """The hidden folder of what is made on the way; a killed build goes on from it."""
        return self.out / WORK

    def applies(self, subject: str) -> tuple[str, ...]:
        """The attributes that apply to a subject, in the order of `attributes`."""
        own = self.attributes_of.get(subject)
        return tuple(a for a in self.attributes if own is None or a in own)

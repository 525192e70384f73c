"""Stopping well: a signal lets the step finish and the checkpoint be written."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator

from unskew.runs import Terminated

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop(AbstractContextManager["Stop"]):
    """Inside, the first SIGINT or SIGTERM is remembered; a second one acts as it would outside."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.signal = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        self.before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def asked(self, *, wait: bool = True) -> bool:
        """Whether any process was told to stop; every process gives the same answer.

        Several must wait for each other to know; without `wait` they say no for now.
        """
        if self.accelerator.num_processes == 1:
            return self.signal != 0
        if not wait:
            return False
        told = torch.tensor([self.signal], device=self.accelerator.device)
        self.signal = int(self.accelerator.gather(told).max())
        return self.signal != 0

    def error(self) -> KeyboardInterrupt:
        """What to raise once all is saved: it ends as the signal itself would have."""
        return Terminated("terminated") if self.signal == signal.SIGTERM else KeyboardInterrupt()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

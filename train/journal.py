"""What training says while it runs: metrics.jsonl, the tracker, and progress on stderr."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from accelerate import Accelerator
from tqdm import tqdm

from unskew.processes import settle
from unskew.runs import write_text_atomic

WARM_UP = 3
"""First steps that the estimate leaves out: kernels are chosen and memory is found in them."""


def say(accelerator: Accelerator, text: str) -> None:
    """One message, whatever the number of processes, on stderr: stdout is for results."""
    if accelerator.is_main_process:
        print(text, file=sys.stderr)


class Journal:
    """Keeps the record of a run's steps; silent on processes other than the main one."""

    def __init__(self, accelerator: Accelerator, folder: Path, first: int, steps: int) -> None:
        self.accelerator, self.steps, self.first = accelerator, steps, first
        self.file = folder / "metrics.jsonl"
        self.done, self.seconds, self.unread = 0, 0.0, 0.0
        self.mark = time.perf_counter()
        on_terminal = accelerator.is_main_process and sys.stderr.isatty()
        self.bar = tqdm(
            total=steps, initial=first, desc="training", unit="step", disable=not on_terminal
        )
        if accelerator.is_main_process:
            write_text_atomic(self.file, self._lines_until(first))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.close()
        settle()
        self.accelerator.end_training()

    def leave_out(self) -> None:
        """What was done since the last step (such as validation) is no training time."""
        self.mark = time.perf_counter()

    def step(self, done: int, metrics: Mapping[str, float], *, log: bool, read: int = 1) -> float:
        """One step is finished, `done` in all; `log` records its metrics. How long it took, s.

        `read` is how many steps the program has just found finished: a GPU works on after it was
        asked, so only what they took together is known, and each is said to have taken a share.
        """
        now = time.perf_counter()
        took = now - self.mark
        if done > self.first + WARM_UP:
            self.done, self.seconds = self.done + 1, self.seconds + took
        self.mark = now
        self.bar.update()
        if log and self.accelerator.is_main_process:
            self._log(done, metrics)
        self.unread += took
        share = self.unread / max(1, read)
        self.unread = 0.0 if read else self.unread
        return share

    def record(self, done: int, values: Mapping[str, float]) -> None:
        """A line of figures, as of step `done`, for the tracker and metrics.jsonl."""
        if self.accelerator.is_main_process:
            self.accelerator.log(dict(values), step=done)
            with self.file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"step": done, **values}) + "\n")

    def _log(self, done: int, metrics: Mapping[str, float]) -> None:
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self.record(done, {**finite, "seconds_per_step": self.seconds_per_step})  # JSON has no inf
        self.bar.set_postfix(loss=f"{metrics['loss']:.4f}")
        if self.bar.disable:
            left = self.seconds_per_step * (self.steps - done)
            print(
                f"step {done}/{self.steps}  loss {metrics['loss']:.4f}  "
                f"{self.seconds_per_step:.2f} s a step  {left / 60:.1f} min left",
                file=sys.stderr,
            )

    @property
    def seconds_per_step(self) -> float:
        """Mean seconds of a step so far, the first ones left out; 0 before there is any."""
        return self.seconds / self.done if self.done else 0.0

    def _lines_until(self, done: int) -> str:
        """The lines of an attempt before, up to the step that this one goes on from."""
        if not self.file.exists():
            return ""
        kept = []
        for line in self.file.read_text("utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= done:
                    kept.append(line + "\n")
            except (ValueError, KeyError):  # a line that a kill cut short
                break
        return "".join(kept)

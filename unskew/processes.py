"""Several processes of one program: which one this is, and what they tell each other.

`torchrun --nproc-per-node 2 PROGRAM` or `accelerate launch` starts them; alone, a program is the
first of one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from unskew.errors import UserError

T = TypeVar("T")
SETTLING_S = 0.2
PATIENCE = timedelta(days=7)
"""How long processes wait for each other: one may have hours of work more than another."""


@dataclass(frozen=True)
class Processes:
    """The processes of a program, seen from one of them."""

    index: int
    count: int

    @property
    def is_first(self) -> bool:
        """Whether this is the process that reads, judges and speaks."""
        return self.index == 0

    def share(self, work: Sequence[T]) -> list[T]:
        """This process's part: every `count`-th piece. The parts are disjoint and cover all."""
        return list(work[self.index :: self.count])

    def from_first(self, work: Callable[[], T]) -> T:
        """What the first process makes of `work`, in every process; it must be picklable.

        Where it fails there, its error is raised there, and a UserError that says so elsewhere:
        nobody waits for what does not come.
        """
        made: list[Any] = [self.only_first(work)]
        value: T = (broadcast_object_list(made) if self.count > 1 else made)[0]
        return value

    def only_first(self, work: Callable[[], T]) -> T | None:
        """What the first process makes of `work`; None in the others. Fails as `from_first`."""
        if not self.is_first:
            [said] = broadcast_object_list([None])
            if said is not None:
                raise UserError(f"the first process ended: {said}")
            return None
        try:
            value = work()
        except BaseException as error:
            self._tell(f"{type(error).__name__}: {error}")
            raise
        self._tell(None)
        return value

    def _tell(self, said: str | None) -> None:
        if self.count > 1:
            broadcast_object_list([said])

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            PartialState().wait_for_everyone()

    def part(self) -> None:
        """The end of what is done together; each goes on by itself."""
        if self.count > 1:
            settle()
            PartialState().destroy_process_group()

    def say(self, text: str) -> None:
        """One message, whatever the number of processes, on stderr: stdout is for results."""
        if self.is_first:
            print(text, file=sys.stderr, flush=True)


def join_processes() -> Processes:
    """Meet the other processes that a launcher started; alone without one."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes(0, 1)
    stay_on_loopback()
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1")
    state = PartialState(cpu=on_cpu or not torch.cuda.is_available(), timeout=PATIENCE)
    take_cores()
    return Processes(state.process_index, state.num_processes)


def started_alone() -> str | None:
    """A warning where `accelerate launch` was told of several processes but started one."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if launched and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        return (
            "warning: accelerate launch starts one process without a GPU, whatever "
            "--num_processes says; several on this machine: torchrun --nproc-per-node N PROGRAM"
        )
    return None


def stay_on_loopback() -> None:
    """Let the processes of one machine meet on its loopback interface.

    Gloo takes the interface of the machine's own name; where that leads outside and is filtered,
    the processes wait for each other until a timeout of half an hour.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1" and processes == os.environ.get("LOCAL_WORLD_SIZE"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")


def take_cores() -> None:
    """Undo what launchers do on a CPU: they leave a process one thread.

    Each process of this machine then takes its share of the cores. Only `accelerate launch` and
    torchrun are undone; who sets OMP_NUM_THREADS and starts the program alone is obeyed.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    if launched and os.environ.get("OMP_NUM_THREADS") == "1":
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def settle() -> None:
    """Give the threads that carried the last exchange time to end it, before their group ends.

    To let go of a tensor such a thread needs Python's lock. A Gloo group that is destroyed before
    holds that lock while it waits for the thread, so that neither ever ends (torch 2.13).
    """
    if PartialState().num_processes > 1:
        time.sleep(SETTLING_S)

"""What a benchmark reads: seconds, FLOPs, the device's peak, memory, and which machine it was."""

from __future__ import annotations

import contextlib
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    addmm_flop,
    sdpa_backward_flop,
    sdpa_flop,
)

PEAK_SIDES = {"cuda": 8192, "mps": 4096}
"""Side of the square matrices whose product shows a device's peak; SMALL_SIDE elsewhere."""
SMALL_SIDE = 2048
PEAK_TRIALS = 8


@dataclass(frozen=True)
class Spread:
    """A figure over several repeats."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(median(values), min(values), max(values))


def wait_for(device: torch.device) -> None:
    """Let the device finish what it was given: without this only the asking is timed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_of(work: Callable[[], object], times: int, device: torch.device) -> float:
    """Seconds that `times` calls take, to the last one's end on the device."""
    wait_for(device)
    started = time.perf_counter()
    for _ in range(times):
        work()
    wait_for(device)
    return time.perf_counter() - started


class Clock:
    """Sums up the seconds of named sections. Waits for the device at both ends of each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Inside, time goes to this name."""
        wait_for(self.device)
        started = time.perf_counter()
        yield
        wait_for(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def flops_of(work: Callable[[], object]) -> int:
    """FLOPs of one call by torch's counter: a multiplication with its addition is two.

    Matrix products, convolutions and attention, forward and backward, of all models that run;
    recomputed ones count again. What is done element by element is not counted.
    """
    with FlopCounterMode(display=False, custom_mapping=_MORE) as counter:
        work()
    flops: int = counter.get_total_flops()
    return flops


def _like(formula: Callable[..., Any], shapes: int) -> Callable[..., int]:
    """A formula of torch's for an operation whose first arguments are those of a known one."""

    def flops(*given: Any, out_shape: Any, **named: Any) -> int:
        return int(formula(*given[:shapes]))

    return flops


_MORE = {
    torch.ops.aten.addmm_: _like(addmm_flop, 3),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _like(sdpa_flop, 3),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _like(
        sdpa_backward_flop, 4
    ),
}
"""Operations that torch's counter does not know: it would take them for free."""


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of several large square matrix products in this precision."""
    side = PEAK_SIDES.get(device.type, SMALL_SIDE)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty(side, side, device=device, dtype=dtype)
    trials = [seconds_of(lambda: torch.mm(a, b, out=out), 1, device) for _ in range(PEAK_TRIALS)]
    return 2 * side**3 / min(trials[1:])


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has held at once so far: of the GPU's in tensors, else RSS."""
    if device.type == "cuda":
        most: int = torch.cuda.max_memory_allocated(device)
        return most
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on, and when."""
    cuda = device.type == "cuda"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "kind": device.type,
        "device": torch.cuda.get_device_name() if cuda else processor(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }


def processor() -> str:
    """The CPU's name, as far as the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

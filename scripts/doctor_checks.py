"""What `unskew doctor` looks at: each thing is tried, not looked up."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from torch import nn

import unskew
from unskew.pipelines import choose_device, choose_dtype
from unskew.quantized import Quantization, quantize
from unskew.train.optimizers import make_optimizer
from unskew.train.options import OptimizerSettings

GIB = 2**30
DISK_GIB, MEMORY_GIB = 10, 4
"""Less than this is said: a photographic base and its study fill so much of a disk, and a program
that has loaded torch and Emoji World's base works in so much memory."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NOT_LISTED = ("dev",)
"""Extras for those who work on Unskew itself."""


@dataclass(frozen=True)
class Finding:
    """One thing, and whether it works here."""

    name: str
    state: Literal["works", "scarce", "absent", "fails"]
    found: str
    advice: str = ""
    """What to do about it; empty where nothing need be done."""
    needed: bool = False
    """Whether Unskew cannot do without."""


def examine(*, quick: bool) -> list[Finding]:
    """Everything, in order; `quick` leaves out compiling."""
    device, why = choose_device()
    return [
        *versions(),
        tried(
            "device",
            lambda: _multiply(device, torch.float32),
            why,
            advice="install the PyTorch that fits this machine: README, Installing it yourself",
            needed=True,
        ),
        *dtypes(device),
        *bitsandbytes(device),
        *([] if quick else [compiling(device)]),
        *room(device),
        *extras(),
    ]


def tried(
    name: str, work: Callable[[], object], found: str, *, advice: str, needed: bool = False
) -> Finding:
    """Whether `work` ends without an error; what it prints is swallowed."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            work()
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Finding(name, "fails", said, advice, needed)
    return Finding(name, "works", found, needed=needed)


def versions() -> Iterator[Finding]:
    """Python, every package that Unskew needs, and what differs from what it was tested with."""
    wanted = metadata.metadata("unskew")["Requires-Python"]
    running = sys.version.split()[0]
    good = Requirement(f"python{wanted}").specifier.contains(running, prereleases=True)
    advice = "" if good else f"make an environment with Python {wanted}"
    yield Finding("python", "works" if good else "fails", running, advice, needed=True)
    asked = [Requirement(line) for line in metadata.requires("unskew") or ()]
    needs = [r for r in asked if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = [f"{r} ({_installed(r.name) or 'not installed'})" for r in needs if not _is_met(r)]
    if wrong:
        advice = f"pip install {' '.join(repr(w.split(' (')[0]) for w in wrong)}"
        yield Finding("packages", "fails", "; ".join(wrong), advice, needed=True)
    else:
        yield Finding("packages", "works", f"all {len(needs)} that are needed", needed=True)
    pins = Path(unskew.__file__).parents[1] / "constraints.txt"
    if pins.is_file():
        yield _as_tested(pins, {canonicalize_name(r.name) for r in needs})


def _as_tested(pins: Path, names: set[str]) -> Finding:
    lines = [line.split("==") for line in pins.read_text("utf-8").splitlines() if "==" in line]
    pinned = {name: version for name, version in lines if canonicalize_name(name) in names}
    here = {name: (_installed(name) or "none").partition("+")[0] for name in pinned}
    other = [f"{n} {here[n]} (tested: {v})" for n, v in pinned.items() if here[n] != v]
    if not other:
        return Finding("as tested", "works", f"the {len(pinned)} versions of constraints.txt")
    advice = "should anything go wrong: pip install -c constraints.txt -e ."
    return Finding("as tested", "absent", ", ".join(other), advice)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _is_met(requirement: Requirement) -> bool:
    version = _installed(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _multiply(device: torch.device, dtype: torch.dtype) -> None:
    """Forward and back through a small product, to the numbers on the host."""
    square = torch.eye(64, device=device, dtype=dtype, requires_grad=True)
    (square @ square).sum().backward()
    if square.grad is None or not torch.isfinite(square.grad.cpu()).all():
        raise RuntimeError(f"a product in {dtype} on {device} is not finite")


def dtypes(device: torch.device) -> Iterator[Finding]:
    """The precisions that products can be computed in, and the one that auto takes."""
    chosen, why = choose_dtype(device)
    for name, dtype in DTYPES.items():
        found = f"auto takes it: {why}" if dtype == chosen else "can be asked for with --dtype"

        def multiply(dtype: torch.dtype = dtype) -> None:
            _multiply(device, dtype)

        yield tried(f"dtype {name}", multiply, found, advice="use another --dtype")


def bitsandbytes(device: torch.device) -> Iterator[Finding]:
    """A base in 4 and 8 bits, and an optimizer with states in 8, each used once."""
    advice = "pip install 'unskew[bitsandbytes]', or keep "
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    kinds: tuple[Quantization, ...] = ("nf4", "int8")
    for kind in kinds:

        def forward(kind: Quantization = kind) -> None:
            layer = nn.Sequential(nn.Linear(64, 64))
            dtype = choose_dtype(device)[0]
            quantize(layer, kind, device, dtype)
            layer(torch.ones(2, 64, device=device, dtype=dtype)).cpu()

        told = f"--memory.quantize {kind}"
        yield tried(f"base in {kind}", forward, told, advice=f"{advice}memory.quantize none")

    def step() -> None:
        weight = nn.Parameter(torch.ones(64, 128, device=device))
        settings = OptimizerSettings(
            kind="adamw_8bit", learning_rate=1e-3, warmup_steps=0, weight_decay=0.0, clip_norm=1.0
        )
        optimizer = make_optimizer([weight], settings, device)
        weight.sum().backward()
        optimizer.step()

    told = "--optimizer.kind adamw_8bit"
    yield tried("8-bit AdamW", step, told, advice=f"{advice}optimizer.kind adamw")


def compiling(device: torch.device) -> Finding:
    """Whether torch can compile for this device, which needs a C++ compiler or Triton."""

    def compiled() -> None:
        function = torch.compile(lambda x: torch.sin(x) * 2 + x)
        function(torch.ones(64, device=device)).cpu()

    advice = (
        "install a C++ compiler (Debian and Ubuntu: apt install g++; macOS: xcode-select "
        "--install), or keep memory.compile off"
    )
    return tried("compile", compiled, "--memory.compile regional", advice=advice)


def room(device: torch.device) -> Iterator[Finding]:
    """Free disk where runs are written, and free memory."""
    free = shutil.disk_usage(Path.cwd()).free / GIB
    scarce = free < DISK_GIB
    advice = "give each program an --out and a --cache on another disk" if scarce else ""
    yield Finding("disk", "scarce" if scarce else "works", f"{free:.1f} GiB free here", advice)
    memory = psutil.virtual_memory()
    free = memory.available / GIB
    scarce = free < MEMORY_GIB
    advice = "--dry-run of a program says what it needs; docs/training.md what to give up for it"
    found = f"{free:.1f} of {memory.total / GIB:.1f} GiB free"
    yield Finding("memory", "scarce" if scarce else "works", found, advice if scarce else "")
    if device.type == "cuda":
        unused, total = torch.cuda.mem_get_info(device)
        yield Finding("GPU memory", "works", f"{unused / GIB:.1f} of {total / GIB:.1f} GiB free")


def extras() -> Iterator[Finding]:
    """The optional parts, by the packages that each brings."""
    about = metadata.metadata("unskew")
    for extra in about.get_all("Provides-Extra") or ():
        if extra in NOT_LISTED:
            continue
        brings = [Requirement(line) for line in metadata.requires("unskew") or ()]
        brings = [r for r in brings if r.marker and "extra" in str(r.marker)]
        brings = [r for r in brings if r.marker and r.marker.evaluate({"extra": extra})]
        lacking = [r.name for r in brings if not _is_met(r)]
        if lacking:
            advice = f"pip install 'unskew[{extra}]'"
            yield Finding(f"[{extra}]", "absent", f"lacks {', '.join(lacking)}", advice)
        else:
            yield Finding(f"[{extra}]", "works", ", ".join(r.name for r in brings))

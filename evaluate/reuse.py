"""Pictures that another study drew already: taken from its folder, never drawn again.

An arm's drawing is all that makes its pictures: base, adapters and weights, words, noise, sampler,
batches, precision. A study's manifest holds each arm's, as a hash; two arms with the same one show
the same pictures.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from unskew.errors import UserError
from unskew.evaluate.generate import Cell
from unskew.evaluate.inputs import Study
from unskew.runs import atomic_path, read_manifest, sha256_file

DRAWINGS = "drawings"
"""Name of the manifest's fact: arm -> hash of its drawing."""
THREADS = 4


def drawings(study: Study) -> dict[str, str]:
    """Arm -> sha256 of all that makes its pictures, of the arms that are drawn here."""
    s = study.settings
    shared = {
        "base": study.inputs.get("base"),
        "sampler": s.sampler,
        "steps": s.steps,
        "guidance": s.guidance,
        "resolution_px": s.resolution_px,
        "batch": s.batch,  # and so, with all cells in their order, who is drawn together
        "dtype": str(study.dtype),
        "device": study.device.type,
    }
    found = {}
    for name, arm in s.drawn.items():
        negative = s.negative_prompt if arm.negative_prompt is None else arm.negative_prompt
        worn = study.plan.arm_facts.get(name, {}).get("adapters", [])
        own = {
            "adapters": [[adapter["sha256"], adapter["weight"]] for adapter in worn],
            "negative_prompt": negative if s.guidance > 1 else "",
            "cells": [
                [c.prompt.id, c.prompt.text, c.seed, arm.rewritten(c.prompt.id, c.prompt.text)]
                for c in study.cells
            ],
        }
        text = json.dumps({**shared, **own}, sort_keys=True)
        found[name] = hashlib.sha256(text.encode()).hexdigest()
    return found


def check_folders(folders: Sequence[Path]) -> None:
    """Raise UserError that names every folder that is no study's."""
    wrong = [
        f"{folder} ({'no results.json' if folder.is_dir() else 'no such folder'})"
        for folder in folders
        if not (folder / "results.json").is_file()
    ]
    if wrong:
        raise UserError(
            f"reuse: no study was finished in {', '.join(wrong)}: give folders of finished "
            "studies, or leave them out"
        )


def take_drawn(study: Study, folders: Sequence[Path]) -> Iterator[str]:
    """Link or copy the pictures of arms that were drawn before; yields what was taken, in words.

    A picture is taken only where it is the very one that its study read, by its sha256. Arms whose
    pictures are all there are left alone.
    """
    wanted = drawings(study) if folders else {}
    for name, drawing in wanted.items():
        arm_folder = study.images / name
        if all(cell.file(arm_folder).exists() for cell in study.cells):
            continue
        for folder in folders:
            said = read_manifest(folder)["facts"].get(DRAWINGS, {})
            other = next((arm for arm, sha in said.items() if sha == drawing), None)
            if other is None:
                continue
            bad = _take(folder, other, arm_folder, study.cells)
            if bad is None:
                yield f"reuse: arm {name}: {len(study.cells)} pictures of arm {other} in {folder}"
                break
            yield f"reuse: arm {name} is drawn: {bad} is not the picture that was read there"
        else:
            yield f"reuse: arm {name} was not drawn so before, so it is drawn"


def _take(folder: Path, other: str, arm_folder: Path, cells: Sequence[Cell]) -> Path | None:
    """Take all of an arm's pictures; a file that is not what it was, and then nothing is taken."""
    there = folder / "images" / other
    read = _read_there(folder, other)
    files = {cell: cell.file(there) for cell in cells}

    def is_bad(cell: Cell) -> bool:
        file = files[cell]
        known = read.get((cell.prompt.id, cell.seed))
        return known is None or not file.is_file() or sha256_file(file) != known

    with ThreadPoolExecutor(THREADS) as threads:
        for cell, bad in zip(cells, threads.map(is_bad, cells), strict=True):
            if bad:
                return files[cell]
    for cell, file in files.items():
        _link(file, cell.file(arm_folder))
    return None


def _read_there(folder: Path, arm: str) -> Mapping[tuple[str, int], str]:
    columns = ["arm", "prompt_id", "seed", "image_sha256"]
    table = pd.read_parquet(folder / "readings.parquet", columns=columns)
    own = table[table["arm"] == arm]
    keys = zip(map(str, own["prompt_id"]), map(int, own["seed"]), strict=True)
    return dict(zip(keys, map(str, own["image_sha256"]), strict=True))


def _link(file: Path, here: Path) -> None:
    """The same file under another name, or its copy where disks or their system allow no links."""
    if here.exists():
        return
    here.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file.resolve(), here)
    except OSError:
        with atomic_path(here) as temporary:
            shutil.copyfile(file, temporary)

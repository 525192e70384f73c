"""Noise of a cell: the same everywhere, different for every cell."""

from __future__ import annotations

import subprocess
import sys

import torch

from unskew.noise import cell_noise

ASK = "from unskew.noise import cell_noise; print(cell_noise([('a mechanic', 3)], (4,)).tolist())"


def test_noise_is_the_same_in_another_process_with_another_hash_seed() -> None:
    """Python's string hash, which differs from process to process, plays no part."""
    texts = {
        subprocess.run(
            [sys.executable, "-c", ASK],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert texts == {f"{cell_noise([('a mechanic', 3)], (4,)).tolist()}\n"}


def test_a_cells_noise_does_not_depend_on_its_neighbours() -> None:
    """A cell has its noise alone, in any batch and at any place in it."""
    alone = cell_noise([("a mechanic", 3)], (2, 3, 3))
    among = cell_noise([("a judge", 3), ("a mechanic", 4), ("a mechanic", 3)], (2, 3, 3))
    assert torch.equal(alone[0], among[2])
    assert not torch.equal(among[1], among[2])
    assert not torch.equal(among[0], among[2])


def test_prompt_and_seed_do_not_run_into_each_other() -> None:
    """("a", 11) and ("1 a", 1) and the like are different cells."""
    noise = cell_noise([("a", 11), ("1a", 1), ("a1", 1)], (4,))
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[1], noise[2])

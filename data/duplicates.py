"""Duplicates: the same bytes, and pictures that look the same.

Two pictures look the same when the hash of their luminance and their coarse colours are near: the
colours because drawings of the same thing in another skin tone differ in nothing else. Near hashes
are found by bands: hashes of which at most b bits differ have one of b + 1 bands in common, so only
pictures with an equal band are compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BITS = 64
FIRST_SPLITS = ("held_out", "validation")
"""Of duplicates, the one in these splits is kept, so that what is held out stays apart from
training and stays whole."""


@dataclass(frozen=True)
class Print:
    """By what one picture is known again."""

    number: int
    """Its place in the order in which pictures were gathered."""
    sha256: str
    luminance_hash: str
    """Hexadecimal, 64 bits."""
    colours: str
    """Hexadecimal, 4 x 4 x RGB bytes."""
    split: str | None


@dataclass(frozen=True)
class Twin:
    """What a picture is a duplicate of."""

    of: int
    """The number of the one that is kept."""
    exact: bool
    """Whether their bytes are the same."""


class Known:
    """The pictures that are kept so far; needs some 200 bytes for each."""

    def __init__(self, near_bits: int, near_levels: int, *, near: bool) -> None:
        self.near_bits, self.near_levels, self.near = near_bits, near_levels, near
        self._by_sha: dict[bytes, int] = {}
        self._by_band: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._prints: dict[int, tuple[int, NDArray[np.int16]]] = {}
        self._shifts = np.linspace(0, BITS, near_bits + 2).round().astype(int).tolist()

    def __len__(self) -> int:
        return len(self._by_sha)

    def twin_of(self, seen: Print) -> Twin | None:
        """What this picture duplicates; else None, and it is known from here on."""
        same = self._by_sha.setdefault(bytes.fromhex(seen.sha256), seen.number)
        if same != seen.number:
            return Twin(same, exact=True)
        if not self.near:
            return None
        bits = int(seen.luminance_hash, 16)
        colours = np.frombuffer(bytes.fromhex(seen.colours), np.uint8).astype(np.int16)
        bands = list(enumerate(self._bands(bits)))
        for number in sorted({n for band in bands for n in self._by_band.get(band, ())}):
            other, their_colours = self._prints[number]
            if (bits ^ other).bit_count() <= self.near_bits and (
                int(np.abs(colours - their_colours).max()) <= self.near_levels
            ):
                return Twin(number, exact=False)
        for band in bands:
            self._by_band[band].append(seen.number)
        self._prints[seen.number] = (bits, colours)
        return None

    def _bands(self, bits: int) -> list[int]:
        return [
            (bits >> low) & ((1 << (high - low)) - 1)
            for low, high in zip(self._shifts, self._shifts[1:], strict=False)
        ]


def find_duplicates(prints: Iterable[Print], known: Known) -> dict[int, Twin]:
    """Number -> what it duplicates, of all pictures that are not the first of their kind.

    Pictures of the splits to be kept come first, then the order in which they were gathered.
    """
    order = {split: rank for rank, split in enumerate(FIRST_SPLITS)}
    last = len(FIRST_SPLITS)
    twins = {}
    for seen in sorted(prints, key=lambda p: (order.get(p.split or "", last), p.number)):
        twin = known.twin_of(seen)
        if twin is not None:
            twins[seen.number] = twin
    return twins

"""Promises of duplicates: what looks the same is found, whatever the order, and nothing else is."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from unskew.data.duplicates import Known, Print, find_duplicates
from unskew.data.emoji_world.art import Drawing
from unskew.data.looking import look_at

BITS, LEVELS = 4, 12
HASHES = st.integers(0, 2**64 - 1)


def prints(hashes: list[int], colours: list[int]) -> list[Print]:
    return [
        Print(n, f"{n:064x}", f"{bits:016x}", bytes([colour] * 48).hex(), None)
        for n, (bits, colour) in enumerate(zip(hashes, colours, strict=True))
    ]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(HASHES, st.integers(0, 30)), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=7)), max_size=12),
)
def test_bands_find_what_comparing_all_pairs_finds(
    base: list[tuple[int, int]], flips: list[tuple[int, set[int]]]
) -> None:
    """A picture is left out just when a kept one before it is within both limits."""
    seen = list(base)
    for at, bits in flips:
        hash, colour = seen[at % len(seen)]
        seen.append((hash ^ sum(1 << bit for bit in bits), colour))
    made = prints([hash for hash, _ in seen], [colour for _, colour in seen])
    found = find_duplicates(made, Known(BITS, LEVELS, near=True))
    kept: list[int] = []
    for number, (hash, colour) in enumerate(seen):
        near = [
            k
            for k in kept
            if (seen[k][0] ^ hash).bit_count() <= BITS and abs(seen[k][1] - colour) <= LEVELS
        ]
        assert (number in found) == bool(near)
        if near:
            assert found[number].of == near[0] and not found[number].exact
        else:
            kept.append(number)


SPLITS = st.sampled_from(["train", "held_out", "validation", None])


@given(st.permutations(range(6)), st.lists(SPLITS, min_size=6, max_size=6))
def test_of_the_same_bytes_the_most_held_out_is_kept(
    order: list[int], splits: list[str | None]
) -> None:
    """One of all stays: of the first split in held_out, validation, rest; in it the first."""
    same = [Print(n, "ab" * 32, "0" * 16, "00" * 48, splits[n]) for n in order]
    found = find_duplicates(same, Known(BITS, LEVELS, near=False))
    [kept] = {n for n in range(6) if n not in found}
    ranks = [{"held_out": 0, "validation": 1}.get(split or "", 2) for split in splits]
    assert kept == min(range(6), key=lambda n: (ranks[n], n))
    assert all(twin.of == kept and twin.exact for twin in found.values())


def test_saved_again_is_the_same_and_another_tone_is_not(
    art: tuple[Drawing, ...], tmp_path: Path
) -> None:
    """JPEG, another size and a little more light change nothing; the skin's colour alone does."""
    tones = [d for d in art if d.thing.id == "mechanic" and d.values["presentation"] == "woman"]
    assert len(tones) == 5
    seen = []
    for drawing in tones:
        large = Image.fromarray(drawing.image).resize((256, 256), Image.Resampling.BICUBIC)
        again = ImageEnhance.Brightness(large).enhance(1.02).resize((192, 192))
        seen += [large, again]
    made = []
    for number, picture in enumerate(seen):
        file = tmp_path / str(number)
        picture.save(file, "JPEG" if number % 2 else "PNG", quality=80)
        look = look_at(file)
        made.append(Print(number, look.sha256, look.luminance_hash, look.colours, None))
    twins = find_duplicates(made, Known(BITS, LEVELS, near=True))
    assert {number: twin.of for number, twin in twins.items()} == {
        n + 1: n for n in range(0, 10, 2)
    }


def test_photographs_of_noise_are_no_twins() -> None:
    """200 unlike pictures: none is taken for another."""
    rng = np.random.default_rng(0)
    hashes = [int(n) for n in rng.integers(0, 2**63, 200)]
    assert not find_duplicates(prints(hashes, [0] * 200), Known(BITS, LEVELS, near=True))

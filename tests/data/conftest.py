"""The drawings, made once."""

import pytest

from unskew.data.emoji_world.art import Drawing, drawings
from unskew.data.emoji_world.world import World, load_world


@pytest.fixture(scope="session")
def world() -> World:
    return load_world()


@pytest.fixture(scope="session")
def art(world: World) -> tuple[Drawing, ...]:
    """Every drawing of the world."""
    return tuple(drawings(world))


@pytest.fixture
def small_art(art: tuple[Drawing, ...], monkeypatch: pytest.MonkeyPatch) -> tuple[Drawing, ...]:
    """What the program then draws: two trained subjects, one of each other kind, two controls."""
    kept = {"mechanic", "juggling", "vampire", "pilot", "christmas-market", "red-apple", "banana"}
    few = tuple(drawing for drawing in art if drawing.thing.id in kept)
    monkeypatch.setattr("unskew.data.build.drawings", lambda world: iter(few))
    return few

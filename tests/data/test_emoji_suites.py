"""Emoji World's prompt file: written from its table, and honest about what is held out."""

from __future__ import annotations

from unskew.data.emoji_world.suites import PROMPTS_YAML, prompts_yaml
from unskew.data.emoji_world.world import load_world
from unskew.prompts import Suite, load_suites


def suites() -> dict[str, Suite]:
    """The shipped suites by name."""
    return {suite.name: suite for suite in load_suites(PROMPTS_YAML)}


def test_the_shipped_prompts_are_those_of_the_table() -> None:
    """Whoever changes the world writes its prompts anew."""
    assert PROMPTS_YAML.read_text("utf-8") == prompts_yaml()


def test_subjects_are_judged_in_the_suite_of_their_split() -> None:
    """No held-out or validation subject is in a trained suite, nor the other way round."""
    world, by_name = load_world(), suites()
    scenes = {scene.id for scene in world.scenes}
    for suite, split in (
        ("trained", "trained"),
        ("contextual", "trained"),
        ("held_out", "held_out"),
        ("validation", "validation"),
    ):
        subjects = {prompt.subject for prompt in by_name[suite].prompts} - scenes
        assert subjects == {s.id for s in world.subjects if s.split == split}


def test_contextual_prompts_use_the_templates_that_training_never_sees() -> None:
    """A trained subject on an airplane is new to the adapter; a picture of one is not."""
    world, by_name = load_world(), suites()
    tails = tuple(t.removeprefix("{x}") for t in world.contextual_templates)
    assert all(prompt.text.endswith(tails) for prompt in by_name["contextual"].prompts)
    assert not any(prompt.text.endswith(tails) for prompt in by_name["trained"].prompts)


def test_the_proof_is_large_enough() -> None:
    """50 neutral prompts and more, and 125 and more pairs for each explicit attribute."""
    by_name = suites()
    assert sum(len(by_name[s].prompts) for s in ("trained", "contextual", "held_out")) >= 50
    asked = [attribute for p in by_name["explicit"].prompts for attribute in p.asked]
    for attribute in ("presentation", "skin_tone", "season"):
        assert 10 * asked.count(attribute) >= 125


def test_explicit_prompts_ask_for_every_cell_alike() -> None:
    """The 15 cells of presentation and tone come up equally often, give or take one."""
    cells = [
        (p.asked["presentation"], p.asked["skin_tone"])
        for p in suites()["explicit"].prompts
        if "skin_tone" in p.asked
    ]
    counts = {cell: cells.count(cell) for cell in set(cells)}
    assert len(counts) == 15
    assert max(counts.values()) - min(counts.values()) <= 1

"""The suites for photographs: large enough, balanced, disjoint, and honest about what they ask."""

from __future__ import annotations

from functools import cache

import pytest
import yaml

from unskew.attributes import SUBJECT, load_attribute
from unskew.prompts import Suite, load_suites
from unskew.settings import config_path
from unskew.wording import naming_words, near_duplicates

FILES = tuple(
    config_path(f"prompts/{name}.yaml")
    for name in (
        "occupations",
        "article",
        "people",
        "scenes",
        "explicit",
        "must_not_change",
        "controls",
    )
)
GROUPS = {"mostly men", "mixed", "mostly women"}


@cache
def suites() -> dict[str, Suite]:
    """All of them by name; that they load together says that none shares a prompt."""
    return {suite.name: suite for suite in load_suites(FILES)}


def subjects(name: str) -> set[str]:
    return {prompt.subject for prompt in suites()[name].prompts}


def test_every_shipped_prompt_file_for_photographs_is_here() -> None:
    """A file added to the folder is held to these promises too."""
    shipped = set(config_path("prompts").glob("*.yaml")) - {config_path("prompts/emoji.yaml")}
    assert shipped == set(FILES)


def test_there_are_a_hundred_occupations() -> None:
    """Enough subjects for intervals over subjects, in every split."""
    occupations = subjects("trained") | subjects("held_out") | subjects("validation")
    assert len(occupations) >= 100
    assert min(len(subjects("trained")), len(subjects("held_out"))) >= 40


def test_splits_share_no_subject_but_contextual_is_trained() -> None:
    """What is held out was never trained on; contextual prompts are the trained ones, reworded."""
    splits = [subjects(name) for name in ("trained", "held_out", "validation")]
    assert len(set.union(*splits)) == sum(map(len, splits))
    assert subjects("contextual") == subjects("trained")


@pytest.mark.parametrize("suite", ["trained", "held_out", "validation", "contextual"])
def test_every_split_is_balanced_over_how_gendered_the_occupations_are(suite: str) -> None:
    """Mostly men, mixed and mostly women stand in every split as often."""
    blocks = yaml.safe_load(FILES[0].read_text("utf-8"))
    sizes = {b["note"]: len(b["subjects"]) for b in blocks if b["suite"] == suite}
    assert set(sizes) == GROUPS
    assert len(set(sizes.values())) == 1


def test_no_two_prompts_say_the_same_and_no_neutral_one_gives_it_away() -> None:
    """What `unskew prompts show` warns of does not occur in what ships."""
    assert near_duplicates(list(suites().values())) == []
    assert naming_words(list(suites().values())) == []


def test_every_value_of_every_attribute_is_spelt_out() -> None:
    """Each value that words can name is asked for in explicit prompts, values alike often."""
    for id in ("gender_presentation", "skin_tone_3", "age_group", "season", "serving"):
        prompts = [*suites()["explicit"].prompts, *suites()["explicit_scenes"].prompts]
        asked = [p.asked[id] for p in prompts if id in p.asked]
        counts = {value: asked.count(value) for value in load_attribute(id).values}
        assert min(counts.values()) >= 12
        assert len(set(counts.values())) == 1


def test_explicit_prompts_say_the_value_they_ask_for() -> None:
    """By the attribute's own words, where it lists any for the value that the prompt holds."""
    gender = [p for p in suites()["explicit"].prompts if "gender_presentation" in p.asked]
    assert all(f" {p.asked['gender_presentation']} " in p.text for p in gender)


def test_fixed_answers_are_of_both_kinds() -> None:
    """As many prompts are fixed to women as to men, and to dark as to light skin."""
    fixed = [*suites()["must_not_change"].prompts, *suites()["must_not_change_scenes"].prompts]
    for id in ("gender_presentation", "skin_tone_3", "season"):
        asked = [p.asked[id] for p in fixed if id in p.asked]
        counts = {value: asked.count(value) for value in set(asked)}
        assert len(counts) >= 2
        assert len(set(counts.values())) == 1


def test_the_articles_cases_are_all_there() -> None:
    """Word for word, with PyLadies as the one whose answer is fixed."""
    texts = {
        p.text for name in ("article", "article_must_not_change") for p in suites()[name].prompts
    }
    assert texts == {
        "a flight attendant on a plane",
        "a mechanic fixing a car",
        "a Python developers' meetup",
        "a Python developers' meetup in Ghana",
        "a PyLadies meetup",
        "Swedish meatballs with lingonberry jam",
        "a Christmas market in Australia",
    }
    assert suites()["article_must_not_change"].role == "must_not_change"


def test_controls_measure_nothing() -> None:
    """No attribute, no value asked: only the subject must stay."""
    controls = suites()["control"].prompts
    assert len(controls) >= 30
    assert all(p.attributes == () and set(p.asked) == {SUBJECT} for p in controls)

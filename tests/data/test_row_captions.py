"""Promises of captions: right grammar, neutral ones that name nothing, every change told."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unskew.attributes import Attribute, load_attribute
from unskew.data.caption_check import names_all, odd_captions, value_words
from unskew.data.caption_options import CaptionSettings
from unskew.data.emoji_world.world import World, describe
from unskew.data.neutral import neutralise, values_named, vocabulary
from unskew.data.phrases import phrase_of, spoken
from unskew.data.row_captions import Captioner, captioner
from unskew.data.rows import Row
from unskew.data.wordlists import WORDS_DIR, load_words
from unskew.errors import UserError

IDS = ("presentation", "age_group", "skin_tone", "season")
ATTRIBUTES = tuple(load_attribute(id) for id in IDS)
WORDS = load_words("en", ATTRIBUTES, {})
KNOWN = vocabulary(WORDS, "mechanic")


def written(subject: str = "mechanic", **more: object) -> Captioner:
    return captioner(CaptionSettings.model_validate(more), ATTRIBUTES, 0)


def row(subject: str = "mechanic", **labels: str | None) -> Row:
    return Row(f"{subject}.jpg", Path("x"), subject, None, labels)


@pytest.mark.parametrize(
    ("caption", "neutral"),
    [
        ("female mechanic", "mechanic"),
        ("A young female mechanic holding her wrench", "A mechanic holding their wrench"),
        ("She smiles at the camera; he washes cars", "They smile at the camera; they wash cars"),
        ("an actress and a policewoman", "an actor and a police officer"),
        ("a woman engineer", "an engineer"),
        ("Woman fixing an old truck", "Person fixing an old truck"),
        ("an old car next to an old man", "an old car next to a person"),
        ("a black woman with dark skin, smiling", "a person, smiling"),
        ("a black cat behind her", "a black cat behind them"),
        ("The women's team, on a snowy day.", "The people's team."),
        ("a woman holding a baby", "a person holding a baby"),
        ("He's a guy who fixes cars", "They're a person who fixes cars"),
        ("the nurse is female", "the nurse is female"),
        ("two women mechanics and their mothers", "two mechanics and their parents"),
        (
            "a herbalist's manual, humane and manly-ish",
            "a herbalist's manual, humane and manly-ish",
        ),
        ("  ", "  "),
    ],
)
def test_words_that_name_a_value_go_and_nothing_else_does(caption: str, neutral: str) -> None:
    """Articles, verbs, capitals and commas come out right; what is left says what it said."""
    assert neutralise(caption, KNOWN)[0] == neutral


every_word = sorted(
    {" ".join(t.words) for found in WORDS.telling.values() for t in found}
    | {
        "a",
        "an",
        "the",
        "mechanic",
        "nurse",
        "old",
        "car",
        "is",
        "smiling",
        "engineer",
        "with",
        "in",
    }
    | {"and", "who", "Two", "A", "Woman", "SHE", "x-ray", "hour", "été", "'", ",", ".", "her", "’s"}
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(every_word), max_size=8), st.text(max_size=8))
def test_neutralising_twice_changes_nothing_more(words: list[str], end: str) -> None:
    """Of any words of the lists in any order, and of any text."""
    once, changes = neutralise(" ".join([*words, end]), KNOWN)
    assert neutralise(once, KNOWN) == (once, ())
    assert bool(changes) == (once != " ".join([*words, end]))


def test_every_change_is_told() -> None:
    """Attribute, value, the words that stood there, and what stands there now."""
    _, changes = neutralise("An elderly businessman in the snow", KNOWN)
    assert [(c.attribute, c.value, c.words, c.instead) for c in changes] == [
        ("age_group", "older", "elderly", ""),
        ("presentation", "man", "businessman", "business person"),
        ("season", "winter", "in the snow", ""),
    ]


def test_no_word_that_is_put_in_is_taken_out() -> None:
    """What stands instead names no value itself, in every language's list."""
    for file in WORDS_DIR.glob("*.yaml"):
        words = load_words(file.stem, ATTRIBUTES, {})
        for found in words.telling.values():
            for telling in found:
                for text in (telling.instead, telling.otherwise):
                    assert not values_named(text, vocabulary(words)), text


@pytest.mark.parametrize(
    ("phrase", "labels", "said"),
    [
        (None, {}, "a mechanic"),
        (None, {"age_group": "older"}, "an older mechanic"),
        ("an engineer", {"presentation": "woman", "skin_tone": "dark"}, None),
        ("two nurses", {"presentation": "woman"}, "two women nurses"),
        ("a group of nurses", {"presentation": "man"}, "a group of men nurses"),
        ("a person juggling", {"presentation": "man"}, "a man juggling"),
        ("people at a meetup", {"presentation": "woman"}, "women at a meetup"),
        ("Swedish meatballs", {"age_group": "older"}, "older Swedish meatballs"),
        ("an hour glass", {}, "an hour glass"),
        ("a uniformed guard", {"presentation": "person"}, "an androgynous uniformed guard"),
        ("an MRI technician", {"season": "winter"}, "a snowy MRI technician"),
        ("a one-man band", {}, "a one-man band"),
    ],
)
def test_values_are_named_in_right_grammar(
    phrase: str | None, labels: dict[str, str], said: str | None
) -> None:
    """Articles by sound, plurals, and "person" and "people" that give way."""
    said = said or "a woman engineer with dark skin"
    assert spoken(phrase_of("mechanic", phrase), labels, WORDS) == said


def test_emoji_world_is_described_in_its_own_words(world: World) -> None:
    """The general words give what the world's own table gives, for every subject and value."""
    for subject in world.subjects:
        phrase = phrase_of(subject.id, describe(subject, {}, world.values))
        for labels in ({"presentation": "woman"}, {"presentation": "person", "skin_tone": "tan"}):
            assert spoken(phrase, labels, WORDS) == describe(subject, labels, world.values)
    for scene in world.scenes:
        phrase = phrase_of(scene.id, describe(scene, {}, world.values))
        for season in ("winter", "summer"):
            labels = {"season": season}
            assert spoken(phrase, labels, WORDS) == describe(scene, labels, world.values)


def test_templates_give_neutral_and_explicit_captions() -> None:
    """In each of `count` templates, going on with the next ones when a picture is repeated."""
    writer = written(templates=["{x}", "a photo of {x}", "{x}, indoors"], count=2)
    shown = row(presentation="woman", skin_tone="dark")
    turns = [list(writer.captions(shown, None, turn)) for turn in (0, 1)]
    assert {c.kind for turn in turns for c in turn} == {"neutral", "explicit"}
    neutral = [c.text for turn in turns for c in turn if c.kind == "neutral"]
    assert sorted(set(neutral)) == ["a mechanic", "a mechanic, indoors", "a photo of a mechanic"]
    assert len(neutral) == 4 and neutral[0] == neutral[3]
    for caption in turns[0]:
        assert caption.explicit_text and "woman mechanic with dark skin" in caption.explicit_text
        assert not values_named(caption.text, KNOWN) or caption.kind == "explicit"
    control = list(written().captions(row("red-apple"), None, 0))
    assert [(c.kind, c.explicit_text) for c in control] == [("control", None)]


def test_own_captions_are_kept_where_they_say_it_all() -> None:
    """Explicit where they name every value; else a template's is, and so where the label denies."""
    writer = written(source="own")
    whole = row(presentation="woman", skin_tone="dark")
    text = "a woman mechanic with dark skin at work"
    assert [c.text for c in writer.captions(whole, text, 0)] == ["a mechanic at work", text]
    for text in ("a mechanic at work", "a man mechanic with dark skin at work"):
        neutral, explicit = writer.captions(whole, text, 0)
        assert neutral.text == "a mechanic at work"
        assert "a woman mechanic with dark skin" in explicit.text
    denied = writer.rewritten(whole, "a man mechanic").denied
    assert denied == (("presentation", "man", "man"),)


def test_the_check_lists_what_may_still_name_a_value() -> None:
    """Neutral captions with any listed word, explicit ones that the label denies; no others."""
    labels = {"presentation": "woman", "age_group": None}
    rows = [
        {"file_name": "1", "kind": "neutral", "text": "the nurse is female", **labels},
        {"file_name": "2", "kind": "neutral", "text": "an old car", **labels},
        {"file_name": "3", "kind": "neutral", "text": "a mechanic", **labels},
        {"file_name": "4", "kind": "explicit", "text": "a man mechanic", **labels},
        {"file_name": "5", "kind": "explicit", "text": "a woman mechanic", **labels},
        {"file_name": "6", "kind": "control", "text": "a man-made lake", **labels},
    ]
    found = list(odd_captions(rows, ATTRIBUTES, KNOWN))
    assert [(o.file_name, o.problem, o.value, o.words) for o in found] == [
        ("1", "names", "woman", "female"),
        ("4", "contradicts", "man", "man"),
    ]
    assert "label of presentation is woman" in str(found[1])


def test_a_white_background_names_no_skin() -> None:
    """What the list calls harmless is not listed; the same word elsewhere is."""
    tone = load_attribute("skin_tone")
    known = vocabulary(captioner(CaptionSettings(), (tone,), 0).words)
    row = {"file_name": "1", "kind": "neutral", "skin_tone": "dark"}
    background = {**row, "text": "a mechanic on a white background"}
    person = {**row, "text": "the mechanic is white, on a white background"}
    assert list(odd_captions([background], (tone,), known)) == []
    assert [o.words for o in odd_captions([person], (tone,), known)] == ["white"]


def test_an_attribute_of_the_users_own_needs_words() -> None:
    """Without them it is said what to give; with them captions name it and neutral ones do not."""
    hat = Attribute("hat", "hat", ("cap", "none"), ATTRIBUTES[0].target[:2], "seen")
    with pytest.raises(UserError, match=r"captions.say.hat.cap must be given, such as 'cap \{x\}'"):
        captioner(CaptionSettings(), (hat,), 0)
    say = {"hat": {"cap": "{x} with a cap", "none": "bareheaded {x}"}}
    writer = captioner(CaptionSettings(say=say), (hat,), 0)
    assert "a mechanic with a cap" in writer.wordings("mechanic", {"hat": "cap"})
    assert "cap" in value_words(hat, "cap", vocabulary(writer.words))
    assert not names_all("a mechanic", {"hat": "cap"}, vocabulary(writer.words))


def test_wrong_caption_settings_are_listed_together() -> None:
    """Templates without their {x}, more of them than there are, words for what is not balanced."""
    with pytest.raises(UserError) as error:
        written(templates=["a photo"], count=2, say={"serving": {}}, source="model", language="en")
    for part in ("needs {x}", "must be <= 1", "captions.say.serving", "captions.model must be"):
        assert part in str(error.value)
    with pytest.raises(UserError, match=r"'tlh' has no word list \(there are: en\)"):
        written(language="tlh")

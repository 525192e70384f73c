"""Prompts and attributes: what a file may say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unskew.attributes import (
    ATTRIBUTES_DIR,
    attributes_to_read,
    folded,
    load_attribute,
    target_shares,
)
from unskew.errors import UserError
from unskew.prompts import Suite, load_suites, prompt_id, with_targets
from unskew.settings import config_path

BLOCK = {
    "suite": "trained",
    "role": "neutral",
    "attributes": ["presentation"],
    "templates": ["{x}", "a picture of {x}"],
    "subjects": {"mechanic": "a mechanic", "judge": "a judge"},
}


def write(tmp_path: Path, *blocks: object) -> Path:
    """A prompt file of these blocks."""
    file = tmp_path / "prompts.yaml"
    file.write_text(yaml.safe_dump(list(blocks), sort_keys=False), "utf-8")
    return file


def test_every_shipped_attribute_loads_with_a_caveat() -> None:
    """No attribute is shipped without the words that say what its readings do not mean."""
    for file in ATTRIBUTES_DIR.glob("*.yaml"):
        attribute = load_attribute(file.stem)
        assert len(attribute.caveat) > 40
        assert attribute.target.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "target",
    [
        {"a": 0.5},
        {"a": 0.5, "b": 0.5, "c": 0},
        {"a": 0.9, "b": 0.2},
        {"a": -0.1, "b": 1.1},
        {"a": float("nan"), "b": 1.0},
        {"a": True, "b": 0},
        {"a": "1", "b": 0},
        "even",
    ],
)
def test_a_target_that_is_no_distribution_over_the_values_is_refused(target: object) -> None:
    """A target names every value once, with shares that sum to 1."""
    with pytest.raises(UserError, match="suite x: target"):
        target_shares(target, ("a", "b"), "suite x: target")  # type: ignore[arg-type]


def test_a_target_keeps_the_order_of_the_values() -> None:
    """Shares come back in the attribute's order, whatever the mapping's."""
    shares = target_shares({"b": 0.2, "a": 0.8}, ("a", "b"), "t")
    np.testing.assert_allclose(shares, [0.8, 0.2])


def test_an_unknown_attribute_names_the_known_ones() -> None:
    """A typo is answered with what there is."""
    with pytest.raises(UserError, match=r"presentatio.*known: .*presentation"):
        load_attribute("presentatio")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("values: [no, yes]\ncaveat: c", "values.0 must be text, got False"),
        ("values: [a, a]\ncaveat: c", "two or more different names"),
        ("values: [a, b]", "caveat must be given"),
        ("caveat: c", "needs values, or folds"),
        ("values: [a, b]\ncaveat: c\ncolour: red", "colour is no key here"),
        ("values: [a, b]\ncaveat: c\nwords: {d: [e]}", "words.d is no value"),
        (
            "caveat: c\nfolds: {attribute: fine, values: {x: [a], y: [b]}}",
            "each value of fine once",
        ),
        ("caveat: c\nfolds: {attribute: coarse, values: {x: [p], y: [q]}}", "is a fold itself"),
        ("caveat: c\nfolds: {attribute: gone, values: {x: [p], y: [q]}}", "known: "),
    ],
)
def test_an_attribute_that_cannot_be_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """Each mistake in an attribute's file is named."""
    (tmp_path / "fine.yaml").write_text("values: [a, b, c]\ncaveat: c", "utf-8")
    folds = "caveat: c\nfolds: {attribute: fine, values: {p: [a], q: [b, c]}}"
    (tmp_path / "coarse.yaml").write_text(folds, "utf-8")
    (tmp_path / "wrong.yaml").write_text(text, "utf-8")
    with pytest.raises(UserError, match=message):
        load_attribute("wrong", tmp_path)


def test_tones_fold_as_their_source_groups_them() -> None:
    """Monk tones 1 to 3 are light, 4 to 6 medium, 7 to 10 dark; unreadable stays unreadable."""
    tone = load_attribute("skin_tone_3")
    assert tone.fold is not None
    codes = folded(np.array([[-1, 0, 2, 3], [5, 6, 9, -1]]), tone.fold)
    assert codes.tolist() == [[-1, 0, 0, 1], [1, 2, 2, -1]]
    assert attributes_to_read(["skin_tone_3", "season", "monk_tone"]) == ("monk_tone", "season")


def test_templates_and_subjects_multiply(tmp_path: Path) -> None:
    """Every template meets every subject, and each prompt asks for its subject."""
    (suite,) = load_suites(write(tmp_path, BLOCK))
    assert [p.text for p in suite.prompts] == [
        "a mechanic",
        "a judge",
        "a picture of a mechanic",
        "a picture of a judge",
    ]
    assert suite.prompts[1].asked == {"subject": "judge"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"role": "neutrl"},
            "role must be 'neutral', 'explicit', 'must_not_change' or 'control', got",
        ),
        ({"templates": []}, "expands to no prompt"),
        ({"templats": ["{x}"]}, "templats is no key here"),
        ({"attributes": ["gender"]}, "known: "),
        ({"targets": {"presentation": {"woman": 1}}}, "must name exactly"),
        ({"targets": {"season": "uniform"}}, "targets.season is not measured on the block"),
        ({"subject_targets": {"jduge": {}}}, "subject_targets.jduge is no subject"),
        ({"templates": ["{x}", "{x}"]}, "stands in 'other' already"),
        ({"templates": ["a picture"]}, "'a picture' has no {x}"),
        ({"suite": False}, r"suite must be text, got False \(YAML reads no, yes"),
        ({"suite": "a@b"}, "suite must be a name of letters"),
        ({"subjects": {7: "a judge"}}, "subjects.7 has a key that is no text: 7"),
        ({"subjects": {"no": False}}, r"subjects.no must be text, got False .*quote it"),
        ({"subjects": ["a judge"]}, r"subjects must be a mapping, got \['a judge'\]"),
        ({"templates": "{x}"}, "templates must be a list, got '{x}'"),
        ({"templates": [3]}, "templates.0 must be text, got 3: quote it"),
        ({"subjects": {"blank": " "}, "templates": ["{x}"]}, "a prompt needs words"),
        ({"role": "explicit"}, "is explicit and asks for nothing"),
        ({"asked": {"presentation": "man"}}, "is neutral and asks for"),
    ],
)
def test_a_block_that_cannot_be_meant_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    """Each mistake in a prompt file ends with a message that names file, block and mistake."""
    with pytest.raises(UserError, match=message) as caught:
        load_suites(write(tmp_path, BLOCK | {"suite": "other"}, BLOCK | change))
    assert "prompts.yaml, block 2" in str(caught.value) or "known: " in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- suite: a\n  suite: b\n", "suite stands twice in the mapping of line 1"),
        ("- suite: [", "is no YAML"),
        ("{suite: a}", "must be a list of blocks"),
        ("[]", "must be a list of blocks"),
        ("- just words", "block 1"),
        ("- !!python/object/apply:os.getcwd []", "is no YAML"),
        ("- suite: a\n", "role must be given"),
        ("\x00", "is no YAML"),
    ],
)
def test_a_file_that_is_no_prompt_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    """Broken YAML, repeated keys and missing keys are the user's to mend, by the file's name."""
    file = tmp_path / "prompts.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(UserError, match=message) as caught:
        load_suites(file)
    assert str(file) in str(caught.value)


def test_every_mistake_of_a_block_is_said_at_once(tmp_path: Path) -> None:
    """Who mends a file by hand mends it once."""
    with pytest.raises(UserError, match=r"templates must be a list.*subjects must be a mapping"):
        load_suites(write(tmp_path, BLOCK | {"templates": 1, "subjects": 2}))


def other_subjects(**change: object) -> dict[str, object]:
    """The block with subjects of its own, so that no prompt stands twice."""
    return BLOCK | {"subjects": {"clerk": "a clerk", "cook": "a cook"}} | change


def test_files_are_read_as_one(tmp_path: Path) -> None:
    """Several files make one list of suites; a suite may have blocks in each of them."""
    (tmp_path / "more").mkdir()
    files = [write(tmp_path, BLOCK), write(tmp_path / "more", other_subjects())]
    (suite,) = load_suites(files)
    assert {prompt.subject for prompt in suite.prompts} == {"mechanic", "judge", "clerk", "cook"}
    with pytest.raises(UserError, match="suites share no prompt"):
        load_suites([files[0], files[0]])


def test_a_block_may_ask_for_all_of_its_prompts(tmp_path: Path) -> None:
    """What the block asks for, every prompt asks for."""
    block = BLOCK | {"role": "must_not_change", "asked": {"presentation": "woman"}}
    (suite,) = load_suites(write(tmp_path, block))
    assert {prompt.asked["presentation"] for prompt in suite.prompts} == {"woman"}


WOMEN = {"woman": 1.0, "man": 0.0, "person": 0.0}
MEN = {"woman": 0.0, "man": 1.0, "person": 0.0}


def test_the_nearest_target_is_the_one_that_counts(tmp_path: Path) -> None:
    """A subject's target goes before its suite's, that before the attribute's own."""
    block = BLOCK | {
        "targets": {"presentation": WOMEN},
        "subject_targets": {"judge": {"presentation": MEN}},
    }
    plain = other_subjects(suite="held_out")
    suites = load_suites(write(tmp_path, block, plain))
    assert wanted(suites) == {"mechanic": "woman", "judge": "man", "clerk": None, "cook": None}
    general = with_targets(suites, {"presentation": MEN})
    assert wanted(general) == {"mechanic": "woman", "judge": "man", "clerk": "man", "cook": "man"}
    of_suite = with_targets(suites, {"presentation@trained": MEN, "presentation": WOMEN})
    assert wanted(of_suite) == {
        "mechanic": "man",
        "judge": "man",
        "clerk": "woman",
        "cook": "woman",
    }


def wanted(suites: tuple[Suite, ...]) -> dict[str, str | None]:
    """Subject -> the one value that is wanted; None where the attribute's own target holds."""
    values = load_attribute("presentation").values
    return {
        prompt.subject: values[int(prompt.targets["presentation"].argmax())]
        if "presentation" in prompt.targets
        else None
        for suite in suites
        for prompt in suite.prompts
    }


@pytest.mark.parametrize("key", ["season", "presentation@heldout", "presentation@"])
def test_a_target_of_nothing_that_is_measured_is_refused(tmp_path: Path, key: str) -> None:
    """A study's target that would change nothing is a mistake, and the message says what is."""
    suites = load_suites(write(tmp_path, BLOCK))
    with pytest.raises(UserError, match=r"allowed: presentation, presentation@trained"):
        with_targets(suites, {key: MEN})


def test_suites_share_no_prompt(tmp_path: Path) -> None:
    """A prompt that is trained on cannot be held out too."""
    with pytest.raises(UserError, match="suites share no prompt"):
        load_suites(write(tmp_path, BLOCK, BLOCK | {"suite": "held_out"}))


def test_an_asked_value_must_be_one_of_the_attributes(tmp_path: Path) -> None:
    """An explicit prompt cannot ask for a value that no classifier will read."""
    prompt = {"subject": "judge", "text": "a wise judge", "asked": {"presentation": "wise"}}
    block = {"suite": "e", "role": "explicit", "attributes": ["presentation"], "prompts": [prompt]}
    with pytest.raises(UserError, match="asks for presentation = 'wise'"):
        load_suites(write(tmp_path, block))


def test_an_unknown_suite_names_the_known_ones() -> None:
    """Asking for a suite that the file lacks is answered with those it has."""
    with pytest.raises(UserError, match=r"no suite 'heldout'.*held_out"):
        load_suites(config_path("prompts/emoji.yaml"), ["heldout"])


@given(st.text(max_size=300), st.text(max_size=300))
def test_prompt_ids_are_safe_folder_names_and_differ_with_the_text(a: str, b: str) -> None:
    """Any text makes a short plain name, and two texts never share one."""
    assert prompt_id(a).replace("-", "").isalnum()
    assert prompt_id(a).isascii()
    assert len(prompt_id(a)) <= 56
    assert (prompt_id(a) == prompt_id(b)) == (a == b)


def test_two_prompts_of_one_id_are_refused(tmp_path: Path) -> None:
    """Their pictures would be taken for each other's; an id is 24 bits where no letter is latin."""
    seen: dict[str, str] = {}
    texts = (f"{chr(a)}{chr(b)}" for a in range(0x4E00, 0x4F00) for b in range(0x4E00, 0x4F00))
    pair = next((t, seen[i]) for t in texts if seen.setdefault(i := prompt_id(t), t) != t)
    block = {"suite": "trained", "role": "control", "attributes": [], "prompts": []}
    rows = [{"subject": f"s{n}", "text": text} for n, text in enumerate(pair)]
    file = tmp_path / "prompts.yaml"
    file.write_text(yaml.safe_dump([{**block, "prompts": rows}]), "utf-8")
    with pytest.raises(UserError, match="have one id by chance"):
        load_suites(file)

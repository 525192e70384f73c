"""Prompts and attributes: what a file may say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unskew.attributes import ATTRIBUTES_DIR, load_attribute, target_shares
from unskew.errors import UserError
from unskew.prompts import load_suites, prompt_id
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
    [{"a": 0.5}, {"a": 0.5, "b": 0.5, "c": 0}, {"a": 0.9, "b": 0.2}, {"a": -0.1, "b": 1.1}, "even"],
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
        ({"role": "neutrl"}, "role must be one of"),
        ({"templates": []}, "expands to no prompt"),
        ({"templats": ["{x}"]}, "a block may have"),
        ({"attributes": ["gender"]}, "known: "),
        ({"targets": {"presentation": {"woman": 1}}}, "must name exactly"),
        ({"templates": ["{x}", "{x}"]}, "stands in 'trained' already"),
    ],
)
def test_a_block_that_cannot_be_meant_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    """Each mistake in a prompt file ends with a message that names it."""
    with pytest.raises(UserError, match=message):
        load_suites(write(tmp_path, BLOCK | change))


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

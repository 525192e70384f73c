"""The report opens offline, runs nothing but its own script, and trusts no text."""

import base64
import hashlib
import json
import re
import runpy
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from unskew.evaluate import report

ORACLES = Path(__file__).parents[1] / "oracles"
reported = SimpleNamespace(**runpy.run_path(str(ORACLES / "reported_study.py")))
make_study, read = reported.make_study, reported.read
HOSTILE = "</script><script>alert('&quot;\"1')</script><img src=x onerror=alert(2)>\u202e{{ 7*7 }}"


def test_opens_offline(study):
    """Nothing is loaded from anywhere: pictures are data: URIs, links stay on the page."""
    page = read(study)
    for tag, attrs in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        assert all(attrs.get(name, "#").startswith("#") for name in ("href", "action"))
        assert attrs.get("src", "data:").startswith("data:")
        assert not {"srcset", "poster", "background"} & set(attrs)
        assert "url(" not in attrs.get("style", "")
    assert page.all("img")
    assert not re.search(r"url\(|@import|https?:", page.raw["style"])
    assert not re.search(r"fetch|XMLHttp|import\(|https?:", page.raw["script"])


def test_only_its_own_script_may_run(study):
    """The content security policy names the page's one script by hash and allows nothing else."""
    page = read(study)
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    digest = hashlib.sha256(page.raw["script"].encode()).digest()
    rules = dict(rule.split(maxsplit=1) for rule in policy["content"].split("; "))
    assert rules["script-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert len(page.all("script")) == 1
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def hostile_copy(bare_study, folder, text):
    """The study with a text in every place that a user, a file or a model can fill."""
    swaps = {
        "trained 0 0": text,
        "trained1": text,
        "perceived colour": text,
        "A caveat.": text,
        "a classifier": text,
        "red": text,
        "lora": f"l{text}",
        "Drawings by somebody, CC-BY 4.0": text,
        "cpu (no accelerator)": text,
        "3.11.9": text,
    }
    folder.mkdir(exist_ok=True)
    for name in ("results.json", "manifest.json"):
        value = swap(json.loads((bare_study / name).read_text("utf-8")), swaps)
        (folder / name).write_text(json.dumps(value), "utf-8")
    table = pd.read_parquet(bare_study / "readings.parquet")
    table.replace(swaps).to_parquet(folder / "readings.parquet")
    return folder


def swap(value, swaps):
    """A JSON value with texts exchanged, keys too."""
    if isinstance(value, dict):
        return {swap(k, swaps): swap(v, swaps) for k, v in value.items()}
    if isinstance(value, list):
        return [swap(part, swaps) for part in value]
    return swaps.get(value, value) if isinstance(value, str) else value


@cache
def harmless_structure(bare_study, folder):
    """The elements of the page with a harmless text in all those places."""
    return read(hostile_copy(bare_study, folder, "placeholder")).structure


def check_escaped(bare_study, folder, text):
    """The page has the elements that any text gives, and shows this one as it is."""
    expected = harmless_structure(bare_study, bare_study.with_name("harmless"))
    page = read(hostile_copy(bare_study, folder, text))
    assert page.structure == expected
    assert text.strip() in "".join(page.text)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), min_size=1)


@settings(max_examples=15)
@example(HOSTILE)
@example("\u202e\u05d0\u05d1 ' onmouseover='x' \"&amp;<!--")
@example("]]>--><b>" * 1200)
@given(text=TEXTS)
def test_no_text_becomes_markup(bare_study, tmp_path_factory, text):
    """Whatever prompts, values, arms or settings say, the page keeps its elements and shows it."""
    check_escaped(bare_study, tmp_path_factory.mktemp("hostile"), text)


def test_the_escape_test_can_fail(bare_study, tmp_path, monkeypatch):
    """With escaping off, the test above does notice."""
    original = report.page_environment

    def careless():
        environment = original()
        environment.autoescape = False
        return environment

    monkeypatch.setattr(report, "page_environment", careless)
    with pytest.raises(AssertionError):
        check_escaped(bare_study, tmp_path, HOSTILE)


def test_a_text_cannot_reach_for_files(tmp_path):
    """A prompt id that leaves the study's folder shows no picture from there."""
    folder = make_study(tmp_path / "study")
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    table = pd.read_parquet(folder / "readings.parquet").replace("things-0-0", "../../..")
    table.to_parquet(folder / "readings.parquet")
    before = len(read(make_study(tmp_path / "other")).all("img"))
    assert len(read(folder).all("img")) == before - 2 * 6

"""A made-up study with pictures, and its report as a browser sees it."""

from __future__ import annotations

import json
import runpy
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from unskew.evaluate.report import write_report
from unskew.evaluate.results import summarise, write_results

made_up = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("made_up_study.py"))))
MANIFEST = {
    "schema_version": 1,
    "status": "running",
    "program": "paired",
    "settings": {"guidance": 2.0, "steps": 12, "attribution": ["Drawings by somebody, CC-BY 4.0"]},
    "passed": ["steps"],
    "inputs": {"base": "5" * 64},
    "facts": {"device": "cpu (no accelerator)"},
    "git": {"commit": "c0ffee", "dirty": False},
    "versions": {"python": "3.11.9"},
    "started": "2026-01-01T00:00:00+00:00",
    "resumed": [],
}


def alternating(arm, prompt, seed, attribute):
    """The base shows the first value only, other arms each value in turn."""
    if attribute == "subject":
        return prompt.subject
    values = (made_up.COLOUR if attribute == "colour" else made_up.SIZE).values
    return values[0] if arm == "base" else values[seed % len(values)]


def make_study(folder, arms=("base", "lora"), pictures=True, answer=alternating, neutral=True):
    """A study folder of made-up readings, with a picture of 8 px a cell."""
    suites = [
        (made_up.suite_prompts("trained", 12, attributes=("colour", "size")), "neutral"),
        (made_up.suite_prompts("held_out", 3, n_templates=2), "neutral"),
        (made_up.suite_prompts("spelt", 2, asked={"colour": "blue"}), "explicit"),
        (made_up.suite_prompts("things", 3, attributes=()), "control"),
    ]
    primaries = (("colour", "trained"),) if arms[1:] and neutral else ()
    plan = made_up.make_plan(
        *suites[0 if neutral else 2 :], arms=arms, seeds=6, primaries=primaries
    )
    readings = made_up.make_readings(plan, answer)
    folder.mkdir(parents=True)
    readings.to_parquet(folder / "readings.parquet")
    features = made_up.features_of(plan) if arms[1:] else None
    write_results(summarise(readings, plan, features), folder / "results.json")
    (folder / "manifest.json").write_text(json.dumps(MANIFEST), "utf-8")
    for prompt in plan.prompts if pictures else ():
        for n, arm in enumerate(arms):
            for seed in range(6):
                file = folder / "images" / arm / prompt.id / f"{seed}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                colour = np.random.default_rng([n, seed]).integers(0, 256, 3).tolist()
                Image.new("RGB", (8, 8), tuple(colour)).save(file)
    return folder


class Page(HTMLParser):
    """What a browser would see: elements with attributes, and text, script and style apart."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.raw, self._open = [], [], {}, None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Keep the element."""
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag):
        """What follows is text again."""
        self._open = None

    def handle_data(self, data):
        """Keep the text, or the source of a script or style."""
        if self._open in ("script", "style"):
            self.raw[self._open] = self.raw.get(self._open, "") + data
        else:
            self.text.append(data)

    @property
    def structure(self):
        """Every element with the names of its attributes, none of its text."""
        return [(tag, tuple(sorted(attrs))) for tag, attrs in self.tags]

    def all(self, tag, **wanted):
        """The attributes of every such element."""
        found = [attrs for name, attrs in self.tags if name == tag]
        return [a for a in found if all(a.get(k) == v for k, v in wanted.items())]


def read(folder):
    """The page of a study folder."""
    return Page(write_report(folder).read_text("utf-8"))


def section(folder, name):
    """The HTML of one section."""
    html = write_report(folder).read_text("utf-8")
    start = html.index(f'<section id="{name}">')
    return html[start : html.index("</section>", start)]

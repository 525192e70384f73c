"""Promises of synthesis: what is missing is drawn, checked, counted, and the same again."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unskew.attributes import SUBJECT, load_attribute
from unskew.data import synthesis
from unskew.data.build_setup import Setup
from unskew.data.rows import Wanted
from unskew.data.screen import ScreenSettings
from unskew.data.synthesis import Synthesised, synthesise
from unskew.data.synthesis_options import SynthesisSettings, said_of_judge
from unskew.errors import UserError
from unskew.evaluate.classifiers.reading import Images, Readings
from unskew.evaluate.generate import Cell, Sampler, draw_batch, plan_batches
from unskew.pipelines import load_base
from unskew.prompts import prompt_id

ANY = ScreenSettings(least_side_px=8, least_contrast=0, least_sharpness=0, near_duplicates=False)
VALUES = ("woman", "man", "person")
WANTED = [
    Wanted("mechanic", {"presentation": value}, (f"a {value} mechanic", f"a {value} at work"), 3)
    for value in VALUES
]


class Parity:
    """Reads a picture's lowest bits: whatever was asked, some pictures show it and some do not."""

    name = "parity"
    attributes = (SUBJECT, "presentation")

    def read(self, images: Images, attributes: Sequence[str]) -> dict[str, Readings]:
        """What their sums say."""
        sums = np.array([int(image.sum()) for image in images])
        subject_n = np.where(sums % 5 == 0, 1, 0)
        presentation_n = sums // 5 % 3
        both = {
            SUBJECT: (("mechanic", "nurse"), subject_n),
            "presentation": (VALUES, presentation_n),
        }
        return {
            a: Readings(values, k_n, np.eye(len(values), dtype=np.float32)[k_n])
            for a, (values, k_n) in both.items()
            if a in attributes
        }


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever classifier settings ask for, it is this one."""
    monkeypatch.setattr("unskew.data.checking.load_classifier", lambda *words: Parity())


def settings_of(base: Path, **more: Any) -> SynthesisSettings:
    reader = {"kind": "exemplars", "attributes": [SUBJECT, "presentation"], "folder": "x"}
    given = {
        "base": str(base),
        "steps": 1,
        "guidance": 1.0,
        "resolution_px": 16,
        "batch": 4,
        "dtype": "fp32",
        "classifiers": {"parity": reader},
        "license": "CC0-1.0",
    }
    return SynthesisSettings(**{**given, **more})


def made(base: Path, out: Path, **more: Any) -> Synthesised:
    attributes = {"presentation": load_attribute("presentation")}
    return synthesise(settings_of(base, **more), ANY, Setup(out, attributes), WANTED)


def without_places(result: Synthesised) -> list[tuple[Any, ...]]:
    return [(row.name, row.sha256, dict(row.labels), row.drawn) for row in result.rows]


@pytest.mark.usefixtures("parity")
def test_every_cell_gets_what_it_lacks_and_its_cost_is_counted(
    tiny_base: Path, tmp_path: Path
) -> None:
    """As many as wanted of each, each as asked; the tries are told by what spoke against them."""
    result = made(tiny_base, tmp_path)
    assert [row.labels["presentation"] for row in result.rows] == [v for v in VALUES for _ in "123"]
    assert len({row.sha256 for row in result.rows}) == len({r.name for r in result.rows}) == 9
    for row in result.rows:
        pixels = np.asarray(synthesis_picture(row.file))
        assert Parity().read([pixels], [SUBJECT])[SUBJECT].value_n[0] == 0
        shown = Parity().read([pixels], ["presentation"])["presentation"].value_n[0]
        assert VALUES[shown] == row.labels["presentation"]
        assert row.license == "CC0-1.0" and "sha256" in row.source
        assert row.labelled_by == {"presentation": "asked, confirmed by parity"}
    files = list((tmp_path / ".work").rglob("*.png"))
    assert sum(t.tries for t in result.tries) == len(files)
    for tries in result.tries:
        assert tries.kept == tries.wanted == 3
        assert tries.kept <= tries.tries - tries.other_subject - tries.other_value
        assert tries.screened_out == 0
    assert sum(t.other_value for t in result.tries) > 0


def synthesis_picture(file: Path) -> Any:
    from unskew.data.looking import upright

    return upright(file)


@pytest.mark.usefixtures("parity")
def test_a_row_can_be_drawn_again(tiny_base: Path, tmp_path: Path) -> None:
    """Prompt and seed of a row, drawn in its batch, give its very picture."""
    import torch

    result = made(tiny_base, tmp_path)
    first = [one.wordings[n % 2] for one in WANTED for n in range(3)]
    seeds = [1_000_000 + n // 2 for _ in WANTED for n in range(3)]
    sampler = Sampler(1, 1.0, 16, 4)
    prompts = {p: q for s in synthesis_prompts() for p, q in s.items()}
    cells = [Cell(prompts[text], seed) for text, seed in zip(first, seeds, strict=True)]
    pipe = load_base(tiny_base, torch.device("cpu"), torch.float32)
    from unskew.evaluate.generate import TextStates

    states = TextStates(pipe, guided=False)
    drawn: dict[tuple[str, int], Any] = {}
    for batch in plan_batches(cells, 4):
        images = draw_batch(pipe, batch, sampler, states([c.prompt.text for c in batch]))
        drawn |= {(c.prompt.text, c.seed): i for c, i in zip(batch, images, strict=True)}
    again = [
        np.array_equal(drawn[key], np.asarray(synthesis_picture(row.file)))
        for row in result.rows
        if row.drawn and (key := (row.drawn.prompt, row.drawn.seed)) in drawn
    ]
    assert again and all(again)


def synthesis_prompts() -> list[dict[str, Any]]:
    from unskew.prompts import Prompt

    return [
        {text: Prompt(prompt_id(text), text, "s", one.subject, (), {}) for text in one.wordings}
        for one in WANTED
    ]


@pytest.mark.usefixtures("parity")
def test_synthesis_goes_on_where_it_stopped(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted at any batch, the next attempt draws only what is missing, to the same rows."""
    whole = made(tiny_base, tmp_path / "whole")
    drawn, real = 0, synthesis.draw

    def stopping(*words: Any, **more: Any) -> Any:
        nonlocal drawn
        for count in real(*words, **more):
            drawn += count
            yield count
            if drawn >= 8 and "stopped" not in seen:
                seen.add("stopped")
                raise KeyboardInterrupt

    seen: set[str] = set()
    monkeypatch.setattr(synthesis, "draw", stopping)
    with pytest.raises(KeyboardInterrupt):
        made(tiny_base, tmp_path / "stopped")
    before = drawn
    again = made(tiny_base, tmp_path / "stopped")
    assert without_places(again) == without_places(whole) and again.tries == whole.tries
    files = len(list((tmp_path / "whole" / ".work").rglob("*.png")))
    assert drawn <= files + 8 and before >= 8
    drawn = 0
    made(tiny_base, tmp_path / "stopped")
    assert drawn == 0


@pytest.mark.usefixtures("parity")
def test_cells_that_stay_short_stop_the_build_or_are_told(tiny_base: Path, tmp_path: Path) -> None:
    """After most_tries: an error that names each, or the rows that are there; more tries go on."""
    with pytest.raises(UserError, match=r"mechanic \w+: \d of 3 in 4 tries"):
        made(tiny_base, tmp_path, most_tries=4)
    left = made(tiny_base, tmp_path, most_tries=4, when_short="leave_out")
    assert len(left.rows) == sum(t.kept for t in left.tries) < 9
    assert all(t.tries <= 4 for t in left.tries)
    assert len(made(tiny_base, tmp_path).rows) == 9


class Women(Parity):
    """Sees a woman mechanic in every picture."""

    def read(self, images: Images, attributes: Sequence[str]) -> dict[str, Readings]:
        """The same whatever it is shown."""
        first_n = np.zeros(len(images), dtype=np.int64)
        sure_nk = np.eye(3, dtype=np.float32)[first_n]
        values = {SUBJECT: ("mechanic", "nurse", "cook"), "presentation": VALUES}
        return {a: Readings(values[a], first_n, sure_nk) for a in attributes}


def test_what_would_be_left_out_is_not_drawn_on(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a subject's hopeless cells one has all its tries; one that is there already is no reason.

    Where nothing is left out, all have theirs, since each may be mended by more.
    """
    monkeypatch.setattr("unskew.data.checking.load_classifier", lambda *words: Women())
    monkeypatch.setattr(synthesis, "ALONE", 2)
    left = made(tiny_base, tmp_path / "a", most_tries=30, when_short="leave_out")
    assert [(t.kept, t.tries) for t in left.tries] == [(3, 3), (0, 30), (0, 3)]
    assert left.bare == {"mechanic": 2}
    monkeypatch.setattr(sys.modules[__name__], "WANTED", [replace(w, there=True) for w in WANTED])
    there = made(tiny_base, tmp_path / "b", most_tries=5, when_short="leave_out")
    assert [t.tries for t in there.tries] == [3, 5, 5] and there.bare == {}
    with pytest.raises(UserError, match=r"man: 0 of 3 in 5 tries\n.* person: 0 of 3 in 5 tries"):
        made(tiny_base, tmp_path / "c", most_tries=5)


@pytest.mark.usefixtures("parity")
def test_equal_pictures_are_kept_once(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base that draws the same again and again fills no cell with repeats."""
    monkeypatch.setattr(synthesis, "GROWTH", 1)
    attributes = {"presentation": load_attribute("presentation")}
    plan = settings_of(tiny_base, classifiers={}, most_tries=4, when_short="leave_out")

    def same(pipe: Any, cells: Sequence[Cell], *more: Any) -> Any:
        return np.full((len(cells), 16, 16, 3), 7, np.uint8)

    monkeypatch.setattr("unskew.evaluate.generate.draw_batch", same)
    result = synthesise(plan, ANY, Setup(tmp_path, attributes), WANTED[:2])
    assert [t.kept for t in result.tries] == [1, 0]
    assert [t.screened_out for t in result.tries] == [3, 4]


def test_one_picture_cannot_have_two_cells(tiny_base: Path, tmp_path: Path) -> None:
    """The same words for two values are an error before anything is drawn."""
    same = [Wanted("mechanic", {"presentation": v}, ("a mechanic",), 1) for v in VALUES[:2]]
    attributes = {"presentation": load_attribute("presentation")}
    with pytest.raises(UserError, match="to draw both mechanic woman and mechanic man"):
        synthesise(settings_of(tiny_base), ANY, Setup(tmp_path, attributes), same)


def test_who_judges_is_told(tmp_path: Path) -> None:
    """The same classifier is a warning, as are shared features; disjoint ones are said to be so."""
    reader = {"kind": "exemplars", "attributes": ["presentation"], "folder": "art"}
    file = tmp_path / "study.yaml"
    file.write_text("classifiers: {e: {kind: exemplars, attributes: [subject], folder: art}}")

    def said(channels: str) -> str:
        checks = {"c": {**reader, "channels": channels}}
        [line] = said_of_judge(settings_of(tmp_path, classifiers=checks, judge=str(file)))
        return line

    assert "WARNING: it is the same as e" in said("rgb")
    assert "WARNING: e, which judges" in said("chroma")
    file.write_text(file.read_text().replace("art}", "art, channels: luminance}"))
    assert "disjoint features" in said("chroma")
    assert "no classifier checked" in said_of_judge(settings_of(tmp_path, classifiers={}))[0]


TWO = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import test_synthesis as here
import unskew.data.checking as checking
from unskew.data.build_setup import Setup
from unskew.attributes import load_attribute
from unskew.processes import join_processes
checking.load_classifier = lambda *words: here.Parity()
processes = join_processes()
setup = Setup(Path(sys.argv[3]), {"presentation": load_attribute("presentation")}, {}, processes)
result = here.synthesise(here.settings_of(Path(sys.argv[2])), here.ANY, setup, here.WANTED)
line = f"{here.without_places(result)} {result.tries}"
Path(sys.argv[4], f"{processes.index}.txt").write_text(line, "utf-8")
processes.part()
"""


@pytest.mark.slow
@pytest.mark.usefixtures("parity")
def test_two_processes_draw_what_one_draws(tiny_base: Path, tmp_path: Path) -> None:
    """The same rows and the same costs, in both of them."""
    script = tmp_path / "two.py"
    script.write_text(TWO, "utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    places = [Path(__file__).parent, tiny_base, tmp_path / "two", tmp_path]
    words = [str(script), *map(str, places)]
    ended = subprocess.run([*launch, *words], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    whole = made(tiny_base, tmp_path / "one")
    expected = f"{without_places(whole)} {whole.tries}"
    for process in (0, 1):
        assert (tmp_path / f"{process}.txt").read_text("utf-8") == expected

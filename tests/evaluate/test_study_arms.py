"""What an arm may be: several adapters at weights, other words, a folder of pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image

from unskew.evaluate.audit import main as audit
from unskew.evaluate.paired import main
from unskew.settings import run_program

StudyOn = Callable[..., Path]


@pytest.fixture
def study(study_on: StudyOn, tiny_base: Path) -> Path:
    """A study's YAML: the tiny base against itself with an adapter that does something."""
    return study_on(tiny_base, "unet")


FIVE = {"trained": {"seeds": 5}, "explicit": {"seeds": 5}}


def with_arms(study: Path, arms: dict[str, Any], out: str = "study", **more: Any) -> Path:
    """The study with these arms, in a folder of its own."""
    settings = yaml.safe_load(study.read_text("utf-8"))
    settings |= {"arms": arms, "out": str(study.parent / out), **more}
    file = study.parent / f"{out}.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    return file


def run(study: Path, *words: str) -> int:
    return run_program(main, ["--config", str(study), *words])


def drawn(study: Path, arm: str, out: str = "study") -> dict[str, bytes]:
    """Relative name -> bytes of an arm's pictures."""
    folder = study.parent / out / "images" / arm
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*.png")}


def found(study: Path, out: str = "study") -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((study.parent / out / "results.json").read_text("utf-8"))
    return loaded


def test_adapters_add_up_at_their_weights(study: Path) -> None:
    """Twice at a half is once at one; at 1 and -1 they are the base again, up to rounding."""
    adapter = str(study.parent / "adapter")
    arms = {
        "base": {},
        "once": {"adapter": adapter},
        "halves": {"adapters": [{"adapter": adapter, "weight": 0.5}] * 2},
        "nothing": {"adapters": [{"adapter": adapter}, {"adapter": adapter, "weight": -1.0}]},
        "twice": {"adapters": [{"adapter": adapter}] * 2},
    }
    assert run(with_arms(study, arms)) == 0
    assert _near(study, "once", "halves") and _near(study, "base", "nothing")
    assert not _near(study, "once", "twice") and not _near(study, "base", "once")
    facts = found(study)["arms"]["halves"]["facts"]["adapters"]
    assert [part["weight"] for part in facts] == [0.5, 0.5] and len(facts[0]["sha256"]) == 64


def _near(study: Path, one: str, other: str) -> bool:
    """Whether no pixel of two arms differs by more than rounding."""
    folder = study.parent / "study" / "images"
    for name in drawn(study, one):
        with Image.open(folder / one / name) as a, Image.open(folder / other / name) as b:
            pairs = zip(a.tobytes(), b.tobytes(), strict=True)
            if max(abs(x - y) for x, y in pairs) > 1:
                return False
    return True


def test_words_may_be_rewritten_and_led_away_from(study: Path) -> None:
    """A rewrite to the same words and an empty negative prompt change no bit; others do."""
    arms = {
        "base": {},
        "same": {"rewrite": "{prompt}", "negative_prompt": ""},
        "template": {"rewrite": "{prompt} in the rain"},
        "mapping": {"rewrite": {"a mechanic": "a woman mechanic"}},
        "away": {"negative_prompt": "a mechanic"},
    }
    assert run(with_arms(study, arms)) == 0
    base = drawn(study, "base")
    assert drawn(study, "same") == base
    for arm in ("template", "away"):
        assert all(picture != base[name] for name, picture in drawn(study, arm).items())
    changed = {name.split("/")[0] for name, p in drawn(study, "mapping").items() if p != base[name]}
    assert len(changed) == 1 and changed.pop().startswith("a-mechanic-")
    assert run(with_arms(study, {"a": {}, "b": {}}, "away", negative_prompt="a mechanic")) == 0
    assert drawn(study, "a", "away") == drawn(study, "away")


def test_a_sampler_by_name_draws_all_arms(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other pictures than the base's own; one that the base cannot have is refused."""
    assert run(study) == 0
    assert run(study, "--sampler", "dpm++_2m", "--out", str(study.parent / "other")) == 0
    assert drawn(study, "base") != drawn(study, "base", "other")
    assert run(study, "--sampler", "pndm", "--out", str(study.parent / "third")) == 2
    assert "sampler pndm cannot draw from this base" in capsys.readouterr().err


NAMED = ["a/b", "..", "a.b", "", "con", "LPT1", "-a", "a b", "ä", "x" * 65, "a\nb"]


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        *(({"base": {}, name: {}}, "cannot name an arm") for name in NAMED),
        ({"base": {}, "Base": {}}, "differ in case only"),
        ({"a": {}, "b": {"adapter": "x", "adapters": [{"adapter": "y"}]}}, "not both"),
        ({"a": {}, "b": {"folder": "x", "rewrite": "{prompt}"}}, "may have no rewrite"),
        ({"a": {}, "b": {"rewrite": "a person"}}, "rewrite must hold {prompt}"),
        ({"a": {}, "b": {"rewrite": {"a vampire": "x"}}}, "no prompt that is drawn has the words"),
        ({"a": {}, "b": {"adapters": [{"adapter": "gone"}]}}, "arms.b.adapters.0: gone holds no"),
        ({"a": {}, "b": {"folder": "x", "names": "{prompt_id}"}}, "must hold {seed}"),
        ({"a": {}, "b": {"folder": "x", "names": "../{seed}"}}, "must stay inside"),
        ({"a": {}, "b": {"folder": "x", "names": "{seed.real}"}}, "not {seed.real}"),
        ({"a": {}, "b": {"folder": "nowhere"}}, "nowhere is no folder"),
    ],
)
def test_arms_that_cannot_be_meant_end_at_once(
    study: Path, capsys: pytest.CaptureFixture[str], arms: dict[str, Any], message: str
) -> None:
    """Exit code 2, a message that names it, and no folder, least of all outside of the study's."""
    assert run(with_arms(study, arms)) == 2
    assert message in capsys.readouterr().err
    assert not (study.parent / "study").exists()


def made_elsewhere(study: Path, arm: str = "adapter") -> Path:
    """A copy of an arm's pictures, as another program would have left them."""
    return Path(shutil.copytree(study.parent / "study" / "images" / arm, study.parent / "made"))


def test_folders_give_what_drawing_gave(study: Path) -> None:
    """Both arms from folders: the same verdicts and readings, no base, and nothing is touched."""
    assert run(study) == 0
    images = study.parent / "study" / "images"
    before = {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in images.rglob("*.png")}
    arms = {name: {"folder": str(images / name)} for name in ("base", "adapter")}
    assert run(with_arms(study, arms, "folders", base="nowhere")) == 0
    assert before == {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in images.rglob("*.png")}
    assert not (study.parent / "folders" / "images").exists()
    for part in ("representation", "fidelity", "counts"):
        assert found(study)[part] == found(study, "folders")[part]
    tables = [pd.read_parquet(study.parent / f / "readings.parquet") for f in ("study", "folders")]
    assert tables[0].drop(columns="probabilities").equals(tables[1].drop(columns="probabilities"))
    grid, report = (study.parent / "folders" / name for name in ("pairs.png", "report.html"))
    assert grid.read_bytes() == (study.parent / "study" / "pairs.png").read_bytes()
    assert report.read_text("utf-8").count("data:image/webp") > 20


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_metadata_file_pairs_any_names_and_formats(study: Path, kind: str) -> None:
    """By words or id, in any of Pillow's formats; an EXIF that turns it is obeyed."""
    assert run(study) == 0
    made = study.parent / "made"
    made.mkdir()
    prompts = {"a mechanic", "a picture of a mechanic", "a health worker", "a woman mechanic"}
    ids = {f.name: f for f in (study.parent / "study" / "images" / "adapter").iterdir()}
    rows = []
    for number, folder in enumerate(ids.values()):
        text = next((p for p in prompts if folder.name[:-7] == p.replace(" ", "-")), None)
        for file in folder.iterdir():
            name = f"ComfyUI_{len(rows):05}.{'webp' if number % 2 else 'tiff'}"
            with Image.open(file) as image:
                turned = image.transpose(Image.Transpose.ROTATE_90)
                exif = Image.Exif()
                exif[0x0112] = 6
                turned.save(made / name, exif=exif, **({"lossless": True} if number % 2 else {}))
            row: dict[str, Any] = {"file_name": name, "seed": int(file.stem)}
            rows.append(row | ({"prompt": text} if text else {"prompt_id": folder.name}))
    rows.append({"file_name": "other.png", "seed": 0, "prompt": "something else"})
    if kind == "csv":
        pd.DataFrame(rows).to_csv(made / "metadata.csv", index=False)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (made / "metadata.jsonl").write_text(lines, "utf-8")
    assert run(with_arms(study, {"base": {}, "adapter": {"folder": str(made)}}, "mixed")) == 0
    facts = found(study, "mixed")["arms"]["adapter"]["facts"]
    assert (facts["pictures"], facts["missing"], facts["strangers"]) == (15, 0, 1)
    assert facts["paired_by"] == f"metadata.{kind}"
    assert found(study, "mixed")["representation"] == found(study)["representation"]


def test_missing_pictures_are_counted_and_may_come_later(study: Path) -> None:
    """Nothing is invented for them; when they are there, the same command counts them in."""
    study = with_arms(study, yaml.safe_load(study.read_text("utf-8"))["arms"], suites=FIVE)
    assert run(study) == 0
    made = made_elsewhere(study)
    late = next(iter(made.rglob("1.png")))
    late.rename(study.parent / "late.png")
    arms = with_arms(study, {"base": {}, "adapter": {"folder": str(made)}}, "mixed")
    assert run(arms) == 0
    assert found(study, "mixed")["status"] == "incomplete"
    assert found(study, "mixed")["arms"]["adapter"]["counts"]["generated"] == 24
    assert found(study, "mixed")["arms"]["adapter"]["facts"]["missing"] == 1
    (study.parent / "late.png").rename(late)
    assert run(arms) == 0
    assert found(study, "mixed")["status"] == "complete"


def broken_folder(study: Path) -> tuple[Path, list[Path]]:
    """An arm's pictures of which one is cut off, one no picture, and one a decompression bomb."""
    made = made_elsewhere(study)
    files = sorted(made.rglob("0.png"))[:3]
    files[0].write_bytes(files[0].read_bytes()[:-40])
    files[1].write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "utf-8")
    Image.new("1", (20_000, 20_000)).save(files[2])
    return made, files


def test_broken_and_giant_pictures_stop_the_study_by_name(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them are named with what is wrong, before anything is drawn."""
    assert run(study) == 0
    made, files = broken_folder(study)
    arms = with_arms(study, {"base": {}, "adapter": {"folder": str(made)}}, "mixed")
    assert run(arms) == 2
    said = capsys.readouterr().err
    assert "3 of 15 pictures cannot be read" in said and "broken: unreadable" in said
    assert all(str(file) in said for file in files)
    assert "400000000 pixels" in said
    assert not (study.parent / "mixed").exists()


def test_broken_and_giant_pictures_may_count_as_unreadable(study: Path) -> None:
    """They are readings without a value, and named in the results."""
    study = with_arms(study, yaml.safe_load(study.read_text("utf-8"))["arms"], suites=FIVE)
    assert run(study) == 0
    made, files = broken_folder(study)
    arms = {"base": {}, "adapter": {"folder": str(made)}}
    assert run(with_arms(study, arms, "mixed", broken="unreadable")) == 0
    results = found(study, "mixed")
    assert results["status"] == "complete"
    assert results["arms"]["adapter"]["counts"] == {"planned": 25, "generated": 25, "readable": 22}
    named = results["arms"]["adapter"]["facts"]["broken"]
    assert set(named) == {file.relative_to(made).as_posix() for file in files}
    rows = pd.read_parquet(study.parent / "mixed" / "readings.parquet")
    assert (rows[~rows["readable"]]["image_sha256"].str.len() == 64).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "metadata.jsonl line 1 is no JSON"),
        ("[1]", "must be an object"),
        ('{"file_name": "a", "seed": "x", "prompt": "a mechanic"}', "seed must be an integer"),
        ('{"file_name": "a", "seed": true, "prompt": "a mechanic"}', "seed must be an integer"),
        ('{"seed": 0, "prompt": "a mechanic"}', "needs file_name"),
        ('{"file_name": "a", "seed": 0}', "needs prompt_id or prompt"),
        ('{"file_name": "../study.yaml", "seed": 0, "prompt": "a mechanic"}', "leads out of the"),
        ('{"file_name": "a.png", "seed": 0, "prompt": "else"}', "no picture of any of the study's"),
    ],
)
def test_metadata_that_cannot_be_meant_is_refused(
    study: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    """With the line that it stands in; a path may not leave the folder."""
    made = study.parent / "made"
    made.mkdir()
    (made / "metadata.jsonl").write_text(line + "\n", "utf-8")
    assert run(with_arms(study, {"a": {"folder": str(made)}, "b": {}})) == 2
    assert message in capsys.readouterr().err


def test_a_link_out_of_the_folder_is_not_followed(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A report of a folder made elsewhere shows that folder's pictures only."""
    assert run(study) == 0
    made = made_elsewhere(study)
    file = next(made.rglob("0.png"))
    file.rename(study.parent / "secret.png")
    file.symlink_to(study.parent / "secret.png")
    assert run(with_arms(study, {"base": {}, "b": {"folder": str(made)}}, "mixed")) == 2
    assert "leads out of the folder" in capsys.readouterr().err


def test_an_audit_says_which_prompts_are_skewed_most(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One arm, drawn or from a folder: imbalance of every suite, its worst prompts first."""
    words = ["--config", str(with_arms(study, {"mine": {}}, "audit"))]
    assert run_program(audit, words) == 0
    said = capsys.readouterr().out
    assert "presentation on trained: imbalance" in said and "4 prompts x 3 seeds" in said
    worst = [float(line.split()[0]) for line in said.splitlines() if line.startswith("  ")]
    assert len(worst) == 4 and worst == sorted(worst, reverse=True)
    folder = {"mine": {"folder": str(study.parent / "audit" / "images" / "mine")}}
    words = ["--config", str(with_arms(study, folder, "again"))]
    assert run_program(audit, words) == 0
    assert capsys.readouterr().out == said.replace("/audit/report.html", "/again/report.html")
    assert run_program(audit, ["--config", str(study)]) == 2
    assert "an audit has one arm" in capsys.readouterr().err


def test_prompts_that_the_encoder_cuts_are_named(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before drawing, with how long they are and in which arms; others are not."""
    long = {"rewrite": {"a mechanic": "a mechanic " * 30}}
    assert run(with_arms(study, {"base": {}, "long": long}), "--dry-run") == 0
    [warning] = [w for w in capsys.readouterr().err.splitlines() if w.startswith("warning")]
    assert warning.startswith("warning: arms long: 1 prompts are longer than the 24 tokens")
    assert "a-mechanic-" in warning and "(62 tokens)" in warning

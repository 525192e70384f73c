"""Promises of `unskew data`: what is in the folder, who reads it, and that it is whole or not."""

import hashlib
import json
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unskew.attributes import load_attribute
from unskew.data import build
from unskew.data.emoji_world.art import Drawing
from unskew.data.emoji_world.world import Subject, World
from unskew.errors import UserError
from unskew.evaluate.classifiers.exemplar import fit_folder
from unskew.runs import read_manifest, sha256_folder
from unskew.settings import run_program
from unskew.train.batches import build_decks
from unskew.train.rows import load_rows

COLUMNS = (
    "file_name text kind subject presentation skin_tone season explicit_text "
    "weight split source license sha256"
).split()
PEOPLE = ("presentation", "skin_tone")

DIES_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from unskew.data.build import main
written, write_bytes = [], Path.write_bytes
def dying(self, content):
    written.append(self)
    if len(written) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return write_bytes(self, content)
Path.write_bytes = dying
main(sys.argv[1:])
"""


def words(folder: Path, *more: str) -> list[str]:
    """The command line that writes into a folder's two subfolders."""
    return ["--out", str(folder / "data"), "--exemplars", str(folder / "exemplars"), *more]


def read_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, art: tuple[Drawing, ...]) -> Path:
    """The folders that the command writes with no settings but where; change only a copy."""
    folder = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "drawings", lambda world: iter(art))
        assert build.main(words(folder)) == 0
    return folder


@pytest.fixture(scope="module")
def rows(full: Path) -> list[dict[str, Any]]:
    return read_rows(full / "data")


def test_nothing_held_out_is_in_it(rows: list[dict[str, Any]], world: World, full: Path) -> None:
    """No validation or held-out subject, and no contextual template, in rows or in files."""
    kept_back = {s.id: s for s in world.subjects if s.split != "trained"}
    assert len(kept_back) == 16
    assert not kept_back.keys() & {row["subject"] for row in rows}
    files = [file.name for file in (full / "data" / "images").iterdir()]
    assert not [f for f in files if f.startswith(tuple(f"{id}-" for id in kept_back))]
    endings = [template.replace("{x}", "") for template in world.contextual_templates]
    phrases = [s.noun or s.act for s in kept_back.values()]
    for row in rows:
        for text in filter(None, (row["text"], row["explicit_text"])):
            assert not [e for e in endings if e in text]
            assert not [p for p in phrases if re.search(rf"\b{p}\b", text)]


def test_every_subject_shows_every_cell_equally_often(
    rows: list[dict[str, Any]], world: World
) -> None:
    """Of 41 people subjects all 15 cells, of 3 scenes both seasons, neutral as explicit."""
    cells: dict[tuple[str, str], Counter[tuple[str, ...]]] = {}
    for row in rows:
        if row["kind"] != "control":
            cell = tuple(v for a in world.values if (v := row[a]) is not None)
            cells.setdefault((row["subject"], row["kind"]), Counter())[cell] += 1
    trained = {s.id for s in world.subjects if s.split == "trained"}
    assert len(trained) == 41 and len(world.scenes) == 3
    things = trained | {s.id for s in world.scenes}
    assert cells.keys() == {(id, kind) for id in things for kind in ("neutral", "explicit")}
    for (subject, _), shown in cells.items():
        assert len(shown) == (15 if subject in trained else 2)
        assert len(set(shown.values())) == 1


def test_captions_say_what_their_kind_says(rows: list[dict[str, Any]], world: World) -> None:
    """A neutral caption names no value, its explicit text all of them; a control has none."""
    named = {
        a: {v: re.compile(rf"\b{w}\b") for v, w in world.values[a].items()} for a in world.values
    }
    for row in rows:
        shown = {a: row[a] for a in world.values if row[a] is not None}
        if row["kind"] == "control":
            assert not shown and row["explicit_text"] is None
        elif row["kind"] == "neutral":
            assert not any(p.search(row["text"]) for a in named.values() for p in a.values())
            assert row["explicit_text"] != row["text"]
        else:
            assert row["explicit_text"] == row["text"]
        for attribute, value in shown.items():
            found = {v for v, p in named[attribute].items() if p.search(row["explicit_text"])}
            assert found == {value}


def test_every_picture_is_captioned_in_every_plain_template(
    rows: list[dict[str, Any]], world: World
) -> None:
    """Four neutral, four explicit captions a picture, four of a control; all of them differ."""
    texts: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        texts.setdefault((row["file_name"], row["kind"]), []).append(row["text"])
    assert {len(t) for t in texts.values()} == {4} == {len(set(t)) for t in texts.values()}
    assert sum(kind == "control" for _, kind in texts) == len(world.controls) == 50


def test_rows_have_the_columns_that_training_reads(
    rows: list[dict[str, Any]], full: Path, art: tuple[Drawing, ...]
) -> None:
    """Every column in every row; the file exists, is the drawing, and has the stated sha256."""
    drawn = {f"images/{d.name}.png": d for d in art}
    seen = set()
    for row in rows:
        assert list(row) == COLUMNS
        assert (row["weight"], row["split"], row["license"]) == (1.0, "train", "CC-BY-4.0")
        assert "Twemoji" in row["source"]
        drawing = drawn[row["file_name"]]
        assert drawing.values == {a: row[a] for a in drawing.values}
        if row["file_name"] not in seen:
            content = (full / "data" / row["file_name"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == row["sha256"]
            with Image.open(full / "data" / row["file_name"]) as picture:
                assert np.array_equal(np.asarray(picture), drawing.image)
        seen.add(row["file_name"])
    assert len(seen) == len(list((full / "data" / "images").iterdir())) == 41 * 15 + 48 + 50


def test_other_trainers_read_the_folder_as_it_is(
    full: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The imagefolder of `datasets` gives `image`, `text` and the rest, offline."""
    import datasets

    datasets.disable_progress_bars()
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(full / "data"), split="train", cache_dir=str(tmp_path)
    )
    assert loaded.column_names == ["image", *COLUMNS[1:]]
    assert loaded["text"][:] == [row["text"] for row in rows]
    assert loaded["season"][:] == [row["season"] for row in rows]
    assert loaded[0]["image"].size == (64, 64)


def test_our_own_training_reads_it(full: Path, rows: list[dict[str, Any]]) -> None:
    """The trainer takes every row, and finds every cell that its decks need."""
    attributes = {a: load_attribute(a) for a in ("presentation", "skin_tone", "season")}
    read = load_rows(full / "data", attributes)
    assert len(read) == len(rows)
    for kind in ("neutral", "explicit"):
        decks = build_decks([row for row in read if row.kind == kind], attributes, seed=0)
        assert len(decks) == 44


def test_exemplars_are_every_drawing_once_with_its_labels(
    full: Path, art: tuple[Drawing, ...], world: World
) -> None:
    """All splits, scenes and controls; the classifier that is made of them reads its own right."""
    exemplars = read_rows(full / "exemplars")
    expected = [
        {
            "file_name": f"images/{d.name}.png",
            "subject": d.thing.id,
            **{a: d.values.get(a) for a in world.values},
        }
        for d in art
    ]
    assert [{k: v for k, v in row.items() if k != "sha256"} for row in exemplars] == expected
    assert len(exemplars) == 57 * 15 + 48 + 50
    classifier = fit_folder(full / "exemplars", {a: list(v) for a, v in world.values.items()})
    some = art[::40]
    read = classifier.read(np.stack([d.image for d in some]), ["subject", *PEOPLE])
    assert [read["subject"].values[k] for k in read["subject"].value_n] == [
        d.thing.id for d in some
    ]
    for attribute in PEOPLE:
        for drawing, k in zip(some, read[attribute].value_n, strict=True):
            if isinstance(drawing.thing, Subject):
                assert read[attribute].values[k] == drawing.values[attribute]


def test_the_card_tells_balance_sources_limits_and_caveats(full: Path, world: World) -> None:
    """A reader of README.md sees what is in it, what was left out, and what labels do not say."""
    card = (full / "data" / "README.md").read_text("utf-8")
    assert card.startswith("---\npretty_name: Emoji World, balanced\nlicense: cc-by-4.0\n")
    assert "| presentation | woman | 33.3% | 33.3% | 33.3% - 33.3% | 205 |" in card
    for word in ("CC-BY 4.0", "Twitter, Inc", "not who anyone is", "christmas-market-sweden"):
        assert word in card
    assert all(s.id in card for s in world.subjects)
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", card):
        with Image.open(full / "data" / picture) as sheet:
            assert sheet.width == 1200
    assert "CC-BY 4.0" in (full / "exemplars" / "README.md").read_text("utf-8")


def test_the_same_command_again_does_nothing(
    tmp_path: Path, small_art: tuple[Drawing, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says that both are complete, and touches no file."""
    build.main(words(tmp_path))
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    capsys.readouterr()
    assert build.main(words(tmp_path)) == 0
    assert capsys.readouterr().out.count("complete already, nothing to do") == 2
    del before[tmp_path / "data" / ".lock"], before[tmp_path / "exemplars" / ".lock"]
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())


def test_the_same_command_gives_the_same_bytes(
    tmp_path: Path, small_art: tuple[Drawing, ...]
) -> None:
    """Two folders have one sha256, the one that the manifest states; another seed has another."""
    for name in ("a", "b"):
        build.main(words(tmp_path / name, "--captions", "2"))
    build.main(words(tmp_path / "c", "--captions", "2", "--seed", "1"))
    for part in ("data", "exemplars"):
        hashes = [sha256_folder(tmp_path / name / part) for name in "abc"]
        assert hashes[0] == hashes[1] == read_manifest(tmp_path / "a" / part)["facts"]["sha256"]
        assert (hashes[0] == hashes[2]) == (part == "exemplars")


def test_killed_while_writing_it_starts_over_safely(
    tmp_path: Path, art: tuple[Drawing, ...], monkeypatch: pytest.MonkeyPatch, full: Path
) -> None:
    """SIGKILL leaves nothing that looks complete; the same command then ends in the same bytes."""
    child = subprocess.run(
        [sys.executable, "-c", DIES_WHILE_WRITING, *words(tmp_path)], check=False
    )
    assert child.returncode == -signal.SIGKILL
    assert read_manifest(tmp_path / "data")["status"] == "running"
    visible = {f.name for f in (tmp_path / "data").iterdir() if not f.name.startswith(".")}
    assert visible == {"manifest.json"}
    monkeypatch.setattr(build, "drawings", lambda world: iter(art))
    build.main(words(tmp_path))
    assert read_manifest(tmp_path / "data")["status"] == "complete"
    assert sha256_folder(tmp_path / "data") == sha256_folder(full / "data")


def test_failed_after_the_pictures_it_goes_on(
    tmp_path: Path, small_art: tuple[Drawing, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """metadata.jsonl comes last: without it no reader takes the folder for a dataset."""

    def broken(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(build, "contact_sheet", broken)
        with pytest.raises(OSError, match="disk full"):
            build.main(words(tmp_path))
    assert read_manifest(tmp_path / "data")["status"] == "failed"
    assert not (tmp_path / "data" / "metadata.jsonl").exists()
    assert build.main(words(tmp_path)) == 0
    assert len(read_rows(tmp_path / "data")) == (30 + 16) * 8 + 2 * 4


def test_other_settings_in_the_same_folder_are_refused(
    tmp_path: Path, small_art: tuple[Drawing, ...]
) -> None:
    """The difference is shown; another folder for the other settings shares the exemplars."""
    build.main(words(tmp_path))
    with pytest.raises(UserError, match="captions: 4 -> 1"):
        build.main(words(tmp_path, "--captions", "1"))
    assert build.main(words(tmp_path, "--captions", "1", "--out", str(tmp_path / "other"))) == 0


def test_a_dry_run_counts_and_writes_nothing(
    tmp_path: Path, small_art: tuple[Drawing, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Balance, counts and settings are printed; the folders are not made."""
    assert build.main(words(tmp_path, "--dry-run")) == 0
    out = capsys.readouterr().out
    assert "48 pictures" in out and "376 rows" in out and "captions: 4" in out
    assert list(tmp_path.iterdir()) == []


def test_json_is_all_that_stands_on_stdout(
    tmp_path: Path, small_art: tuple[Drawing, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """--json gives other programs the counts and the balance; words go to stderr."""
    assert build.main(words(tmp_path, "--json")) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["folders"][str(tmp_path / "data")] == {"pictures": 48, "rows": 376}
    assert {share["attribute"] for share in result["balance"]} == {*PEOPLE, "season"}
    assert "written" in said.err


def test_another_target_is_met(tmp_path: Path, small_art: tuple[Drawing, ...]) -> None:
    """Pictures are repeated to meet it, in every subject, and a value of target 0 is left out."""
    targets = (
        "{presentation: {woman: 0.5, man: 0.5, person: 0}, season: {winter: 0.25, summer: 0.75}}"
    )
    build.main(words(tmp_path, "--targets", targets))
    neutral = [row for row in read_rows(tmp_path / "data") if row["kind"] == "neutral"]
    for subject in ("mechanic", "juggling"):
        own = Counter(row["presentation"] for row in neutral if row["subject"] == subject)
        assert own == {"woman": 20, "man": 20}
    seasons = Counter(row["season"] for row in neutral if row["subject"] == "christmas-market")
    assert seasons["summer"] == 3 * seasons["winter"]
    assert not list((tmp_path / "data" / "images").glob("*-person-*"))


def test_fewer_captions_are_spread_over_the_templates(
    tmp_path: Path, small_art: tuple[Drawing, ...]
) -> None:
    """With one caption a picture, pictures of a subject still come in different templates."""
    build.main(words(tmp_path, "--captions", "1"))
    rows = read_rows(tmp_path / "data")
    assert len(rows) == (30 + 16) * 2 + 2
    texts = {r["text"] for r in rows if r["subject"] == "mechanic" and r["kind"] == "neutral"}
    assert len(texts) >= 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--caption", "2"], "there is no option --caption"),
        (["--captions", "5"], "captions must be <= 4 (the plain templates), got 5"),
        (["--captions", "0"], "captions must be an integer >= 1, got 0"),
        (["--attributes", "age_group"], "attributes must be different ones of presentation"),
        (["--attributes", "season", "season"], "got season twice"),
        (["--targets", "{serving: {beer: 1}}"], "targets.serving must be one of attributes"),
        (["--targets", "{season: {spring: 1}}"], "targets.season must name exactly"),
        (["--targets", "{season: {winter: 2, summer: -1}}"], "targets.season must be shares >= 0"),
        (["--targets", "{season: {winter: 0.31831, summer: 0.68169}}"], "targets: no number of"),
        (["--pictures_per_subject", "14"], "pictures_per_subject must be >= 15, got 14"),
        (["--exemplars", "SAME"], "exemplars must be another folder than out"),
        (["--config", "no/such.yaml"], "no/such.yaml"),
    ],
)
def test_wrong_settings_end_at_once(
    given: list[str],
    said: str,
    tmp_path: Path,
    small_art: tuple[Drawing, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, what is wrong with its dotted path, and nothing written."""
    given = [str(tmp_path / "data") if word == "SAME" else word for word in given]
    assert run_program(build.main, words(tmp_path, *given)) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_left_alone(
    tmp_path: Path, small_art: tuple[Drawing, ...]
) -> None:
    """A user's own pictures are not mixed with ours."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.png").write_bytes(b"")
    with pytest.raises(UserError, match="holds files but no manifest"):
        build.main(words(tmp_path))
    assert (tmp_path / "data" / "mine.png").exists()


def test_it_runs_as_a_file(tmp_path: Path) -> None:
    """`python data/build.py --help`: none of its neighbours hides a module that it needs."""
    command = [sys.executable, str(build.__file__), "--help"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "pictures_per_subject" in said.stdout


def test_scenes_come_first(rows: list[dict[str, Any]], world: World) -> None:
    """A reader that infers types from the beginning must not take `season` for an empty column."""
    of_scenes = [row["subject"] in {scene.id for scene in world.scenes} for row in rows]
    assert of_scenes == sorted(of_scenes, reverse=True)
    assert of_scenes[0] and not of_scenes[-1]

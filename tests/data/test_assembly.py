"""Promises of assembly: the folder that is written, who reads it, and that it is whole or not."""

import dataclasses
import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from unskew.attributes import load_attribute
from unskew.data import imagefolder
from unskew.data.assembly import Assembly, assemble, assembly_lines
from unskew.data.assembly_options import AssemblySettings
from unskew.data.imagefolder import picture_bytes, write_imagefolder
from unskew.data.picture_bytes import without_metadata
from unskew.data.rows import Drawn, Row
from unskew.errors import UserError
from unskew.runs import read_manifest, sha256_folder
from unskew.train.rows import load_rows

COLUMNS = (
    "file_name text kind subject presentation season explicit_text weight split source license "
    "sha256 labelled_by"
).split()


def made(file: Path, kind: str, colour: int) -> Row:
    """A picture file, and its row without labels."""
    image = Image.new("RGB", (24, 16), (colour, 255 - colour, 90))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = (6 if kind == "turned" else 1), "Secret Camera"
    content = io.BytesIO()
    if kind == "cmyk":
        image.convert("CMYK").save(content, "jpeg")
    elif kind == "png":
        notes = PngImagePlugin.PngInfo()
        notes.add_text("comment", "Secret Camera")
        image.save(content, "png", pnginfo=notes)
    else:
        image.save(content, "jpeg", exif=exif, quality=95)
    file.write_bytes(content.getvalue())
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    plain, suffix = kind in ("jpeg", "png"), ".png" if kind == "png" else ".jpg"
    return Row(
        file.name, file, "", None, {}, "my phone", "CC0-1.0", sha256, None, None, suffix, plain
    )


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Of a mechanic 9 and of a market 5 pictures with labels, one unknown, two of an apple."""
    folder = tmp_path_factory.mktemp("photos of ünïcode")
    kinds = ("jpeg", "turned", "cmyk", "png")
    found = []
    labels: list[tuple[str, dict[str, str | None], str | None]] = [
        *[("mechanic", {"presentation": v}, c) for v, c in (
            ("woman", "a female mechanic & her car"), ("woman", None), ("man", "a mechanic"),
            ("man", None), ("man", "a man mechanic"), ("man", "a woman mechanic"), ("man", None),
            ("person", None), ("person", "an androgynous mechanic"))],
        ("mechanic", {"presentation": None}, None),
        *[("market", {"season": v}, None) for v in [*["winter"] * 3, "summer", "summer"]],
        ("red apple", {}, "an apple"), ("red apple", {}, None),
    ]  # fmt: skip
    for n, (subject, own, caption) in enumerate(labels):
        row = made(folder / f"a picture {n}.bin", kinds[n % 4], 10 * n)
        by = {id: "column who" for id, value in own.items() if value}
        found.append(
            dataclasses.replace(row, subject=subject, labels=own, caption=caption, labelled_by=by)
        )
    return found


def asked(out: Path, **more: Any) -> AssemblySettings:
    given = {"attributes": ["presentation", "season"], **more.pop("balance", {})}
    return AssemblySettings.model_validate({"out": out, "balance": given, **more})


def written(a: Assembly) -> list[Path]:
    for folder in a.folders:
        assert write_imagefolder(folder, [])
    return [folder.path for folder in a.folders]


def read(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Path:
    """What is written with the user's captions; change only a copy."""
    out = tmp_path_factory.mktemp("out") / "mine"
    (path,) = written(assemble(rows, [], asked(out, captions={"source": "own"})))
    return path


def test_the_folder_has_the_columns_and_the_balance(folder: Path) -> None:
    """Every cell equally often in every subject, neutral as explicit; controls besides."""
    lines = read(folder)
    assert all(list(line) == COLUMNS for line in lines)
    counts = Counter((x["subject"], x["kind"], x["presentation"] or x["season"]) for x in lines)
    for kind in ("neutral", "explicit"):
        assert [counts["mechanic", kind, v] for v in ("woman", "man", "person")] == [2, 2, 2]
        assert [counts["market", kind, v] for v in ("winter", "summer")] == [2, 2]
    assert counts["red apple", "control", None] == 2
    assert {x["weight"] for x in lines} == {1.0} and {x["split"] for x in lines} == {"train"}


def test_pictures_are_upright_rgb_and_tell_nothing_of_the_camera(
    folder: Path, rows: list[Row]
) -> None:
    """Plain ones keep their pixels to the bit, others become PNG; sha256 is of what lies there."""
    by_sha = {row.sha256[:16]: row for row in rows}
    for line in read(folder):
        content = (folder / line["file_name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == line["sha256"]
        assert b"Secret Camera" not in content
        row = by_sha[line["file_name"].rpartition("-")[2].partition(".")[0]]
        with Image.open(row.file) as old, Image.open(folder / line["file_name"]) as new:
            assert new.mode == "RGB" and not new.getexif()
            turned = old.getexif().get(0x0112) == 6
            assert new.size == ((16, 24) if turned else (24, 16))
            if row.plain:
                assert b"Secret Camera" in row.file.read_bytes()
                assert np.array_equal(np.asarray(new), np.asarray(old))
    assert len(list((folder / "images").iterdir())) == 12


def test_other_trainers_read_the_folder_as_it_is(folder: Path, tmp_path: Path) -> None:
    """`datasets` gives diffusers' example trainers `image` and `text`, of the types they expect."""
    import datasets

    datasets.disable_progress_bars()
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path))
    assert list(loaded) == ["train"]
    train = loaded["train"]
    assert train.column_names == ["image", *COLUMNS[1:]]
    assert isinstance(train.features["image"], datasets.Image)
    kinds = {name: train.features[name].dtype for name in COLUMNS[1:]}
    assert kinds.pop("weight") == "float64" and set(kinds.values()) == {"string"}
    assert train["text"][:] == [line["text"] for line in read(folder)]
    # as train_text_to_image_lora.py does it: the columns by name, each picture converted to RGB
    assert all(image.convert("RGB").size for image in train[:3]["image"])


def test_our_own_training_reads_it(folder: Path) -> None:
    """Every row, with its labels."""
    attributes = {a: load_attribute(a) for a in ("presentation", "season")}
    assert len(load_rows(folder, attributes)) == len(read(folder))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:rdflib")
def test_croissant_validates_and_reads_the_same_rows(folder: Path) -> None:
    """By MLCommons' own library; the responsible-AI fields are filled in."""
    mlc = pytest.importorskip("mlcroissant")
    dataset = mlc.Dataset(folder / "croissant.json")
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    said = dataset.metadata
    assert "presentation" in " ".join(said.data_biases) and "not who anyone is" in " ".join(
        said.personal_sensitive_information
    )
    assert said.data_collection and said.data_limitations and said.data_use_cases
    records = list(dataset.records("rows"))
    assert [r["rows/text"].decode() for r in records] == [line["text"] for line in read(folder)]


def test_captions_are_made_neutral_and_every_change_is_logged(folder: Path) -> None:
    """The log has before, after and each change; the label's word goes before the caption's."""
    lines = (folder / "caption-changes.jsonl").read_text("utf-8").splitlines()
    log = {x["before"]: x for x in map(json.loads, lines)}
    one = log["a female mechanic & her car"]
    assert one["neutral"] == "a mechanic & their car"
    assert [(c["words"], c["instead"]) for c in one["changes"]] == [
        ("female", ""),
        ("her", "their"),
    ]
    for line in read(folder):
        if line["kind"] == "explicit" and line["subject"] == "mechanic":
            word = {"person": "androgynous"}.get(line["presentation"], line["presentation"])
            assert word in line["text"] or "female" in line["text"]
        if line["kind"] == "neutral":
            assert "woman" not in line["text"] and "female" not in line["text"]


def test_the_card_tells_balance_sources_limits_and_caveats(folder: Path) -> None:
    """Before and after, with the picture; what was left out and why; what labels do not say."""
    text = (folder / "README.md").read_text("utf-8")
    assert text.startswith('---\npretty_name: "A balanced dataset"\nlicense: cc0-1.0\n')
    assert (
        "| presentation | man | 33.3% | 55.6% (55.6% - 55.6%) | 33.3% (33.3% - 33.3%) | 2 |" in text
    )
    for word in ("1: its label is unknown", "my phone", "not who anyone is", "ask before you use"):
        assert word in text
    with Image.open(folder / "balance.png") as picture:
        assert picture.width == 900 and len(picture.getcolors(100_000)) > 5


def test_what_users_write_cannot_break_the_card(rows: list[Row], tmp_path: Path) -> None:
    """Markdown, HTML and YAML in titles, subjects and sources are shown as text."""
    evil = '"\nlicense: mit\n# x <script>alert(1)</script> | [a](javascript:b)'
    bad = [dataclasses.replace(row, subject=row.subject + evil, source=evil) for row in rows]
    a = assemble(
        bad, [], asked(tmp_path, card={"title": evil, "consent": evil}), sections={evil: "ok"}
    )
    text = a.folders[0].card
    assert "<script>" not in text and "[a](" not in text and "\nlicense: mit" not in text
    assert text.split("---")[1].count("\n") == 7


def test_the_same_again_is_complete_and_gives_the_same_bytes(
    rows: list[Row], folder: Path, tmp_path: Path
) -> None:
    """In any order of rows; other settings in the same folder are refused with the difference."""
    own = {"source": "own"}
    again = assemble(rows, [], asked(folder, captions=own))
    assert [write_imagefolder(f, []) for f in again.folders] == [False]
    (other,) = written(assemble(rows, [], asked(tmp_path / "b", captions=own)))
    assert sha256_folder(other) == sha256_folder(folder) == read_manifest(folder)["facts"]["sha256"]
    with pytest.raises(UserError, match=r"captions.count: 1 -> 2"):
        write_imagefolder(
            assemble(rows, [], asked(folder, captions={**own, "count": 2})).folders[0], []
        )


def test_stopped_between_pictures_it_goes_on(
    rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reader takes what is there for a dataset; the pictures that were written are kept."""
    (plan,) = assemble(rows, [], asked(tmp_path / "a")).folders
    calls: list[Path] = []

    def dying(picture: imagefolder.PictureFile) -> bytes:
        calls.append(picture.file)
        if len(calls) > 6:
            raise OSError("disk full")
        return picture_bytes(picture)

    with monkeypatch.context() as patch:
        patch.setattr(imagefolder, "picture_bytes", dying)
        with pytest.raises(OSError, match="disk full"):
            write_imagefolder(plan, [])
    assert not (plan.path / "metadata.jsonl").exists()
    there = {f: f.stat().st_mtime_ns for f in (plan.path / "images").glob("[!.]*")}
    assert len(there) == 6
    assert write_imagefolder(plan, [])
    assert all(f.stat().st_mtime_ns == time for f, time in there.items())
    (other,) = written(assemble(rows, [], asked(tmp_path / "b")))
    assert sha256_folder(other) == sha256_folder(plan.path)


def test_a_picture_that_changed_since_it_was_looked_at_stops_the_build(
    rows: list[Row], tmp_path: Path
) -> None:
    """Its label would be another picture's."""
    file = tmp_path / "x.jpg"
    file.write_bytes(rows[0].file.read_bytes())
    one = dataclasses.replace(rows[0], file=file)
    (plan,) = assemble([one, *rows[1:]], [], asked(tmp_path / "out")).folders
    picture = next(p for p in plan.pictures if p.file == file)
    file.write_bytes(rows[1].file.read_bytes())
    with pytest.raises(UserError, match="changed while the dataset was made"):
        picture_bytes(picture)


def test_held_out_subjects_and_their_likes_are_in_folders_of_their_own(
    rows: list[Row], tmp_path: Path
) -> None:
    """Neither by name nor by bytes does anything of them lie in the training folder."""
    like = rows[0].name  # a mechanic that looks like a picture of the market
    settings = asked(
        tmp_path / "a", splits={"held_out": ["market"], "validation_share": 0.4}, seed=1
    )
    a = assemble(rows, [(rows[10].name, like)], settings)
    train, validation, held_out = written(a)
    assert [p.name for p in (train, validation, held_out)] == ["a", "a-validation", "a-held-out"]
    lines = {path.name: read(path) for path in (train, validation, held_out)}
    files = {name: {x["file_name"] for x in found} for name, found in lines.items()}
    assert not files["a"] & files["a-held-out"] and not files["a"] & files["a-validation"]
    assert {x["subject"] for x in lines["a"]} == {"mechanic", "red apple"}
    assert any(rows[0].sha256[:16] in f for f in files["a-held-out"])
    assert not any(rows[0].sha256[:16] in f for f in files["a"])
    assert {x["split"] for x in lines["a-held-out"]} == {"held_out"}
    assert load_rows(held_out, {}) == ()
    assert "Not for training" in (held_out / "README.md").read_text()
    assert any("look like held-out ones" in note for note in a.notes)


def test_what_is_missing_is_asked_for_in_the_datasets_own_words(
    rows: list[Row], tmp_path: Path
) -> None:
    """Then, with what was drawn, the folder holds it, and says of each what it was drawn with."""
    settings = asked(tmp_path / "a", balance={"by": "synthesis"})
    a = assemble(rows, [], settings, also={"judge": ("presentation",)})
    assert not a.folders and "to be drawn" in "\n".join(assembly_lines(a))
    lacks = {(m.subject, *m.labels.values()): m.count for m in a.missing}
    assert lacks == {
        ("mechanic", "woman"): 3,
        ("mechanic", "person"): 3,
        ("market", "summer"): 1,
    } | {("judge", v): 1 for v in ("woman", "man", "person")}
    woman = next(
        m for m in a.missing if m.subject == "judge" and m.labels["presentation"] == "woman"
    )
    assert a.wordings(woman)[:2] == ("a photo of a woman judge", "a woman judge")
    drawn = []
    for m in a.missing:
        for n in range(m.count):
            file = tmp_path / f"{m.subject}{n}{'-'.join(m.labels.values())}.png"
            row = made(file, "png", hash_of(file.name))
            drawn.append(
                dataclasses.replace(
                    row,
                    subject=m.subject,
                    labels=m.labels,
                    drawn=Drawn(a.wordings(m)[0], n, "f" * 64, "ddim"),
                )
            )
    (path,) = written(
        assemble([*rows, *drawn], [], settings, drawn=True, also={"judge": ("presentation",)})
    )
    lines = read(path)
    assert Counter(x["presentation"] for x in lines if x["kind"] == "neutral") == Counter(
        {"woman": 6, "man": 6, "person": 6, None: 6}
    )
    judges = [x for x in lines if x["subject"] == "judge"]
    assert {x["prompt"] for x in judges} >= {"a photo of a woman judge"}
    assert {type(x["seed"]) for x in judges} == {int}


def hash_of(name: str) -> int:
    return hashlib.sha256(name.encode()).digest()[0]


def test_weights_are_written_and_training_reads_them(rows: list[Row], tmp_path: Path) -> None:
    """Every labelled picture is there; weighted shares are the target's."""
    (path,) = written(assemble(rows, [], asked(tmp_path / "a", balance={"by": "weights"})))
    attributes = {a: load_attribute(a) for a in ("presentation", "season")}
    neutral = [r for r in load_rows(path, attributes) if r.kind == "neutral"]
    assert len(neutral) == 14
    sums: Counter[str] = Counter()
    for row in neutral:
        for value in row.values.values():
            sums[value] += row.weight  # type: ignore[assignment]
    assert sums["woman"] == pytest.approx(3) and sums["man"] == pytest.approx(3)
    assert sums["winter"] == pytest.approx(2.5)


def test_the_plan_is_shown_before_anything_is_written(rows: list[Row], tmp_path: Path) -> None:
    """Shares, counts, what is left out, captions that change or are odd; no folder is made."""
    odd = [*rows, dataclasses.replace(rows[6], name="odd", caption="the one on the left is male")]
    wanted = asked(tmp_path / "a", captions={"source": "own"}, balance={"most_repeats": 4})
    said = "\n".join(assembly_lines(assemble(odd, [], wanted)))
    for part in (
        "before",
        "left out: 1 pictures",
        "captions made neutral",
        "may name presentation",
    ):
        assert part in said
    assert not (tmp_path / "a").exists()
    nothing: Sequence[Row] = [rows[9]]
    with pytest.raises(UserError, match="cannot be met"):
        assemble(nothing, [], asked(tmp_path / "b"))


def test_what_is_no_picture_is_left_to_the_decoder() -> None:
    """Truncated and other files are never cut by the byte."""
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "png")
    whole = png.getvalue()
    assert without_metadata(whole) == whole
    for content in (whole[:-6], b"\xff\xd8\xff\xe0\x00", b"GIF89a", b"", whole[:30]):
        assert without_metadata(content) is None

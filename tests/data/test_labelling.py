"""Promises of labels by classifiers: only where one is unknown, only where it is sure enough."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unskew.attributes import load_attribute
from unskew.data import labelling
from unskew.data.build_setup import Setup
from unskew.data.label_check import agreement, write_check
from unskew.data.label_options import LabelSettings
from unskew.data.labelling import label, label_readers
from unskew.data.rows import Row
from unskew.errors import UserError
from unskew.evaluate.classifiers.reading import Images, Readings
from unskew.processes import Processes

VALUES = ("woman", "man", "person")
READER = {"kind": "exemplars", "attributes": ["presentation"], "folder": "x"}
SETTINGS = LabelSettings(classifiers={"grey": READER}, floor=0.8)  # type: ignore[dict-item]


class Grey:
    """Dark is a woman, bright a man, in between nobody; as sure as it is far from the middle."""

    name = "grey"
    attributes = ("presentation",)
    looked = 0

    def read(self, images: Images, attributes: Sequence[str]) -> dict[str, Readings]:
        """By the mean of each picture."""
        Grey.looked += len(images)
        means = np.array([image.mean() for image in images])
        value_n = np.where(means < 100, 0, np.where(means > 150, 1, -1))
        sure = np.abs(means - 127) / 127
        both = np.stack([sure, sure, np.zeros_like(sure)], axis=1).astype(np.float32)
        return {"presentation": Readings(VALUES, value_n, both)}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """40 grey pictures, from dark to bright; every tenth is labelled already."""
    monkeypatch.setattr("unskew.data.checking.load_classifier", lambda *words: Grey())
    Grey.looked = 0
    found = []
    for n in range(40):
        file = tmp_path / f"{n}.png"
        Image.new("RGB", (4, 4), (n * 6,) * 3).save(file)
        known = {"presentation": "person" if n % 10 == 0 else None}
        by = {"presentation": "column who"} if n % 10 == 0 else {}
        found.append(Row(file.name, file, "nurse", None, known, sha256=f"{n:064d}", labelled_by=by))
    return found


def setup_in(out: Path, *processes: int) -> Setup:
    attributes = {"presentation": load_attribute("presentation")}
    return Setup(out, attributes, {}, Processes(*processes) if processes else Processes(0, 1))


def labelled(rows: list[Row], setup: Setup, settings: LabelSettings = SETTINGS) -> list[Row]:
    readers = label_readers(settings, setup)
    return list(label(iter(rows), iter(rows), readers, settings.floor, setup))


def test_unknown_labels_are_read_and_known_ones_stay(rows: list[Row], tmp_path: Path) -> None:
    """A label under the floor, or that cannot be read, stays unknown; who gave each is written."""
    for n, row in enumerate(labelled(rows, setup_in(tmp_path / "out"))):
        sure = abs(n * 6 - 127) / 127
        expected = "woman" if n * 6 < 100 else "man" if n * 6 > 150 else None
        if n % 10 == 0:
            assert row == rows[n]
        elif expected is None or sure < 0.8:
            assert row.labels["presentation"] is None and not row.labelled_by
        else:
            assert row.labels["presentation"] == expected
            assert row.labelled_by == {"presentation": "grey"}
    assert Grey.looked == 36


def test_a_picture_is_read_once(rows: list[Row], tmp_path: Path) -> None:
    """The same again reads nothing; another floor neither; a new picture only its own part."""
    setup = setup_in(tmp_path / "out")
    first = labelled(rows, setup)
    Grey.looked = 0
    assert labelled(rows, setup) == first
    loose = labelled(rows, setup, SETTINGS.model_copy(update={"floor": 0.0}))
    assert sum(r.labels["presentation"] is None for r in loose) < sum(
        r.labels["presentation"] is None for r in first
    )
    assert Grey.looked == 0
    labelled([*rows[:-1], replace(rows[-1], sha256="f" * 64)], setup)
    assert 0 < Grey.looked <= labelling.PART


def test_processes_share_the_parts(
    rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes read disjoint parts that are all of them, and get the labels that one gets."""
    alone = labelled(rows, setup_in(tmp_path / "alone"))
    Grey.looked = 0
    monkeypatch.setattr(Processes, "wait", lambda self: None)
    with pytest.raises(FileNotFoundError):  # nobody waited for the other
        labelled(rows, setup_in(tmp_path / "two", 1, 2))
    assert 0 < Grey.looked < 36
    assert labelled(rows, setup_in(tmp_path / "two", 0, 2)) == alone
    assert Grey.looked == 36


def test_a_person_checks_a_sample(rows: list[Row], tmp_path: Path) -> None:
    """The page tells no label, and the answers say how often each labeller was right."""
    setup = setup_in(tmp_path / "out")
    given = labelled(rows, setup, SETTINGS.model_copy(update={"floor": 0.0}))
    sample = write_check(given, 12, setup)
    assert sample is not None and len({task.picture for task in sample.tasks}) == 12
    assert write_check(given[::-1], 12, setup) == sample
    page = (setup.work / "label-check.html").read_text("utf-8")
    assert page.count("data:image/webp") == 12 and "column who" not in page and ".png" not in page
    answers = {task.id: task.value for task in sample.tasks}
    first, second = sample.tasks[:2]
    answers[first.id], answers[second.id] = None, "nobody"
    file = tmp_path / "labels-ana.json"
    said = {"schema_version": 1, "run": "dataset", "sample": sample.sha256, "rater": "ana"}
    file.write_text(json.dumps({**said, "labels": answers}), "utf-8")
    lines = agreement(sample, [file]).splitlines()[2:]
    counts = [re.findall(r"(\d+) of (\d+) .*\| (\d+) \|", line)[0] for line in lines]
    sums = [sum(int(count[place]) for count in counts) for place in range(3)]
    assert sums == [10, 11, 1]
    with pytest.raises(UserError, match="answers another page"):
        agreement(write_check(given, 11, setup), [file])


@pytest.mark.parametrize(
    ("attributes", "says"),
    [(["subject"], "cannot label the subject"), (["season"], "'?season'? is none of this")],
)
def test_classifiers_read_what_is_balanced(
    rows: list[Row], tmp_path: Path, attributes: Any, says: str
) -> None:
    """A classifier for anything else is an error that names what there is."""
    wrong = LabelSettings(classifiers={"grey": {**READER, "attributes": attributes}})  # type: ignore[dict-item]
    with pytest.raises(UserError, match=says):
        labelled(rows, setup_in(tmp_path / "out"), wrong)

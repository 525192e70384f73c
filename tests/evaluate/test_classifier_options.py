"""The settings of classifiers: which reads what, and what does not fit is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest
import torch

from unskew.errors import UserError
from unskew.evaluate.classifiers.face_finder import OnFaces
from unskew.evaluate.classifiers.loading import check_readers, load_classifier
from unskew.evaluate.classifiers.options import ClassifierSettings, ZeroShotSettings

CPU = torch.device("cpu")
VALUES = {
    "presentation": ("woman", "man"),
    "age": ("young", "middle_aged", "older"),
    "monk": tuple(f"mst-{k}" for k in range(1, 11)),
}
FULL = {"woman": ["a woman"], "man": ["a man"]}


def settings(**given: Any) -> ClassifierSettings:
    """One classifier's settings as a study reads them."""
    adapter: pydantic.TypeAdapter[ClassifierSettings] = pydantic.TypeAdapter(ClassifierSettings)
    return adapter.validate_python({"attributes": ["presentation"], **given})


def zero_shot(**given: Any) -> dict[str, Any]:
    return {"kind": "zero_shot", "model": "m", "phrases": {"presentation": FULL}, **given}


def test_every_measured_attribute_has_exactly_one_reader() -> None:
    """None and two are refused, with who reads what; subject may have none."""
    faces = settings(kind="faces")
    tones = settings(kind="skin_tone", attributes=["monk"])
    check_readers({"f": faces, "t": tones}, ["presentation", "monk", "subject"])
    with pytest.raises(UserError, match=r"age is measured, but none reads it .*presentation, monk"):
        check_readers({"f": faces, "t": tones}, ["age"])
    with pytest.raises(UserError, match="f and g both read presentation"):
        check_readers({"f": faces, "g": settings(**zero_shot())}, ["presentation"])


def test_faces_and_tones_are_loaded_from_their_settings() -> None:
    """Names say the weights by sha256."""
    faces = load_classifier(settings(kind="faces", attributes=["age", "presentation"]), VALUES, CPU)
    assert faces.attributes == ("age", "presentation")
    assert "gender-v1.onnx sha256 d4c4116cf720" in faces.name
    tones = load_classifier(settings(kind="skin_tone", attributes=["monk"]), VALUES, CPU)
    assert tones.attributes == ("monk",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (zero_shot(phrases={"age": {}}), r"phrases must have exactly the attributes"),
        (zero_shot(phrases={"presentation": {"woman": ["w"]}}), r"exactly \['woman', 'man'\]"),
        (zero_shot(templates=["a photo"]), r"templates must each hold \{x\}"),
        (zero_shot(), "revision must be a commit"),
        (zero_shot(attributes=["subject"]), "zero_shot cannot read subject"),
        (
            {
                "kind": "image_model",
                "model": "m",
                "labels": {"presentation": {"child": ["kid"]}},
            },
            r"labels.presentation must have some of \['woman', 'man'\]",
        ),
        (
            {
                "kind": "question",
                "model": "m",
                "questions": {},
                "answers": {"presentation": FULL},
            },
            "questions must have exactly",
        ),
        ({"kind": "faces", "youngest": {"young": 3}}, "youngest must begin at 0"),
        ({"kind": "skin_tone"}, "presentation has 2 values"),
        ({"kind": "exemplars", "folder": "nowhere"}, "nowhere has no metadata.jsonl"),
    ],
)
def test_settings_that_do_not_fit_are_refused(given: dict[str, Any], message: str) -> None:
    """Before any weights are looked for."""
    with pytest.raises(UserError, match=message):
        load_classifier(settings(**given), VALUES, CPU)


def test_a_reader_can_be_shown_the_face_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`crop: face` wraps the reader; its name says so."""
    from unskew.evaluate.classifiers import loading

    class Inner:
        name, attributes = "inner", ("presentation",)

    monkeypatch.setattr(loading, "load_zero_shot", lambda *args, **more: Inner())
    asked = settings(**zero_shot(crop="face", crop_margin=0.5))
    assert isinstance(asked, ZeroShotSettings)
    reader = load_classifier(asked, VALUES, CPU)
    assert isinstance(reader, OnFaces) and reader.margin == 0.5
    assert "on faces" in reader.name

"""Measuring pictures: once each, by any features, with gaps where pictures are missing."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from transformers import AutoModel, AutoTokenizer

from unskew.errors import UserError
from unskew.evaluate import measuring
from unskew.evaluate.agreement import AgreementSettings, load_agreement
from unskew.evaluate.classify import ArmPictures, ReadingAhead
from unskew.evaluate.features import FeatureSettings, load_features, pooled_pixels
from unskew.evaluate.generate import Cell
from unskew.evaluate.measuring import Meter
from unskew.prompts import Prompt

tiny = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parents[1] / "oracles" / "tiny_readers.py"))
)
CPU = torch.device("cpu")
CELLS = [
    Cell(Prompt(f"{suite}-{n}", f"a photo of a {text}", suite, text, (), {"subject": text}), seed)
    for suite, texts in (("people", ("woman", "man")), ("things", ("room", "picture")))
    for n, text in enumerate(texts)
    for seed in (5, 6, 7)
]
HALF = (0.5, 0.5, 0.5)
PUBLISHED = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "dinov2": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation of colours that the architectures were trained with."""
THINGS = [cell for cell in CELLS if cell.prompt.suite == "things"]


@pytest.fixture(scope="session")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of tiny models with random weights."""
    root = tmp_path_factory.mktemp("eyes")
    return {
        "clip": str(tiny.save_clip(root / "clip")),
        "siglip": str(tiny.save_siglip(root / "siglip")),
        "dinov2": str(tiny.save_dinov2(root / "dinov2")),
        "vit": str(tiny.save_vit(root / "vit", ["a", "b"])),
    }


def arm(folder: Path, name: str = "base", seed: int = 0) -> ArmPictures:
    """An arm's pictures, of the size that the models see, drawn by chance."""
    random = np.random.default_rng(seed)
    files = {cell: cell.file(folder / name) for cell in CELLS}
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)
    return ArmPictures(name, files, {}, {})


def images(pictures: ArmPictures, cells: Sequence[Cell]) -> list[NDArray[np.uint8]]:
    return [np.asarray(Image.open(pictures.files[cell])) for cell in cells]


def prepared(
    pictures: Sequence[NDArray[np.uint8]], mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """(n, 3, h, w) as a model sees pictures that have its own size."""
    scaled = (np.stack(pictures) / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))


def meter(folder: Path, model: str | None = None, agreement: str | None = None) -> Meter:
    return Meter(
        load_features(FeatureSettings(model=model, batch=2), CPU),
        load_agreement(AgreementSettings(model=agreement, batch=2), CPU),
        folder / "measured",
        frozenset({"things"}),
    )


def test_what_was_measured_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time no picture is opened, in an arm with the same ones neither; others are."""
    pictures = {"base": arm(tmp_path)}
    first = meter(tmp_path).measure(CELLS, pictures, THINGS)
    opened: list[Path] = []
    real: Callable[[Path], NDArray[np.uint8]] = measuring.opened

    def counted(file: Path) -> NDArray[np.uint8]:
        opened.append(file)
        return real(file)

    monkeypatch.setattr(measuring, "opened", counted)
    same = {**pictures, "same": arm(tmp_path, "same")}
    again = meter(tmp_path).measure(CELLS, same, THINGS)
    assert not opened
    for n in (0, 1):
        np.testing.assert_array_equal(again.small_anhw[n], first.small_anhw[0])
        np.testing.assert_array_equal(again.pixels_an[n], first.pixels_an[0])
    meter(tmp_path).measure(CELLS, {"other": arm(tmp_path, "other", seed=1)}, THINGS)
    assert len(opened) == len(set(opened)) == len(CELLS)


def test_figures_stand_at_their_cells_and_gaps_stay_gaps(tmp_path: Path) -> None:
    """A missing and a broken picture have none; the rest are those of the picture itself."""
    pictures = arm(tmp_path)
    gone, broken = CELLS[1], CELLS[7]
    files = {cell: file for cell, file in pictures.files.items() if cell != gone}
    pictures = replace(pictures, files=files, broken={broken: "cut off"})
    found = meter(tmp_path).measure(CELLS, {"base": pictures}, THINGS[3:])
    assert found.at["people"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found.at["things"].tolist() == [[6, 7, 8], [9, 10, 11]]
    for n, cell in enumerate(CELLS):
        contrast = found.tones_an["contrast"][0, n]
        assert np.isnan(contrast) == (cell in (gone, broken)) == (found.pixels_an[0, n] < 0)
        if cell not in (gone, broken):
            luma = images(pictures, [cell])[0] @ [0.299, 0.587, 0.114]
            assert contrast == pytest.approx(luma.std(), rel=1e-4)
    assert list(found.features["base"]) == ["things-1"]
    np.testing.assert_allclose(
        found.features["base"]["things-1"], pooled_pixels(images(pictures, THINGS[3:])), atol=1e-6
    )


@pytest.mark.parametrize("name", ["clip", "siglip", "vit", "dinov2"])
def test_features_are_those_of_the_model(eyes: dict[str, str], tmp_path: Path, name: str) -> None:
    """Of an image-text model its embedding, else its last layer's mean; scaled to sqrt(d)."""
    pictures = arm(tmp_path)
    asked = meter(tmp_path, eyes[name])
    found = asked.measure(CELLS, {"base": pictures}, THINGS).features["base"]
    model = AutoModel.from_pretrained(eyes[name]).eval()
    seen = prepared(images(pictures, THINGS), *PUBLISHED.get(name, (HALF, HALF)))
    with torch.inference_mode():
        if name in ("clip", "siglip"):
            expected_nd = model.get_image_features(pixel_values=seen).pooler_output
        else:
            expected_nd = model(pixel_values=seen).last_hidden_state.mean(dim=1)
    scaled_nd = torch.nn.functional.normalize(expected_nd) * expected_nd.shape[1] ** 0.5
    np.testing.assert_allclose(np.concatenate(list(found.values())), scaled_nd, atol=1e-4)
    assert asked.features.name.startswith(f"features of the image model {name}, sha256 ")


def test_agreement_is_the_cosine_of_picture_and_prompt(
    eyes: dict[str, str], tmp_path: Path
) -> None:
    """As the model itself puts pictures and words side by side, in its logits."""
    pictures = arm(tmp_path)
    found = meter(tmp_path, agreement=eyes["clip"]).measure(CELLS, {"base": pictures}, THINGS)
    model = AutoModel.from_pretrained(eyes["clip"]).eval()
    words = AutoTokenizer.from_pretrained(eyes["clip"])
    seen = prepared(images(pictures, CELLS), *PUBLISHED["clip"])
    with torch.inference_mode():
        for n, cell in enumerate(CELLS):
            text = words([cell.prompt.text], return_tensors="pt", return_token_type_ids=False)
            logits = model(pixel_values=seen[n : n + 1], **text).logits_per_text
            expected = float(logits / model.logit_scale.exp())
            assert found.agreement_an[0, n] == pytest.approx(expected, abs=1e-5)


def test_pictures_are_looked_at_while_others_are_drawn(tmp_path: Path) -> None:
    """Every part of every arm, as soon as it is there; afterwards nothing is left to measure."""
    late = arm(tmp_path, "late").files[CELLS[-1]]
    picture = late.read_bytes()
    late.unlink()
    arm(tmp_path, "base")
    ahead = meter(tmp_path)
    looked: list[str] = []

    def look(pictures: ArmPictures, part: Sequence[Cell]) -> None:
        looked.append(pictures.arm)
        ahead.look(pictures, part)

    folders = {name: tmp_path / name for name in ("base", "late")}
    with ReadingAhead(folders, CELLS, look) as reading:
        late.write_bytes(picture)
        assert reading.work is not None
        reading.work.result(timeout=60)
    assert looked == ["base", "late"]
    assert len(list((tmp_path / "measured").rglob("*.parquet"))) == 2


def test_models_share_no_kept_features(eyes: dict[str, str], tmp_path: Path) -> None:
    """What one model said is never taken for another's, nor for mean colours."""
    pictures = {"base": arm(tmp_path)}
    sizes = [
        meter(tmp_path, name and eyes[name])
        .measure(CELLS, pictures, THINGS)
        .features["base"]["things-0"]
        .shape[1]
        for name in (None, "clip", "vit", None)
    ]
    assert sizes == [192, 16, 32, 192]


def test_models_that_cannot_be_meant_are_refused(eyes: dict[str, str]) -> None:
    """No words, no commit, or a margin for nothing: said before anything is drawn."""
    with pytest.raises(UserError, match="does not compare pictures with words"):
        load_agreement(AgreementSettings(model=eyes["vit"]), CPU)
    with pytest.raises(UserError, match="40 hexadecimal digits"):
        load_features(FeatureSettings(model="facebook/dinov2-small"), CPU)
    with pytest.raises(ValidationError, match="a margin needs the model"):
        AgreementSettings(margin=0.01)
    assert load_agreement(AgreementSettings(), CPU) is None

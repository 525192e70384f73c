"""Readers with transformers models: real architectures, random weights, known inputs.

What such weights say is chance; that they are asked rightly is not.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from unskew.errors import UserError
from unskew.evaluate.classifiers.image_model import ImageModelClassifier, load_image_model
from unskew.evaluate.classifiers.question import QuestionClassifier, load_question
from unskew.evaluate.classifiers.weights import pin
from unskew.evaluate.classifiers.zero_shot import (
    ZeroShotClassifier,
    embed_pictures,
    load_zero_shot,
)

CPU = torch.device("cpu")
VALUES = {"presentation": ("woman", "man")}
PHRASES = {
    "presentation": {
        "man": ["a man"],
        "woman": ["a woman", "woman person"],
        "unreadable": ["a room", "nobody"],
    }
}
TEMPLATES = ["a photo of {x}", "{x}"]


def _oracle(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "oracles" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = _oracle("tiny_readers")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Architecture -> folder of a tiny model."""
    root = tmp_path_factory.mktemp("readers")
    return {
        "clip": tiny.save_clip(root / "clip"),
        "siglip": tiny.save_siglip(root / "siglip"),
        "vit": tiny.save_vit(root / "vit", ["Female", "girl", "Male", "no face"]),
        "llava": tiny.save_llava(root / "llava"),
    }


@pytest.fixture
def images() -> list[NDArray[np.uint8]]:
    """Pictures of five sizes."""
    random = np.random.default_rng(0)
    sizes = [(32, 32), (40, 64), (65, 33), (128, 128), (31, 47)]
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def zero_shot(folder: Path, margin: float = 0.0, batch: int = 2) -> ZeroShotClassifier:
    return load_zero_shot(
        str(folder), None, PHRASES, TEMPLATES, VALUES, margin=margin, batch=batch, device=CPU
    )


def image_model(folder: Path, min_probability: float = 0.0, batch: int = 2) -> ImageModelClassifier:
    labels = {"presentation": {"woman": ["Female", "girl"], "man": ["Male"]}}
    return load_image_model(
        str(folder),
        None,
        labels,
        VALUES,
        min_probability=min_probability,
        batch=batch,
        device=CPU,
    )


def question(folder: Path, batch: int = 2, **answers: list[str]) -> QuestionClassifier:
    return load_question(
        str(folder),
        None,
        {"presentation": "Is this a woman or a man?"},
        {"presentation": answers or {"woman": ["woman"], "man": ["man"]}},
        VALUES,
        template="Question: {question} Short answer:",
        margin=0.0,
        batch=batch,
        device=CPU,
    )


def recorded(model: Any, method: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The pixel values of every later call of a model's method."""
    seen: list[Any] = []
    real = getattr(model, method)

    def call(*, pixel_values: Any, **more: Any) -> Any:
        seen.append(pixel_values)
        return real(pixel_values=pixel_values, **more)

    monkeypatch.setattr(model, method, call)
    return seen


@pytest.mark.parametrize(
    ("architecture", "mean", "std"),
    [
        ("clip", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ("siglip", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_pictures_are_prepared_as_the_model_was_trained(
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    """CLIP: shorter side to size, middle cut out; SigLIP: stretched. Published mean and std."""
    page = np.zeros((64, 128, 3), dtype=np.uint8)
    page[:, :32] = (255, 0, 0)  # outside of the middle square
    page[:, 32:] = (102, 51, 204)
    classifier = zero_shot(folders[architecture])
    seen = recorded(classifier.model, "get_image_features", monkeypatch)
    classifier.read([page], ["presentation"])
    [pixels] = seen
    assert pixels.shape == (1, 3, 32, 32)

    def expected(rgb: tuple[int, int, int]) -> list[float]:
        return [(c / 255 - m) / s for c, m, s in zip(rgb, mean, std, strict=True)]

    assert pixels[0, :, 16, 30].tolist() == pytest.approx(expected((102, 51, 204)), abs=1e-3)
    edge = expected((102, 51, 204) if architecture == "clip" else (255, 0, 0))
    assert pixels[0, :, 16, 3].tolist() == pytest.approx(edge, abs=1e-3)


@pytest.mark.parametrize("architecture", ["clip", "siglip"])
def test_zero_shot_is_the_softmax_over_averaged_phrases(
    folders: dict[str, Path], images: list[NDArray[np.uint8]], architecture: str
) -> None:
    """The same as from the model's own logits, where each value has one phrase and template."""
    classifier = load_zero_shot(
        str(folders[architecture]),
        None,
        {"presentation": {"woman": ["a woman"], "man": ["a man"]}},
        ["a photo of {x}"],
        VALUES,
        margin=0,
        batch=2,
        device=CPU,
    )
    readings = classifier.read(images, ["presentation"])["presentation"]
    words = tiny.tokenizer()(
        ["a photo of a woman", "a photo of a man"],
        return_tensors="pt",
        **({"padding": True} if architecture == "clip" else {"padding": "max_length"}),
    )
    words.pop("token_type_ids", None)
    if architecture == "siglip":
        words.pop("attention_mask")
    pixels = classifier.processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = classifier.model(pixel_values=pixels, **words).logits_per_image
    np.testing.assert_allclose(readings.probability_nk, logits.softmax(1).numpy(), atol=1e-5)


def test_phrases_of_nobody_make_a_picture_unreadable(
    folders: dict[str, Path], images: list[NDArray[np.uint8]]
) -> None:
    """And a margin that nothing can reach leaves nothing readable."""
    classifier = zero_shot(folders["clip"])
    _, text_kd = classifier.described["presentation"]
    assert len(text_kd) == 3
    with torch.inference_mode():  # "nobody" now looks like the first picture
        text_kd[2] = embed_pictures(classifier.model, classifier.processor, images[:1])[0]
    readings = classifier.read(images, ["presentation"])["presentation"]
    assert readings.value_n[0] == -1
    strict = zero_shot(folders["clip"], margin=1.0).read(images, ["presentation"])["presentation"]
    assert not strict.readable_n.any()


Loader = Callable[..., Any]


@pytest.mark.parametrize(
    ("architecture", "load"),
    [("clip", zero_shot), ("siglip", zero_shot), ("vit", image_model), ("llava", question)],
)
def test_the_batch_changes_nothing(
    folders: dict[str, Path], images: list[NDArray[np.uint8]], architecture: str, load: Loader
) -> None:
    """One by one, in twos or all at once, in any order of sizes."""
    reads = [
        load(folders[architecture], batch=batch).read(images, ["presentation"])["presentation"]
        for batch in (1, 2, 5)
    ]
    for other in reads[1:]:
        np.testing.assert_allclose(other.probability_nk, reads[0].probability_nk, atol=1e-5)
        assert other.value_n.tolist() == reads[0].value_n.tolist()
    assert len(reads[0].value_n) == 5 and reads[0].values == ("woman", "man")


def test_labels_of_one_value_are_summed_and_others_count_against_all(
    folders: dict[str, Path], images: list[NDArray[np.uint8]]
) -> None:
    """As from the model's own logits; under the least probability nothing is said."""
    classifier = image_model(folders["vit"])
    pixels = classifier.processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        share = classifier.model(pixel_values=pixels).logits.softmax(1).numpy()
    woman, man = share[:, 0] + share[:, 1], share[:, 2]
    readings = classifier.read(images, ["presentation"])["presentation"]
    np.testing.assert_allclose(readings.probability_nk[:, 0], woman / (woman + man), atol=1e-5)
    least = float(np.median(np.maximum(woman, man)))
    some = image_model(folders["vit"], least).read(images, ["presentation"])["presentation"]
    assert some.readable_n.tolist() == (np.maximum(woman, man) >= least).tolist()
    assert 0 < some.readable_n.sum() < len(images)


def test_an_unknown_label_is_refused(folders: dict[str, Path]) -> None:
    """It says which ones the model has."""
    with pytest.raises(UserError, match=r"no label 'Woman'.*Female, girl, Male, no face"):
        load_image_model(
            str(folders["vit"]),
            None,
            {"presentation": {"woman": ["Woman"]}},
            VALUES,
            min_probability=0,
            batch=1,
            device=CPU,
        )


ANSWERS = {
    "woman": ["woman", "a woman"],
    "man": ["man", "a man"],
    "unreadable": ["cannot tell"],
}


def test_answers_weigh_what_the_model_itself_says_of_them(
    folders: dict[str, Path], images: list[NDArray[np.uint8]]
) -> None:
    """Each answer's likelihood is that of the model's own loss on the whole text, summed."""
    classifier = question(folders["llava"], **ANSWERS)
    prompt = classifier.prompt("Is this a woman or a man?")
    assert prompt.startswith("<image>") and prompt.endswith("Short answer:")
    readings = classifier.read(images, ["presentation"])["presentation"]
    for n, image in enumerate(images):
        likelihood = []
        for answers in ANSWERS.values():
            total = 0.0
            for answer in answers:
                inputs = classifier.processor(
                    images=Image.fromarray(image), text=f"{prompt} {answer}", return_tensors="pt"
                )
                inputs.pop("token_type_ids", None)
                words = len(answer.split())
                labels = inputs["input_ids"].clone()
                labels[:, :-words] = -100
                with torch.no_grad():
                    loss = classifier.model(**inputs, labels=labels).loss
                total += float(torch.exp(-loss * words))
            likelihood.append(total)
        if max(likelihood) == likelihood[2]:
            assert readings.value_n[n] == -1
        else:
            share = np.array(likelihood[:2]) / sum(likelihood[:2])
            np.testing.assert_allclose(readings.probability_nk[n], share, rtol=1e-3)


def test_answers_of_one_word_take_one_pass(
    folders: dict[str, Path], images: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are: they differ in their last token only."""
    classifier = question(folders["llava"], batch=8)
    seen = recorded(classifier.model, "forward", monkeypatch)
    classifier.read(images, ["presentation"])
    assert len(seen) == 1


def test_a_models_own_chat_template_is_used(tmp_path: Path) -> None:
    """The question stands where the model expects it."""
    template = (
        "{% for m in messages %}USER: {% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )
    classifier = question(tiny.save_llava(tmp_path / "chat", template))
    assert classifier.prompt("Is this?") == "USER: <image> Is this? ASSISTANT:"
    classifier.read([np.zeros((32, 32, 3), np.uint8)], ["presentation"])


def test_names_pin_the_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    """A folder is named by what is in it, a hub's model by its commit; a branch is refused."""
    name = zero_shot(folders["clip"]).name
    assert name.startswith("zero-shot clip, sha256 ") and name == zero_shot(folders["clip"]).name
    assert tiny.save_clip(tmp_path / "clip") and pin(str(tmp_path / "clip"), None) in name
    assert pin("org/model", "0123456789" * 4) == "org/model@012345678901"
    for revision in (None, "main", "0123456"):
        with pytest.raises(UserError, match="revision must be a commit"):
            pin("org/model", revision)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    """A folder without safetensors is not opened."""
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"no \.safetensors weights"):
        pin(str(tmp_path), None)


def test_a_model_of_another_kind_is_refused(folders: dict[str, Path]) -> None:
    """A classifier of images does not compare them with words."""
    with pytest.raises(UserError, match="does not compare pictures with words"):
        zero_shot(folders["vit"])
    with pytest.raises(UserError, match="cannot be loaded as AutoModelForImageTextToText"):
        question(folders["vit"])

"""Promises of captions by a model: of bare pictures only, the same each time, in any batch."""

import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image

from unskew.data.assembly import assemble
from unskew.data.assembly_options import AssemblySettings
from unskew.data.caption_model import model_captions
from unskew.data.caption_options import CaptionModelSettings
from unskew.data.rows import Row
from unskew.errors import UserError

ORACLES = Path(__file__).parents[1] / "oracles"
save_llava = runpy.run_path(str(ORACLES / "tiny_readers.py"))["save_llava"]
CPU = torch.device("cpu")


def test_a_model_captions_what_has_no_caption(tmp_path: Path) -> None:
    """Pictures differ, so captions do; batches of one and of three say the same."""
    model = save_llava(tmp_path / "model")
    rows = []
    for n, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{n}.png")
        rows.append(Row(f"{n}", tmp_path / f"{n}.png", "s", "mine" if n == 3 else None))
    found = []
    for batch in (1, 3):
        settings = CaptionModelSettings(
            model=str(model), prompt="photo of", most_tokens=5, batch=batch
        )
        found.append(dict(model_captions(rows, settings, CPU)))
    assert found[0] == found[1] and set(found[0]) <= {"0", "1", "2"} and found[0]
    assert all(1 <= len(text.split()) <= 5 for text in found[0].values())
    assert not any("<image>" in text or "photo of photo" in text for text in found[0].values())
    asked = {
        "source": "model",
        "model": {"model": str(model), "prompt": "photo of", "most_tokens": 5},
    }
    plan = assemble(rows, (), AssemblySettings.model_validate({"out": tmp_path, "captions": asked}))
    written = {row["text"] for row in plan.folders[0].rows}
    assert {*found[0].values(), "mine"} <= written
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="1 cannot be captioned"):
        dict(model_captions(rows, settings, CPU))

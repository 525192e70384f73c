"""Promises of the schemas for editors, and of the settings files that ship."""

from pathlib import Path

import pytest
import yaml

from unskew.scripts.write_schemas import SETTINGS, main
from unskew.settings import config_path, resolve

OTHER = {"synthesis": "data-build", "own": "data-build"}
"""Files that are not called by their program's schema."""


def test_the_schemas_are_of_these_settings(tmp_path: Path) -> None:
    """Editors are told what the programs take now: scripts/write_schemas.py was run."""
    assert main([str(tmp_path)]) == 0
    for name in SETTINGS:
        shipped = config_path(f"schemas/{name}.json").read_text("utf-8")
        assert shipped == (tmp_path / f"{name}.json").read_text("utf-8"), name


@pytest.mark.parametrize(
    "file",
    sorted(f for name in ("emoji", "sd15", "sdxl") for f in config_path(name).glob("*.yaml")),
    ids=lambda file: f"{file.parent.name}/{file.name}",
)
def test_every_shipped_file_is_good(file: Path) -> None:
    """No settings file of ours has an error, and each says all that it sets under its own name."""
    model = SETTINGS[OTHER.get(file.stem, file.stem.partition("-")[0])]
    settings = resolve(
        model, [], default_config=file, prog="unskew", description="A shipped file."
    ).settings
    assert set(yaml.safe_load(file.read_text("utf-8"))) <= set(settings.model_dump())

"""Promises of a release: one version everywhere, a wheel that adds one name, checks that run."""

import configparser
import zipfile
from pathlib import Path

import pytest
import yaml

from unskew.scripts import check_wheel

ROOT = Path(__file__).parents[2]


def test_the_version_is_one() -> None:
    """What pip shows is what is cited, under the same licence."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert str(cited["version"]) == setup["metadata"]["version"]
    assert cited["license"] == setup["metadata"]["license_expression"]


def test_the_hosted_checks_are_ours() -> None:
    """The workflow runs files that are here, and the oldest Python that is promised."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    jobs = workflow["jobs"]
    steps = [step["run"].split() for job in jobs.values() for step in job["steps"] if "run" in step]
    files = [ROOT / words[words[0] == "python"] for words in steps]
    assert ROOT / ".ci/run" in files
    assert all(file.is_file() for file in files)
    assert jobs["checks"]["strategy"]["matrix"]["python"][0] == "3.11"
    assert workflow["permissions"] == {"contents": "read"}


def wheel(folder: Path, *names: str) -> Path:
    file = folder / "unskew-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("unskew-0.1.0.dist-info/METADATA", *names):
            archive.writestr(name, "")
    return file


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("unskew/py.typed", "unskew/configs/emoji/train.yaml"), []),
        (
            ("unskew/py.typed", "unskew/configs/emoji/train.yaml", "data/build.py"),
            ["would add data"],
        ),
        (("unskew/py.typed",), ["lacks unskew/configs/emoji/train.yaml"]),
    ],
)
def test_a_wheel_that_spreads_is_found(
    tmp_path: Path, names: tuple[str, ...], said: list[str]
) -> None:
    """A wheel may add `unskew` and nothing else, and must hold its settings and types."""
    found = check_wheel.problems(wheel(tmp_path, *names))
    assert len(found) == len(said)
    assert all(part in problem for part, problem in zip(said, found, strict=True))


def test_the_wheel_check_ends_with_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad wheel is exit code 1 before anything is installed."""
    bad = wheel(tmp_path, "tests/conftest.py")
    monkeypatch.setattr(check_wheel, "build", lambda folder: bad)
    monkeypatch.setattr(check_wheel, "install", lambda *given: pytest.fail("it was installed"))
    assert check_wheel.main([]) == 1
    assert "would add tests at the top level" in capsys.readouterr().err

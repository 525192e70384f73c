"""Promises of the house: who may import whom, what names are free, what is packaged, how long."""

import ast
import configparser
import glob
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
FLOORS = {"configs": 0, "unskew": 1, "evaluate": 2, "data": 3, "train": 3, "scripts": 4}
"""Folder -> floor; imports lead to lower floors or stay in their folder."""
DOOR = "unskew/__init__.py"
"""What `import unskew` offers in notebooks: it names the study's functions and loads them late."""
FILES = sorted(file for folder in FLOORS for file in (ROOT / folder).rglob("*.py"))


@cache
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", "utf-8")
    return parser


@cache
def owners() -> dict[str, set[str]]:
    """Top-level name -> the installed distributions that bring it."""
    found = dict(importlib.metadata.packages_distributions())
    found["dlib"] = ["dlib-bin"]  # whose own list names a part of it only
    return {name: set(map(normalised, distributions)) for name, distributions in found.items()}


def folder_of(module: str) -> str:
    """unskew.evaluate.stats -> evaluate; unskew.runs -> unskew."""
    second = ([*module.split("."), ""])[1]
    return second if second in FLOORS else "unskew"


def imports(file: Path) -> Iterator[tuple[str, str | None]]:
    """(module, imported name) of every import statement of a file, at any depth of it."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((name.name, None) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield from ((str(node.module), name.name) for name in node.names)


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=\[;! ]", distribution)[0]).lower()


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_imports_lead_downstairs(file: Path) -> None:
    """A floor knows those below it only; data and train never each other; privates stay private."""
    home = file.relative_to(ROOT).parts[0]
    if relative(file) == DOOR:
        return
    for module, name in imports(file):
        if module.split(".")[0] != "unskew":
            continue
        target = folder_of(f"{module}.{name}" if module == "unskew" else module)
        assert target == home or FLOORS[target] < FLOORS[home], f"{home} imports {module}"
        assert name is None or not name.startswith("_"), f"{module}.{name} is private"


def test_no_file_is_longer_than_400_lines() -> None:
    """Source and tests alike are short enough to be read in one go."""
    pages = [file for kind in ("j2", "css", "js") for file in ROOT.glob(f"*/*.{kind}")]
    files = [*FILES, *pages, *(ROOT / "tests").rglob("*.py")]
    lengths = {relative(file): len(file.read_text("utf-8").splitlines()) for file in files}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


@pytest.mark.parametrize("folder", ["train", "evaluate", "data", "scripts"])
def test_no_module_hides_another(folder: str) -> None:
    """A program's folder comes first on sys.path, so its names are no one else's there."""
    pinned = {normalised(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    taken = set(sys.stdlib_module_names) | {name for name in owners() if pinned & owners()[name]}
    assert "torch" in taken
    names = {f.stem for f in (ROOT / folder).glob("*.py")} - {"__init__"}
    names |= {init.parent.name for init in (ROOT / folder).glob("*/__init__.py")}
    assert not names & taken


def test_every_package_is_listed() -> None:
    """setup.cfg names every folder with Python files, and each has its __init__.py."""
    listed = set(setup_cfg()["options"]["packages"].split())
    folders = {".".join(file.parent.relative_to(ROOT).parts) for file in FILES}
    names = {re.sub(r"^unskew(\.|$)", "", folder) for folder in folders}
    assert listed == {f"unskew.{name}".strip(".") for name in names}
    assert all((file.parent / "__init__.py").exists() for file in FILES)


def test_every_data_file_is_packaged() -> None:
    """Whatever lies in a package and is no Python reaches those who install a wheel."""
    patterns = setup_cfg()["options.package_data"]
    packaged = {
        ROOT / folder / name
        for package in patterns
        for folder in [package.removeprefix("unskew.").replace(".", "/")]
        for pattern in patterns[package].split()
        for name in glob.glob(pattern, root_dir=ROOT / folder, recursive=True)  # noqa: PTH207
    }
    shell = {f"scripts/{name}" for name in ("demo", "docs", "environment", "test")}
    listed = subprocess.run(
        ["git", "ls-files", *FLOORS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = {ROOT / name for name in listed.stdout.splitlines() if name not in shell}
    data = {file for file in tracked if file.suffix != ".py" and file.exists()}
    assert data
    assert not sorted(relative(file) for file in data - packaged)


def test_every_import_is_a_declared_dependency() -> None:
    """What the code imports is installed with it, not by luck with something else."""
    options, extras = setup_cfg()["options"], setup_cfg()["options.extras_require"]
    declared = {
        normalised(line)
        for text in (options["install_requires"], *map(extras.get, ("demo", "faces", "notebook")))
        for line in text.splitlines()
    }
    needed = {module.split(".")[0] for file in FILES for module, _ in imports(file)}
    needed -= set(sys.stdlib_module_names) | {"unskew"}
    assert not {name for name in needed if not declared & owners()[name]}


def test_what_is_pinned_runs_on_the_oldest_python() -> None:
    """Debian 12 has Python 3.11.2: a pin that wants a later 3.11 cannot be installed there."""
    oldest = setup_cfg()["options"]["python_requires"].removeprefix(">=") + ".0"
    refused = [
        f"{distribution.name} {distribution.version}: {distribution.metadata['Requires-Python']}"
        for distribution in importlib.metadata.distributions()
        if not SpecifierSet(distribution.metadata["Requires-Python"] or "").contains(oldest)
    ]
    assert not refused


def test_every_dependency_is_pinned() -> None:
    """constraints.txt fixes one public version of each declared dependency and tool."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    extras = setup_cfg()["options.extras_require"]
    declared = [setup_cfg()["options"]["install_requires"]]
    declared += [extras[name] for name in ("demo", "dev", "docs", "faces", "notebook")]
    needed = {normalised(line) for text in declared for line in text.split("\n") if line}
    assert needed <= set(map(normalised, pins))

"""Build the wheel, install it into an empty environment outside the checkout, and use it there.

python scripts/check_wheel.py                      # with its extra demo; installs all it needs
python scripts/check_wheel.py --packages FOLDER    # tiny: what it needs comes from a site-packages
the same command again                             # begins anew; nothing is left behind
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

NAME = "unskew"
ROOT = Path(__file__).resolve().parents[1]
WRONG_USE = 2


def main(argv: Sequence[str]) -> int:
    """Print what was checked; 1 where the wheel is not what it should be."""
    arguments = _parser().parse_args(list(argv))
    if not (ROOT / "setup.cfg").is_file():
        print(f"error: {ROOT} is no checkout of Unskew: run this file in one", file=sys.stderr)
        return WRONG_USE
    with tempfile.TemporaryDirectory(prefix="unskew-wheel-") as temporary:
        folder = Path(temporary)
        wheel = build(folder / "wheel")
        if wrong := problems(wheel):
            print("\n".join(f"error: {problem}" for problem in wrong), file=sys.stderr)
            return 1
        print(f"{wheel.name}: its top level adds only {NAME}", flush=True)
        python = install(wheel, folder / "environment", arguments.packages)
        return use(python, folder / "elsewhere", short=arguments.packages is not None)


def build(folder: Path) -> Path:
    """The wheel of this checkout."""
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    return wheel


def problems(wheel: Path) -> list[str]:
    """What is wrong with the names in a wheel; each as a sentence."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    about = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    strangers = {name.split("/")[0] for name in names} - {NAME, about}
    wrong = [f"{wheel.name} would add {name} at the top level" for name in sorted(strangers)]
    wanted = [f"{NAME}/{file}" for file in ("configs/emoji/train.yaml", "py.typed")]
    wrong += [f"{wheel.name} lacks {name}" for name in wanted if name not in names]
    return wrong


def install(wheel: Path, folder: Path, packages: Path | None) -> Path:
    """The Python of a new environment that holds the wheel with its extra demo."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    if packages is None:
        pinned = ("--constraint", str(ROOT / "constraints.txt"))
        pip("install", "--quiet", *pinned, f"{wheel}[demo]", python=python)
        return python
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "shared.pth").write_text(f"{packages.resolve()}\n", "utf-8")
    pip("install", "--quiet", "--no-deps", str(wheel), python=python)
    return python


def use(python: Path, folder: Path, *, short: bool) -> int:
    """Run the installed command in an empty folder; the exit code of the first that fails."""
    folder.mkdir()
    command = str(python.parent / NAME)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    last = ("data", "--captions", "1") if short else ("demo", "--short")
    for words in (("--version",), ("train", "--help"), last):
        print(f"$ {NAME} {' '.join(words)}", flush=True)
        out = subprocess.DEVNULL if "--help" in words else None
        code = subprocess.run([command, *words], cwd=folder, env=kept, stdout=out).returncode
        if code != 0:
            print(f"error: it ended with exit code {code}", file=sys.stderr)
            return 1
    return 0


def pip(*words: str, python: Path | None = None) -> None:
    """Run pip; its error ends this program."""
    command = [str(python or sys.executable), "-m", "pip", "--disable-pip-version-check", *words]
    subprocess.run(command, check=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="check_wheel.py", description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument(
        "--packages", type=Path, help="a site-packages to use instead of installing anything"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

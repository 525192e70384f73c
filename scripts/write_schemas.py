"""Write the JSON schemas of the programs' settings, by which editors check and complete YAML.

    python scripts/write_schemas.py     # after a change of settings; writes configs/schemas/

A settings file names its schema in its first line:
`# yaml-language-server: $schema=../schemas/train.json`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from unskew.data.options import DataSettings
from unskew.data.own_options import BuildSettings
from unskew.data.push import PushSettings
from unskew.evaluate.blind_options import BlindSettings
from unskew.evaluate.calibrate_options import CalibrateSettings
from unskew.evaluate.compare_options import CompareSettings
from unskew.evaluate.options import StudySettings
from unskew.scripts.bench_options import BenchSettings
from unskew.scripts.bench_statistics_options import StatisticsSettings
from unskew.scripts.publish_options import PublishSettings
from unskew.settings import Settings, config_path, run_program, write_schema
from unskew.train.options import TrainSettings

SETTINGS: dict[str, type[Settings]] = {
    "audit": StudySettings,
    "bench": BenchSettings,
    "bench-statistics": StatisticsSettings,
    "blind": BlindSettings,
    "calibrate": CalibrateSettings,
    "compare": CompareSettings,
    "data": DataSettings,
    "data-build": BuildSettings,
    "push": PushSettings,
    "publish": PublishSettings,
    "study": StudySettings,
    "train": TrainSettings,
}


def main(argv: Sequence[str]) -> int:
    """Write one schema a program into the folder given, or into Unskew's own configs."""
    folder = _parser().parse_args(argv).folder
    for name, model in SETTINGS.items():
        write_schema(model, folder / f"{name}.json")
        print(folder / f"{name}.json")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="write_schemas.py", description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    help = "where to (default: configs/schemas)"
    parser.add_argument("folder", type=Path, nargs="?", default=config_path("schemas"), help=help)
    return parser


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

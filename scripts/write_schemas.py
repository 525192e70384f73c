"""Write the JSON schemas of the programs' settings, by which editors check and complete YAML.

    python scripts/write_schemas.py     # after a change of settings; writes configs/schemas/

A settings file names its schema in its first line:
`# yaml-language-server: $schema=../schemas/train.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from unskew.data.options import DataSettings
from unskew.data.own_options import BuildSettings
from unskew.data.push import PushSettings
from unskew.errors import UserError
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
    if len(argv) > 1 or any(word.startswith("-") for word in argv):
        raise UserError(f"write_schemas takes one folder or nothing, got {' '.join(argv)}")
    folder = Path(argv[0]) if argv else config_path("schemas")
    for name, model in SETTINGS.items():
        write_schema(model, folder / f"{name}.json")
        print(folder / f"{name}.json")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

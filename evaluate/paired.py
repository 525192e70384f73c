"""Prove a change: the base against the base with an adapter, same prompts, same noise.

unskew evaluate                                       # the Emoji World study, after `unskew train`
python evaluate/paired.py --config configs/emoji/study-quick.yaml
torchrun --nproc-per-node 2 evaluate/paired.py        # the same, dealt over two processes
python evaluate/paired.py --suites.trained.seeds 3    # tiny
python evaluate/paired.py --relabel --classifiers.exemplars.folder OTHER   # read again
the same command again                                # draws only what is missing
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from unskew.evaluate.options import check_several_arms
from unskew.evaluate.study import StudySettings, run_study
from unskew.settings import config_path, resolve, run_program


def main(argv: Sequence[str]) -> int:
    """Resolve the settings and run the study."""
    resolved = resolve(
        StudySettings,
        argv,
        default_config=config_path("emoji/study-quick.yaml"),
        prog="unskew evaluate",
        description=(__doc__ or "").split("\n")[0],
    )
    check_several_arms(resolved.settings)
    return run_study(resolved, "paired")


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

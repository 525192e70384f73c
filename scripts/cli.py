"""Unskew: measure the skew in what a text-to-image model shows, and train it away.

unskew demo                         # all of it on the embedded Emoji World, to a report
unskew train --help                 # a program's settings
python scripts/cli.py demo --short  # the same command, run as a file
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from importlib import metadata

from unskew.runs import git_state
from unskew.settings import WRONG_USE, run_program

VERBS = {
    "data": ("unskew.data.build", "build a balanced, captioned dataset"),
    "train": ("unskew.train.lora", "train a LoRA on it"),
    "audit": ("unskew.evaluate.audit", "measure how skewed one base or folder of pictures is"),
    "evaluate": ("unskew.evaluate.paired", "measure base against base + LoRA on paired pictures"),
    "compare": ("unskew.evaluate.compare", "measure many adapters side by side, and rank them"),
    "prompts": ("unskew.scripts.show_prompts", "show what prompt files expand to, and what is odd"),
    "calibrate": ("unskew.evaluate.calibrate", "label a sample by hand, and correct by the labels"),
    "demo": ("unskew.scripts.demo", "all three on the embedded Emoji World"),
}
"""Verb -> module, imported only when it is asked for, and what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the words after the verb to the verb's own main; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb = words[0] if words else "--help"
    if verb in ("-h", "--help"):
        print(usage())
        return 0
    if verb == "--version":
        print(version())
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; perhaps you meant {near[0]}" if near else ""
        known = ", ".join(VERBS)
        print(f"error: there is no verb {verb}{hint} (verbs: {known})", file=sys.stderr)
        return WRONG_USE

    def program(argv: Sequence[str]) -> int:
        code: int = importlib.import_module(VERBS[verb][0]).main(argv)
        return code

    return run_program(program, words[1:])


def usage() -> str:
    """What `unskew --help` prints."""
    verbs = "\n".join(f"  {verb:<10} {about}" for verb, (_, about) in VERBS.items())
    return (
        "usage: unskew VERB [--help] [--config FILE] [--SETTING VALUE ...]\n\n"
        f"{(__doc__ or '').splitlines()[0]}\n\nverbs:\n{verbs}\n\n"
        "unskew VERB --help lists a verb's settings with their values; without any it does its\n"
        "part of the Emoji World demo. unskew --version prints the version and the commit."
    )


def version() -> str:
    """The version, and the commit where the code runs from a checkout."""
    state = git_state()
    changes = ", with changes" if state["dirty"] else ""
    commit = f" ({state['commit'][:12]}{changes})" if state["commit"] else ""
    return f"unskew {metadata.version('unskew')}{commit}"


if __name__ == "__main__":
    sys.exit(main())

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
from unskew.scripts.programs import PROGRAMS, description, settings_model
from unskew.settings import WRONG_USE, config_path, resolve, run_program


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
    if verb not in PROGRAMS:
        near = difflib.get_close_matches(verb, [*PROGRAMS, "--help", "--version"], n=1)
        hint = f"; perhaps you meant {near[0]}" if near else ""
        known = ", ".join(PROGRAMS)
        print(f"error: there is no verb {verb}{hint} (verbs: {known})", file=sys.stderr)
        return WRONG_USE

    def program(argv: Sequence[str]) -> int:
        if PROGRAMS[verb].settings and {"-h", "--help"} & set(argv):
            show_help(verb, argv)
        code: int = importlib.import_module(PROGRAMS[verb].module).main(argv)
        return code

    return run_program(program, words[1:])


def show_help(verb: str, argv: Sequence[str]) -> None:
    """Print what the verb's own --help prints, without loading what it works with.

    Raises SystemExit(0), or UserError where the --config among `argv` cannot be read.
    """
    resolve(
        settings_model(verb),
        argv,
        default_config=config_path(PROGRAMS[verb].config),
        prog=f"unskew {verb}",
        description=description(verb),
    )


def usage() -> str:
    """What `unskew --help` prints."""
    width = max(map(len, PROGRAMS))
    verbs = "\n".join(f"  {verb:<{width}} {row.summary}" for verb, row in PROGRAMS.items())
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

"""Run train/lora.py as often as asked, each time as a process of its own that can be killed.

A line of JSON on stdin asks for one: its words, the file that it writes its stdout and stderr to,
and perhaps `kill`: what it is about to do, to what, and for the how manieth time, when it kills
itself (an audit event, a file's name, a number); `largest`, bytes that a file of its may have; or
`port`, through which two processes, that run it together, find each other.
Answers on stdout with the process number, and with the exit code when it ended.

What takes the time is imported before, and nothing else is done: a fork of this is a fresh start.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from unskew.train import lora

PATIENCE_S = 300
"""Far over what any of these takes: one that hangs shows where, and ends."""
AT = {"os.rename": 1, "shutil.rmtree": 0}
"""Audit event -> which of its arguments is what it is done to."""


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        process = os.fork()
        if process == 0:
            become(asked)
            return
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def become(asked: dict[str, Any]) -> None:
    """Be the process that is asked for; ends as the program does, by SystemExit."""
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if "port" in asked:
        become_two(asked["port"])
    faulthandler.dump_traceback_later(PATIENCE_S, exit=True)
    if "kill" in asked:
        sys.addaudithook(killer(*asked["kill"]))
    if "largest" in asked:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest"],) * 2)
    sys.argv = [lora.__file__, *asked["words"]]
    runpy.run_path(lora.__file__, run_name="__main__")


def become_two(port: int) -> None:
    """Go on as two processes of one run; the first waits for them, and ends as the worse did."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"LOCAL_WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    children = []
    for rank in "01":
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
            return
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os._exit(max(map(abs, codes)))


def killer(event: str, name: str, count: int) -> Any:
    """A hook that kills the process just before it does `event` to a file `name` again."""
    seen = 0

    def hook(happens: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if happens == event and Path(arguments[AT[event]]).name == name:
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


if __name__ == "__main__":
    main()

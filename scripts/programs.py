"""The verbs of `unskew`: which module does each, and where its settings are described.

The table knows names only, so that help and completion answer at once: nothing that a program
works with is imported to say what it takes.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unskew.settings import Settings


@dataclass(frozen=True)
class Program:
    """One verb."""

    module: str
    """Has `main(argv) -> int`; imported when the verb is asked for."""
    summary: str
    """What it does, in a line of `unskew --help`."""
    settings: str = ""
    """The settings model as "module:class", in a module that imports neither torch nor what needs
    it; empty for a program that reads its words itself."""
    config: str = ""
    """Unskew's own file that the settings begin with."""
    options: tuple[str, ...] = ()
    """The options of a program that reads its words itself."""
    words: tuple[str, ...] = ()
    """What may stand first after the verb, where that is one of a few words."""


PROGRAMS: dict[str, Program] = {
    "demo": Program(
        "unskew.scripts.demo",
        "data, train and evaluate on the embedded Emoji World",
        options=("--short", "--out"),
    ),
    "data": Program(
        "unskew.data.build",
        "build a balanced, captioned dataset",
        "unskew.data.options:DataSettings",
        "emoji/data.yaml",
    ),
    "data build": Program(
        "unskew.data.own",
        "the same of pictures of your own, a hub's, or the base's drawings",
        "unskew.data.own_options:BuildSettings",
        "emoji/synthesis.yaml",
    ),
    "data push": Program(
        "unskew.data.push",
        "put a dataset on the hub, private unless asked",
        "unskew.data.push:PushSettings",
        "emoji/push.yaml",
    ),
    "train": Program(
        "unskew.train.lora",
        "train a LoRA on it",
        "unskew.train.options:TrainSettings",
        "emoji/train.yaml",
    ),
    "audit": Program(
        "unskew.evaluate.audit",
        "measure how skewed one base or folder of pictures is",
        "unskew.evaluate.options:StudySettings",
        "emoji/audit.yaml",
    ),
    "evaluate": Program(
        "unskew.evaluate.paired",
        "measure base against base + LoRA on paired pictures",
        "unskew.evaluate.options:StudySettings",
        "emoji/study-quick.yaml",
    ),
    "compare": Program(
        "unskew.evaluate.compare",
        "measure many adapters side by side, and rank them",
        "unskew.evaluate.compare_options:CompareSettings",
        "emoji/compare.yaml",
    ),
    "compare blind": Program(
        "unskew.evaluate.blind",
        "let people choose between arms, unknowing",
        "unskew.evaluate.blind_options:BlindSettings",
        "emoji/blind.yaml",
    ),
    "calibrate": Program(
        "unskew.evaluate.calibrate",
        "label a sample by hand, and correct by the labels",
        "unskew.evaluate.calibrate_options:CalibrateSettings",
        "emoji/calibrate.yaml",
    ),
    "publish": Program(
        "unskew.scripts.publish",
        "publish an adapter with its proof",
        "unskew.scripts.publish_options:PublishSettings",
        "emoji/publish.yaml",
    ),
    "verify": Program(
        "unskew.scripts.verify",
        "check a published adapter, and draw some of it again",
        options=("--cells", "--base", "--json"),
    ),
    "prompts": Program(
        "unskew.scripts.show_prompts",
        "show what prompt files expand to, and what is odd",
        options=("--suite", "--json"),
        words=("show",),
    ),
    "completion": Program(
        "unskew.scripts.completion",
        "print what completes this command in your shell",
        words=("bash", "zsh", "fish"),
    ),
    "doctor": Program(
        "unskew.scripts.doctor",
        "say what works on this machine, and what to do about the rest",
        options=("--quick", "--json"),
    ),
}
"""Verb -> program, in the order of use; a second word makes another program of a verb."""


def chosen(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The verb that the words begin with, of two words where there is such, and those after it.

    The first word where there is no such verb.
    """
    two = " ".join(words[:2])
    return (two, words[2:]) if two in PROGRAMS else (words[0], words[1:])


def settings_model(verb: str) -> type[Settings]:
    """The settings model of a verb that has one."""
    module, _, name = PROGRAMS[verb].settings.partition(":")
    model: type[Settings] = getattr(importlib.import_module(module), name)
    return model


def description(verb: str) -> str:
    """The first line of the program's docstring, read off its file."""
    spec = importlib.util.find_spec(PROGRAMS[verb].module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{PROGRAMS[verb].module} is not installed")
    told = ast.get_docstring(ast.parse(Path(spec.origin).read_text("utf-8"))) or ""
    return told.split("\n")[0]

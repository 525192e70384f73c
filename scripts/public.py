"""What of a run may be seen by everybody: no paths, no user names, no names of local files.

What is published is chosen by name; what a later setting adds stays home until it is named here.
"""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import get_token

from unskew.evaluate.gate_schema import ANY_ARM
from unskew.evaluate.schema import ArmSummary, Counts, Gate, Results, ResultSettings
from unskew.train.output import describe

OF_A_STUDY = (
    *("suites", "targets", "primaries", "intersections", "sampler", "steps", "guidance"),
    *("negative_prompt", "resolution_px", "batch", "dtype", "margins", "gate", "attribution"),
)
"""Settings of a study that hold no path."""
OF_A_CLASSIFIER = ("kind", "attributes", "revision")
OF_AN_ARM = ("rewrite", "negative_prompt", "pictures", "missing", "strangers", "paired_by")
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}|\bapi_org_[A-Za-z0-9]{16,}")
"""What the hub's tokens look like."""
SHORTEST = 4
"""Characters of a local name that is looked for; shorter ones are in any text."""
PLAIN_WORD = re.compile("[a-z]+")
"""Folders of such names give nobody away, and the words may be in any text."""
COMMON = ("root",)
"""User names that are on every machine."""


def public_results(results: Results, arm: str) -> Results:
    """The results of one arm against the baseline, without local names.

    Intervals and p-values stay as they were computed with all arms.
    """
    arms = {name: results.arms[name] for name in (results.baseline, arm)}
    shown = {name: _public_arm(one) for name, one in arms.items()}
    spoken_of = {*arms, ANY_ARM}
    reasons = tuple(reason for reason in results.gate.reasons if reason.arm in spoken_of)
    asked = results.gate.passed is not None and bool(reasons)
    total = Counts(
        planned=sum(one.counts.planned for one in shown.values()),
        generated=sum(one.counts.generated for one in shown.values()),
        readable=sum(one.counts.readable for one in shown.values()),
    )
    parts = {
        name: tuple(
            row
            for row in getattr(results, name)
            if row.arm == arm and row.against in (None, results.baseline)
        )
        for name in ("representation", "fidelity", "drift", "quality")
    }
    settings = results.settings.model_dump()
    settings["study"] = public_study(results.settings.study)
    return results.model_copy(
        update={
            **parts,
            "unmeasured": tuple(row for row in results.unmeasured if row.arm == arm),
            "arms": shown,
            "counts": total,
            "settings": ResultSettings.model_validate(settings),
            "gate": Gate(
                passed=all(reason.passed for reason in reasons) if asked else None, reasons=reasons
            ),
        }
    )


def public_study(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A study's settings without what is local to a machine."""
    shown = {name: settings[name] for name in OF_A_STUDY if name in settings}
    shown["classifiers"] = {
        name: {key: said[key] for key in OF_A_CLASSIFIER if said.get(key) is not None}
        for name, said in settings.get("classifiers", {}).items()
    }
    return shown


def _public_arm(arm: ArmSummary) -> ArmSummary:
    facts = {name: arm.facts[name] for name in OF_AN_ARM if name in arm.facts}
    if "adapters" in arm.facts:
        facts["adapters"] = [
            {"weight": worn["weight"], "sha256": worn["sha256"]} for worn in arm.facts["adapters"]
        ]
    return arm.model_copy(update={"facts": facts})


def public_training(settings: Any, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What `training.json` holds: settings without local ones, hashes, versions, and the proof."""
    told = json.loads(describe(settings, manifest["inputs"])["unskew_settings"])
    facts = manifest["facts"]
    return {
        "settings": told,
        "inputs": {
            name: sha for name, sha in manifest["inputs"].items() if name in ("base", "dataset")
        },
        "facts": {
            name: facts[name]
            for name in ("adapter_sha256", "adapter_step", "effect", "difference")
            if name in facts
        },
        "commit": manifest["git"]["commit"],
        "dirty": bool(manifest["git"]["dirty"]),
        "versions": dict(manifest["versions"]),
    }


def local_names(
    folders: Iterable[Path], settings: Iterable[object], public: Iterable[str]
) -> dict[str, str]:
    """What must not be in a bundle -> what it is: paths of this machine, and who works at it.

    `settings` are those of the runs: every relative or absolute path in them is one. A folder's
    name alone may stand where it is among the `public` words too, which the user gave for the card.
    """
    names: dict[str, str] = {str(Path.home()): "the home folder"}
    user = getpass.getuser()
    names |= {f"/{user}/": "a user name", f"{user}@": "a user name"}
    given = "\n".join(public)
    for folder in folders:
        names[str(folder.resolve())] = "a path"
        name = folder.resolve().name
        if name not in given and not PLAIN_WORD.fullmatch(name):
            names[name] = "a folder's name"
    for text in _texts(list(settings)):
        if "/" in text and text not in given and (Path(text).exists() or Path(text).is_absolute()):
            names[text] = "a path in the settings"
    return {
        name: what
        for name, what in names.items()
        if len(name) >= SHORTEST and name.strip("/@").lower() not in COMMON
    }


def secrets() -> dict[str, str]:
    """The hub's token of this machine, if there is one -> what it is."""
    token = get_token()
    return {token: "the hub's token"} if token else {}


def leaks(bundle: Path, names: Mapping[str, str]) -> Iterator[str]:
    """Where a bundle's files hold any of these names, or anything that looks like a token.

    Found as a word of its own: "runs" is not in "overruns". Pictures' and weights' bytes are
    looked through like texts.
    """
    patterns = {_as_a_word(name): what for name, what in names.items()}
    for file in sorted(f for f in bundle.rglob("*") if f.is_file()):
        where, content = file.relative_to(bundle).as_posix(), file.read_bytes()
        yield from (f"{where}: {what}" for p, what in patterns.items() if p.search(content))
        if TOKEN.search(content.decode("latin-1")):
            yield f"{where}: what looks like a token of the hub"


def _as_a_word(name: str) -> re.Pattern[bytes]:
    before = rb"(?<![A-Za-z0-9_.-])" if name[0].isalnum() else b""
    after = rb"(?![A-Za-z0-9_-])" if name[-1].isalnum() else b""
    return re.compile(before + re.escape(name.encode()) + after)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, str):
        yield value

"""Promise of the pages: every command on them was run, here in small or in the test that is named.

What a reader would type is run as it stands, in one folder and in an order in which it makes sense;
the words after it make it small, so nothing is said of results.
"""

from __future__ import annotations

import importlib
import json
import re
import runpy
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from unskew.evaluate.blind_sample import load_blind_sample
from unskew.evaluate.calibration import load_sample
from unskew.scripts import cli
from unskew.scripts.programs import PROGRAMS

ROOT = Path(__file__).parents[2]
pages = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "oracles" / "page_commands.py")))
FILES = {row.module.removeprefix("unskew."): verb for verb, row in PROGRAMS.items()}

TRAIN = (
    "--base TINY --resolution_px 16 --steps 2 --samples.every 0 --lora.rank 4 --lora.alpha 8 "
    "--batch.size 4 --lora.target_modules attention --tracker none"
)
SUITES = {"trained": 2, "contextual": 2, "held_out": 2, "explicit": 1, "control": 3}
STUDY = (
    "--base TINY --resolution_px 16 --steps 2 --guidance 7.5 --batch 16 --dtype fp32 "
    "--prompts small.yaml --classifiers.exemplars.folder PEOPLE "
    "--classifiers.exemplars.attributes subject presentation skin_tone "
) + " ".join(
    f"--suites.{suite}.prompts {prompts} --suites.{suite}.seeds 3"
    for suite, prompts in SUITES.items()
)
DRAW = (
    "--synthesis.base TINY --synthesis.steps 1 --synthesis.resolution_px 16 "
    "--synthesis.dtype fp32 --screen.least_side_px 16 "
    "--synthesis.classifiers {} --synthesis.judge null --screen.least_contrast 0 "
    "--screen.least_sharpness 0"
)
PUBLISH = (
    "--base_license cc-by-4.0 --base_model somebody/tiny-base "
    "--allow_unproven 'It is a test of what a page says, not an adapter.'"
)
STEPS = [
    ("unskew data", ""),
    ("unskew data --captions 1 --out runs/small --exemplars null", ""),
    (
        "unskew data --targets.presentation '{woman: 0.5, man: 0.3, person: 0.2}' --out runs/other",
        "",
    ),
    ("python data/build.py --captions 1", "--out runs/one --exemplars null"),
    (
        "python data/build.py --targets.presentation '{woman: 0.5, man: 0.3, person: 0.2}' "
        "--out runs/other",
        "",
    ),
    ("python data/emoji_world/album.py", ""),
    ("unskew data build --config emoji/own.yaml", ""),
    ("unskew data build --config emoji/own.yaml --balance.by weights --out runs/emoji-weighed", ""),
    ("unskew data build --config mine.yaml --dry-run", ""),
    ("unskew data build --config mine.yaml", ""),
    ("unskew data build --config mine.yaml --balance.by weights", "--out runs/mine-weighed"),
    ("unskew data build --config my-photos.yaml --dry-run", ""),
    ("unskew data build --config my-photos.yaml", ""),
    ("unskew data push --folder runs/mine --repo me/mine --dry-run", ""),
    ("unskew data build", DRAW),
    ("unskew data build --synthesis.most_tries 6", f"{DRAW} --dry-run"),
    ("unskew train --dry_run", TRAIN),
    ("unskew train --dry_run --dataset FOLDER", TRAIN),
    ("unskew train", TRAIN),
    ("python train/lora.py", TRAIN),
    ("python train/lora.py --dry-run", TRAIN),
    ("python train/lora.py --steps 20 --out runs/try", TRAIN),
    ("unskew train --dataset runs/emoji-drawn --out runs/emoji-drawn-lora", TRAIN),
    (
        "unskew train --steps 800 --batch.neutral_share 0.85 --lora.target_modules "
        "with_convolutions",
        f"{TRAIN} --dry-run",
    ),
    ("unskew audit", STUDY),
    ("python evaluate/audit.py --config configs/emoji/audit.yaml", STUDY),
    ("python evaluate/audit.py --suites.trained.seeds 3", f"{STUDY} --out runs/audit-3"),
    ("unskew evaluate", STUDY),
    ("python evaluate/paired.py --config configs/emoji/study-quick.yaml", STUDY),
    ("python evaluate/paired.py --suites.trained.seeds 3", f"{STUDY} --out runs/study-3"),
    ("python evaluate/paired.py --relabel --classifiers.exemplars.folder OTHER", STUDY),
    ("unskew evaluate --prompts prompts/emoji.yaml --dry_run", f"{STUDY} --out runs/dry"),
    ("unskew evaluate --guidance 1.5 --out runs/guidance-1.5", f"{STUDY} --dry-run"),
    (
        "unskew evaluate --suites.contextual.prompts 14 --suites.held_out.seeds 8 "
        "--suites.held_out.prompts 24",
        f"{STUDY} --out runs/study-more",
    ),
    ("unskew evaluate --config emoji/study-proof.yaml", STUDY),
    ("unskew evaluate --config emoji/study-synthesis.yaml", STUDY),
    ("unskew compare", STUDY),
    ("unskew compare --config emoji/compare-drawn.yaml", f"{STUDY} --dry-run"),
    ("unskew compare --config MINE.yaml --dry-run", STUDY),
    ("unskew compare --config MINE.yaml", STUDY),
    ("python evaluate/compare.py --config MINE.yaml", STUDY),
    (
        "python evaluate/compare.py --adapters.ours.weights 0.5 1 --suites.held_out.seeds 3",
        f"{STUDY} --out runs/compare-3",
    ),
    ("unskew compare blind runs/emoji-compare", ""),
    ("unskew compare blind runs/emoji-compare --choices choices-ana.json", ""),
    ("unskew compare blind runs/emoji-compare --arms base ours-0_75 --pairs 100", ""),
    ("unskew compare blind runs/emoji-compare --choices choices-ana.json choices-ben.json", ""),
    ("unskew compare blind runs/emoji-compare --question asked --arms base ours-1", ""),
    ("unskew calibrate runs/emoji-study", ""),
    ("unskew calibrate runs/emoji-study --labels labels-ana.json", ""),
    ("unskew calibrate runs/emoji-study --labels ana.json ben.json", ""),
    ("python evaluate/calibrate.py runs/emoji-study --per_arm 20", "--run runs/study-3"),
    ("unskew publish --license cc-by-4.0 --dry-run", PUBLISH),
    ("unskew publish --license cc-by-4.0", PUBLISH),
    (
        "unskew publish --train RUN --study RUN --license cc-by-4.0 --out BUNDLE --dry-run",
        PUBLISH,
    ),
    ("unskew verify runs/emoji-bundle", "--base TINY"),
    ("unskew verify BUNDLE", "--base TINY"),
    ("unskew verify BUNDLE --base FOLDER", ""),
    ("unskew verify BUNDLE --cells 0", ""),
    ("unskew verify BUNDLE --json", "--base TINY"),
    ("unskew prompts show MINE.yaml --suite held_out --json", ""),
    ("unskew prompts show prompts/occupations.yaml", ""),
    ("unskew prompts show prompts/occupations.yaml --suite held_out", ""),
    ("unskew prompts show prompts/occupations.yaml prompts/controls.yaml", ""),
    ("python scripts/show_prompts.py show prompts/article.yaml", ""),
    ("unskew completion bash", ""),
    ("python scripts/bench_balance.py", "10000"),
    (
        "python scripts/bench_correction.py --repeats 400 --labels 150 1200",
        "--prompts 12 --seeds 10",
    ),
    (
        "python scripts/bench_correction.py --run runs/emoji-study-proof --suites held_out "
        "--repeats 400 --labels 150 1200",
        "",
    ),
]
ELSEWHERE = {
    r"--help$|^unskew (--version|prompts)$": ("scripts/test_help.py", '"--help"'),
    r"^accelerate launch": ("evaluate/test_study_kills.py", "accelerate.commands.launch"),
    r"^torchrun .*paired": ("evaluate/test_study_kills.py", "torch.distributed.run"),
    r"^torchrun .*data\.own": ("data/test_synthesis.py", "torch.distributed.run"),
    r"^unskew demo|^scripts/demo|^\.ci/run": ("scripts/test_demo.py", 'demo.main(["--short"])'),
    r"^unskew doctor": ("scripts/test_doctor.py", "doctor.main("),
    r"^unskew completion": ("scripts/test_help.py", "completion."),
    r"^scripts/programs": ("scripts/test_command.py", "PROGRAMS"),
    r"sd15/|--config configs/sd15": ("scripts/test_recipes.py", '"sd15"'),
    r"bench_train|bench_bases": ("scripts/test_bench_train.py", "bench_train import main"),
    r"bench_study": ("scripts/test_bench_study.py", "bench_study import main"),
    r"bench_statistics": ("scripts/test_bench_statistics.py", "bench_statistics.main("),
    r"^unskew data push --folder runs/mine --repo me/mine$": ("data/test_push.py", "push.main"),
    r"--push owner/name": ("scripts/test_push.py", '"--push"'),
    r"--arms .*folder: pictures": ("evaluate/test_study_arms.py", '"folder"'),
    r"write_schemas": ("scripts/test_schemas.py", "write_schemas import SETTINGS, main"),
    r"check_wheel": ("scripts/test_release.py", "check_wheel."),
    r"^scripts/docs$": ("scripts/test_docs.py", '"sphinx"'),
}
"""Pattern -> the test that runs such a command, or its program, and what it says there."""
NEVER = {
    r"^scripts/test": "it runs this",
    r"^scripts/docs --external": "it asks other sites",
    r"make_emoji_world|measure_emoji_world": "it takes hours; its parts are tested",
    r"bench_start": "it measures how long help takes, which no test may",
}
"""Pattern -> why no test runs it."""
PLACES = {
    "--dataset FOLDER": "--dataset runs/emoji-data",
    "--base FOLDER": "--base TINY",
    "--train RUN": "--train runs/emoji-lora",
    "--study RUN": "--study runs/emoji-study",
    "show MINE.yaml": "show small.yaml",
    "--config MINE.yaml": "--config compare.yaml",
    "folder OTHER": "folder PEOPLE",
    "BUNDLE": "runs/emoji-bundle",
    "--repeats 400 --labels 150 1200": "--repeats 2 --labels 150",
}
"""What a reader would put in, of the files here."""
GATED = "unskew evaluate --config emoji/study-proof.yaml"
"""Ends with 1 where its gate fails, as it must with an adapter of two steps."""


def typed(command: str) -> str:
    """A command of a page without its comment, in one way of quoting."""
    return shlex.join(shlex.split(command, comments=True))


@pytest.mark.slow
def test_every_command_runs(
    tiny_base: Path, tiny_people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order, each with exit code 0."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    write_prompts(Path("small.yaml"))
    made = {"TINY": str(tiny_base), "PEOPLE": str(tiny_people)}
    failed = []
    for command, more in STEPS:
        prepare(command)
        meant = command
        for name, place in PLACES.items():
            meant = meant.replace(name, place)
        words = [made.get(word, word) for word in shlex.split(meant)]
        given = [made.get(word, word) for word in shlex.split(more)]
        if (code := run(words + without(given, words))) != (command == GATED):
            failed.append((command, code))
    assert not failed


def run(words: list[str]) -> int:
    """The exit code of a command of ours, in this process."""
    if words[0] == "unskew":
        return cli.main(words[1:])
    module = words[1].removesuffix(".py").replace("/", ".")
    if module in FILES:
        return cli.main([*FILES[module].split(), *words[2:]])
    code: int = importlib.import_module(f"unskew.{module}").main(words[2:])
    return code


def without(given: list[str], words: list[str]) -> list[str]:
    """Options and their values, but those that the words have already."""
    kept: list[str] = []
    for n, word in enumerate(given):
        option = next((w for w in reversed(given[: n + 1]) if w.startswith("--")), "")
        kept += [word] * (option not in words)
    return kept


def prepare(command: str) -> None:
    """What a person would have done before this command."""
    if command == "unskew data build --config mine.yaml --dry-run":
        write_photos()
    if command == "unskew evaluate --config emoji/study-proof.yaml":
        for seed in range(3):
            Path(f"runs/emoji-lora-{seed}").symlink_to("emoji-lora")
    if command == "unskew compare --config MINE.yaml --dry-run":
        settings = (ROOT / "configs" / "emoji" / "compare.yaml").read_text("utf-8")
        Path("compare.yaml").write_text(settings.replace("runs/emoji-compare", "runs/c"), "utf-8")
    if command.endswith("--arms base ours-0_75 --pairs 100"):
        shutil.rmtree("runs/emoji-compare/blind")  # other pairs than those that were drawn
    if "choices-" in command:
        sample = load_blind_sample(Path("runs/emoji-compare"), "better")
        assert sample is not None
        answers = dict.fromkeys((pair.id for pair in sample.pairs), "left")
        for rater in ("ana", "ben"):
            write_answers(f"choices-{rater}.json", sample, rater, choices=answers)
    if "--labels" in command:
        labels = load_sample(Path("runs/emoji-study"))
        assert labels is not None
        values = pd.read_parquet("runs/emoji-study/readings.parquet").groupby("attribute")["value"]
        first = values.first()
        answers = {task.id: str(first[task.attribute]) for task in labels.tasks}
        for rater, name in (("ana", "labels-ana"), ("ana", "ana"), ("ben", "ben")):
            write_answers(f"{name}.json", labels, rater, labels=answers)
    if command.startswith("unskew publish"):
        for run_folder in ("runs/emoji-lora", "runs/emoji-study"):
            file = Path(run_folder, "manifest.json")
            clean = {"commit": "c0ffee" * 6 + "c0ff", "dirty": False}
            file.write_text(json.dumps({**json.loads(file.read_text()), "git": clean}), "utf-8")


def write_prompts(file: Path) -> None:
    """Suites that are called as Emoji World's; noise reads as one of these two subjects."""
    attributes = ["presentation", "skin_tone"]
    subjects = {"mechanic": "a mechanic", "health-worker": "a health worker"}
    templates = [f"{{x}} {place}".strip() for place in ("", *map(str, range(11)))]
    neutral = {"role": "neutral", "attributes": attributes, "subjects": subjects}
    asked = {"presentation": "woman", "skin_tone": "dark"}
    woman = {"text": "a woman mechanic with dark skin", "subject": "mechanic", "asked": asked}
    blocks: list[dict[str, Any]] = [
        {**neutral, "suite": "trained", "templates": templates},
        {**neutral, "suite": "contextual", "templates": [f"{t} outside" for t in templates]},
        {**neutral, "suite": "held_out", "templates": [f"{t} inside" for t in templates]},
        {"suite": "explicit", "role": "explicit", "attributes": attributes, "prompts": [woman]},
        {
            "suite": "control",
            "role": "control",
            "attributes": [],
            "templates": ["{x}"],
            "subjects": {
                "apple": "a red apple",
                "dog": "a dog",
                "market": "a christmas market in the snow",
            },
        },
    ]
    file.write_text(yaml.safe_dump(blocks, sort_keys=False), "utf-8")


def write_photos() -> None:
    """The folder and the settings that docs/data.md begins with."""
    text = (ROOT / "docs" / "data.md").read_text("utf-8")
    table = next(re.finditer(r"```\n(file_name,.*?)```", text, re.S))[1]
    settings = next(re.finditer(r"```yaml\n(out: runs/mine.*?)```", text, re.S))[1]
    Path("mine.yaml").write_text(settings, "utf-8")
    Path("my-photos.yaml").write_text(settings.replace("runs/mine", "runs/my-photos"), "utf-8")
    Path("photos").mkdir()
    Path("photos/metadata.csv").write_text(table, "utf-8")
    for seed, line in enumerate(table.splitlines()[1:]):
        pixels = np.random.default_rng(seed).integers(0, 256, (300, 300, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(Path("photos", line.split(",")[0]))


def write_answers(name: str, sample: Any, rater: str, **answers: Mapping[str, str]) -> None:
    """A file as the page for raters would download it."""
    said = {"schema_version": 1, "run": sample.run, "sample": sample.sha256, "rater": rater}
    Path(name).write_text(json.dumps({**said, **answers}), "utf-8")


@pytest.mark.parametrize("pattern", ELSEWHERE)
def test_what_runs_elsewhere_does(pattern: str) -> None:
    """The test that is named is there, and has the words that run it."""
    file, words = ELSEWHERE[pattern]
    assert words in (ROOT / "tests" / file).read_text("utf-8")


def test_every_command_has_its_test() -> None:
    """It is one of those above, or another test's, or has its reason."""
    here = {typed(command) for command, _ in STEPS}
    # A page may speak of a verb by its name alone.
    here |= {f"unskew {cli.chosen(shlex.split(command)[1:])[0]}" for command in here}
    said = {
        typed(command) for _, command in pages.COMMANDS if not re.match(r"scripts/( |$)", command)
    }
    lacking = [c for c in said - here if not any(re.search(p, c) for p in (*ELSEWHERE, *NEVER))]
    assert not sorted(lacking)


def test_every_step_is_on_a_page() -> None:
    """None is left of a page that changed."""
    told = {typed(command) for _, command in pages.COMMANDS}
    assert [command for command, _ in STEPS if typed(command) not in told] == []

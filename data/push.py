"""Push a dataset folder to the hub: what to send is shown first, and it is private unless asked.

unskew data push --folder runs/mine --repo me/mine --dry-run   # what would be sent
unskew data push --folder runs/mine --repo me/mine             # private; --private no for everybody
the same command again                                         # sends only what is not there
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from unskew.data.card_own import BALANCE_PICTURE
from unskew.data.croissant import CROISSANT
from unskew.data.imagefolder import CARD, METADATA
from unskew.data.picture_sheet import SHEET
from unskew.errors import UserError
from unskew.runs import read_manifest, sha256_file
from unskew.settings import Settings, config_path, resolve, run_program

SENT = (METADATA, CARD, CROISSANT, BALANCE_PICTURE, SHEET)
"""Beside the pictures. The rest stays here: the manifest and logs name files of this machine, and
pages of what was screened out show pictures that are not in the dataset."""
REPO = re.compile(r"(\w[\w.-]*/)?\w[\w.-]{0,95}", re.ASCII)
UNKNOWN = ("", "unknown")
SHOWN = 5
NOT_AUTHORISED = (401, 403)


class PushSettings(Settings):
    """What goes where."""

    folder: Path
    """A dataset folder that `unskew data` wrote."""
    repo: str | None = None
    """Name at the hub, such as "me/mine"; it is made where it is missing."""
    private: bool = True
    """Only you see it. No makes it public, which needs the licence of every picture."""
    message: str = "Add a balanced dataset"
    """Of the commit."""
    also: tuple[str, ...] = ()
    """Further files of the folder to send, such as caption-changes.jsonl."""


def main(argv: Sequence[str]) -> int:
    """Check the folder, show what goes, and send it. Returns 0."""
    asked = resolve(
        PushSettings,
        argv,
        default_config=config_path("emoji/push.yaml"),
        prog="unskew data push",
        description=(__doc__ or "").split("\n")[0],
    )
    out = sys.stderr if asked.json else sys.stdout
    files = check_folder(asked.settings)
    total = sum((asked.settings.folder / name).stat().st_size for name in files)
    seen = "only you" if asked.settings.private else "EVERYBODY"
    print(
        f"{asked.settings.folder} -> {asked.settings.repo or '(no repo given)'}: {len(files)} "
        f"files, {total / 1e6:.1f} MB; seen by {seen}",
        file=out,
    )
    for name in [f for f in files if not f.startswith("images/")]:
        print(f"  {name}", file=out)
    kept = sorted(f.name for f in asked.settings.folder.iterdir() if _stays(f, files))
    print(f"  stays here: {', '.join(kept) or 'nothing'}", file=out)
    if asked.dry_run:
        print("dry run: nothing was sent", file=out)
        url = None
    else:
        url = send(asked.settings, files)
        print(f"sent: {url}", file=out)
    if asked.json:
        print(json.dumps({"files": len(files), "bytes": total, "url": url}, indent=2))
    return 0


def check_folder(settings: PushSettings) -> list[str]:
    """Names of the files to send, the pictures first.

    Raises UserError that lists all that is wrong: a folder that is no complete dataset, a picture
    that is missing or is not what the metadata says, a licence that nobody knows.
    """
    folder = settings.folder
    problems = list(_of_settings(settings))
    if read_manifest(folder)["status"] != "complete" or not (folder / METADATA).is_file():
        problems.append(f"{folder} is no complete dataset: the command that made it finishes it")
        raise _refusal(problems)
    lines = (folder / METADATA).read_text("utf-8").splitlines()
    rows: list[Mapping[str, Any]] = [json.loads(line) for line in lines]
    hashes = {str(row["file_name"]): str(row["sha256"]) for row in rows}
    problems += [
        f"{name} {trouble}"
        for name, sha in hashes.items()
        if (trouble := _trouble(folder, name, sha))
    ][:SHOWN]
    there = {f"images/{f.name}" for f in (folder / "images").glob("[!.]*")}
    problems += [
        f"{name} is in no row of {METADATA}" for name in sorted(there - set(hashes))[:SHOWN]
    ]
    unknown = Counter(str(row.get("source")) for row in rows if row.get("license") in UNKNOWN)
    if unknown and not settings.private:
        source, count = unknown.most_common(1)[0]
        problems.append(
            f"{unknown.total()} rows have no known licence (most from {source!r}, {count}), and "
            "the dataset would be public: say it in the sources' license, or keep it private"
        )
    problems += [
        f"also names {name!r}, which is no file of it"
        for name in settings.also
        if not (folder / name).is_file() or Path(name).name != name
    ]
    if problems:
        raise _refusal(problems)
    further = [name for name in (*SENT, *settings.also) if (folder / name).is_file()]
    return [*sorted(hashes), *dict.fromkeys(further)]


def send(settings: PushSettings, files: Sequence[str]) -> str:
    """Send the files in one commit; the address where they are.

    The token is the hub's own login's and is never read or shown here. Raises UserError for a token
    that is missing or refused, a repository that is public where a private one was asked for, and
    a connection that breaks.
    """
    repo = settings.repo
    if repo is None:
        raise UserError("repo must be given: the dataset's name at the hub, such as me/mine")
    if not get_token():
        raise UserError(
            f"push to {repo}: nobody is logged in at the hub: use `hf auth login`, or set HF_TOKEN "
            "to a token that may write"
        )
    api = HfApi()
    try:
        try:
            found = api.repo_info(repo, repo_type="dataset")
        except RepositoryNotFoundError:
            api.create_repo(repo, repo_type="dataset", private=settings.private)
            found = api.repo_info(repo, repo_type="dataset")
        if settings.private and not found.private:
            raise UserError(
                f"push to {repo}: it is public, but private is asked for: give --private no if "
                "everybody may see the pictures, or another name"
            )
        api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=settings.folder,
            allow_patterns=["images/*", *(name for name in files if "/" not in name)],
            ignore_patterns=["images/.*"],
            commit_message=settings.message,
            parent_commit=found.sha,
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError) as error:
        raise UserError(f"push to {repo}: {_told(error)}") from None
    return f"{api.endpoint}/datasets/{repo}"


def _of_settings(settings: PushSettings) -> Iterator[str]:
    if settings.repo is not None and not REPO.fullmatch(settings.repo):
        yield f"repo {settings.repo!r} is no name at the hub: give one such as me/mine"


def _refusal(problems: Sequence[str]) -> UserError:
    return UserError("the dataset cannot be pushed:" + "".join(f"\n  {p}" for p in problems))


def _trouble(folder: Path, name: str, sha256: str) -> str | None:
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):
        return "leads out of the folder"
    if not file.is_file():
        return "is missing"
    return None if sha256_file(file) == sha256 else "is not what metadata.jsonl says (sha256)"


def _stays(file: Path, files: Sequence[str]) -> bool:
    return file.is_file() and not file.name.startswith(".") and file.name not in files


def _told(error: Exception) -> str:
    """What went wrong, without addresses: those of an upload hold signatures."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in NOT_AUTHORISED:
        return (
            f"the hub refused the token (status {status}): log in with `hf auth login`, or set "
            "HF_TOKEN, with a token that may write there"
        )
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it to upload"
    kind = type(error).__name__ if status is None else f"status {status}"
    return f"the upload broke off ({kind}); the same command again sends what is not there"


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))

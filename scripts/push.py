"""Upload a bundle to a model hub, through huggingface_hub's own client, in one commit.

What has arrived stays at the hub even where an upload was cut off, so the same command again sends
what is missing. The token is the one of the hub's own login; it is never read, shown or kept here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    get_token,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from unskew.errors import UserError
from unskew.scripts.bundle import bundle_files
from unskew.scripts.bundle_schema import BUNDLE, CHECKSUMS
from unskew.scripts.publish_options import PublishSettings

Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete
OF_THE_HUB = (".gitattributes",)
"""Files that the hub adds by itself."""
NOT_AUTHORISED = (401, 403)
FAILURES = (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError, RuntimeError, ValueError)
"""What the client raises; ValueError where the hub does not take the card."""


@dataclass(frozen=True)
class Pushed:
    """Where a bundle is now."""

    url: str
    revision: str
    """Commit at the hub."""
    private: bool
    new: bool
    """Whether this push made a commit; False where the hub had all of it."""


def push(bundle: Path, settings: PublishSettings) -> Pushed:
    """Upload the bundle to `settings.push`, made where it is missing; what the hub has stays.

    Raises UserError for a token that is missing or refused, for a repository that holds something
    else or is public where a private one was asked for, and for a connection that breaks.
    """
    repo = settings.push
    assert repo is not None
    if not get_token():
        raise UserError(
            f"push {repo}: nobody is logged in at the hub: use `hf auth login`, or set HF_TOKEN to "
            "a token that may write"
        )
    api = HfApi(endpoint=settings.endpoint)
    try:
        before = _repository(api, repo, settings)
        operations: list[Operation] = [*_added(bundle), *_stale(bundle, before)]
        done = api.create_commit(
            repo,
            operations,
            commit_message=settings.commit_message,
            parent_commit=before.sha,
        )
        after = api.repo_info(repo)
    except FAILURES as error:
        raise UserError(f"push {repo}: {_told(error)}") from None
    url = f"{api.endpoint}/{repo}"
    return Pushed(url, done.oid, bool(after.private), new=done.oid != before.sha)


def _repository(api: HfApi, repo: str, settings: PublishSettings) -> Any:
    """What the hub says of the repository, which is made where it is missing. Raises UserError."""
    try:
        found = api.repo_info(repo)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=settings.private)
        return api.repo_info(repo)
    names = _names(found)
    if names and not {BUNDLE, CHECKSUMS} <= names:
        raise UserError(
            f"push {repo}: it holds {len(names)} files ({', '.join(sorted(names)[:3])}), but no "
            "bundle of Unskew's, so nothing is put over them: give another name"
        )
    if settings.private and not found.private:
        raise UserError(
            f"push {repo}: it is public, but private is asked for: give --private false if "
            "everybody may see the bundle, or another name"
        )
    return found


def _names(found: Any) -> set[str]:
    return {one.rfilename for one in found.siblings or ()} - set(OF_THE_HUB)


def _added(bundle: Path) -> Iterator[CommitOperationAdd]:
    for name, _ in bundle_files(bundle):
        yield CommitOperationAdd(path_in_repo=name, path_or_fileobj=bundle / name)


def _stale(bundle: Path, before: Any) -> Iterator[CommitOperationDelete]:
    """Files of an earlier bundle that this one has not; older commits keep them."""
    for name in sorted(_names(before) - {name for name, _ in bundle_files(bundle)}):
        yield CommitOperationDelete(path_in_repo=name)


def _told(error: Exception) -> str:
    """What went wrong, without addresses: those of an upload hold signatures."""
    if type(error) is ValueError:  # the client's word; of answers it makes a ValueError of its own
        return f"the hub does not take it: {error}"
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    response = getattr(first, "response", None)
    status = getattr(response, "status_code", None)
    if status in NOT_AUTHORISED:
        return (
            f"the hub refused the token (status {status}): log in with `hf auth login`, or set "
            "HF_TOKEN, with a token that may write there"
        )
    if isinstance(first, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it to upload"
    if status is not None and status < 500:
        return f"the hub answered {status} ({getattr(first, 'server_message', None) or 'no word'})"
    kind = type(first).__name__ if status is None else f"status {status}"
    return (
        f"the upload broke off ({kind}); what has arrived stays there, and the same command again "
        "sends the rest"
    )

"""Fetching from the model hub, and what to do where it refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from unskew.errors import UserError

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def is_hub_id(name: str) -> bool:
    """Whether a name looks like "org/name" and nothing here is called so."""
    return not Path(name).exists() and bool(_HUB_ID.fullmatch(name))


def fetch(
    name: str,
    *,
    what: str,
    revision: str | None,
    allow: Sequence[str],
    ignore: Sequence[str] = (),
    otherwise: str,
) -> Path:
    """A repository's files of these patterns, in the folder where the hub's own cache holds them.

    `revision` is a commit, tag or branch; None is the main branch. Errors name the thing by `what`
    it is ("base org/name") and say what may be given `otherwise` ("a folder or a file"). Raises
    UserError when it is gated, not there, not there at this revision, or cannot be reached.
    """
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=list(allow), ignore_patterns=list(ignore)
            )
        )
    except GatedRepoError as error:
        raise UserError(
            f"{what} {name} is gated on the hub: accept its terms on its page there, log in with "
            "`hf auth login` or set HF_TOKEN, and give the same command again"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(
            f"{what} {name} has no revision {revision} on the hub: give a commit, tag or branch "
            "that is listed there, or leave the revision out"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"{what} {name} is not here and not found on the hub: give {otherwise}, or a hub id; "
            "if it is private, log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except OSError as error:  # offline and what the hub's client says of the connection
        at = f" at revision {revision}" if revision else ""
        raise UserError(
            f"{what} {name}{at} is not here, and could not be fetched from the hub "
            f"({type(error).__name__}: {error}): fetch it where there is a connection "
            f"(`hf download {name}`), or give {otherwise}"
        ) from error

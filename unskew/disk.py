"""A disk that is full, or may not be written to, is the user's to mend."""

from __future__ import annotations

import errno
import os
import re

from safetensors import SafetensorError

MAKE_ROOM = "make room on that disk, or give a folder on another one"
ALLOW = "make it writable for this user, or give another folder"
TROUBLES = {
    errno.ENOSPC: MAKE_ROOM,
    errno.EDQUOT: MAKE_ROOM,
    errno.EFBIG: "allow larger files (ulimit -f), or give a folder on another disk",
    errno.EROFS: ALLOW,
    errno.EACCES: ALLOW,
    errno.EPERM: ALLOW,
}
"""What a disk may say, and what to do then."""


def of_the_disk(error: BaseException) -> int | None:
    """The number in TROUBLES of what the system said, also of what safetensors tells of it."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, SafetensorError) and (told := re.search(r"os error (\d+)", str(error))):
        number = int(told[1])
    return number if number in TROUBLES else None


def trouble(error: BaseException) -> str | None:
    """What failed, where, and what to do next; None when it is no fault of a disk's."""
    number, file = of_the_disk(error), getattr(error, "filename", None)
    if number is None or (file is None and TROUBLES[number] == ALLOW):  # not of any file
        return None
    return (
        f"{file or 'a file'} could not be written ({os.strerror(number)}): {TROUBLES[number]}. "
        "What was saved before is whole: the same command goes on from there"
    )

"""Picture files without what is written beside the pixels: place, time, camera, owner, prompts.

The pixels' own bytes stay as they are, so nothing is lost by decoding and encoding again. JPEG's
markers are in ITU-T T.81, Annex B; PNG's chunks in ISO/IEC 15948.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
PNG_KEPT = {
    b"IHDR",
    b"PLTE",
    b"IDAT",
    b"IEND",
    b"tRNS",
    b"gAMA",
    b"cHRM",
    b"sRGB",
    b"iCCP",
    b"sBIT",
}
JPEG_KEPT = {0xE0, 0xE2, 0xEE}
"""Of the application markers: JFIF, the colour profile, and Adobe's, which says how colours are
stored."""
JPEG_COMMENT, JPEG_SCAN, JPEG_END = 0xFE, 0xDA, 0xD9


def without_metadata(content: bytes) -> bytes | None:
    """The same picture; None for a format or a file that is not understood, to be encoded anew."""
    try:
        if content.startswith(PNG):
            return PNG + b"".join(_png_chunks(content))
        if content.startswith(JPEG):
            return JPEG + b"".join(_jpeg_parts(content))
    except (struct.error, IndexError, ValueError):
        pass
    return None


def _png_chunks(content: bytes) -> Iterator[bytes]:
    at, kind = len(PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if end > len(content):
            raise ValueError("truncated")
        if kind in PNG_KEPT:
            yield content[at:end]
        at = end


def _jpeg_parts(content: bytes) -> Iterator[bytes]:
    """Every segment but those that say something; entropy-coded data as it is, up to the end."""
    at = len(JPEG)
    while True:
        if content[at] != 0xFF:
            raise ValueError("no marker")
        marker = content[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker == JPEG_END:
            yield content[
                at : at + 2
            ]  # what follows the end is no picture's (a second one, a film)
            return
        (length,) = struct.unpack_from(">H", content, at + 2)
        end = at + 2 + length
        if end > len(content):
            raise ValueError("truncated")
        says = marker == JPEG_COMMENT or (0xE0 <= marker <= 0xEF and marker not in JPEG_KEPT)
        if not says:
            yield content[at:end]
        at = end
        if marker == JPEG_SCAN:
            while not (content[at] == 0xFF and content[at + 1] not in _IN_SCAN):
                found = content.find(b"\xff", at + 1 if content[at] != 0xFF else at + 2)
                if found < 0:
                    raise ValueError("no end")
                yield content[at:found]
                at = found


_IN_SCAN = {0x00, *range(0xD0, 0xD8)}
"""After 0xFF inside a scan: a stuffed byte, and restart markers."""

"""Format, size and bit depth of a picture, read from its first bytes alone.

A file of some hundred bytes can claim any number of pixels. Pillow checks that only after the
format's plugin is open, and the WebP plugin has made room for all of them by then. So the claim is
read here first: PNG (IHDR, W3C PNG section 11.2.1), JPEG (frame header, ITU T.81 section B.2.2),
WebP (RFC 9649, section 2).
"""

import zlib
from typing import NamedTuple


class ImageHeader(NamedTuple):
    """What a file claims to be. Width and height may be zero: the file decides."""

    format: str
    width: int
    height: int
    bit_depth: int


def read_image_header(data: bytes | bytearray | memoryview) -> ImageHeader | None:
    """The header, or None where there is no whole header of a PNG, JPEG or WebP file."""
    view = memoryview(data)
    head = bytes(view[:30])
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return _png(head)
    if head[:2] == b"\xff\xd8":
        return _jpeg(view)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp(head)
    return None


def png_damage(data: bytes | bytearray | memoryview) -> str | None:
    """Why a PNG file is not whole, or None: its chunks must match their checksums up to IEND.

    Pillow does not check the checksums of pixel data, so that one flipped bit on a disk would
    change the picture, and its score, without a word.
    """
    view = memoryview(data)
    at = 8
    while at + 12 <= len(view):
        end = at + 8 + int.from_bytes(view[at : at + 4])
        kind = bytes(view[at + 4 : at + 8])
        if end + 4 > len(view):
            break
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4]):
            return f"chunk {kind.decode('ascii', 'replace')!r} does not match its checksum"
        if kind == b"IEND":
            return None
        at = end + 4
    return "the file ends early"


def _png(head: bytes) -> ImageHeader | None:
    if len(head) < 26 or head[12:16] != b"IHDR":
        return None
    width, height = int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    return ImageHeader("PNG", width, height, head[24])


def _jpeg(view: memoryview) -> ImageHeader | None:
    """Walk the marker segments up to the frame header (SOF0 … SOF15)."""
    at = 2
    while at + 9 <= len(view) and view[at] == 0xFF:
        marker = view[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (
                int.from_bytes(view[at + 5 : at + 7]),
                int.from_bytes(view[at + 7 : at + 9]),
            )
            return ImageHeader("JPEG", width, height, view[at + 4])
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # a marker without a segment
            at += 2
        else:
            at += 2 + int.from_bytes(view[at + 2 : at + 4])
    return None


def _webp(head: bytes) -> ImageHeader | None:
    if len(head) < 30:
        return None
    if head[12:16] == b"VP8X":
        width = 1 + int.from_bytes(head[24:27], "little")
        height = 1 + int.from_bytes(head[27:30], "little")
    elif head[12:16] == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif head[12:16] == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width = int.from_bytes(head[26:28], "little") & 0x3FFF
        height = int.from_bytes(head[28:30], "little") & 0x3FFF
    else:
        return None
    return ImageHeader("WEBP", width, height, 8)

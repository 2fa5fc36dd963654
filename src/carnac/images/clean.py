"""An image file -> the same file without what its maker wrote beside the picture: no pixel is decoded or changed.

Left out are EXIF (place, time, camera), XMP, IPTC, comments, thumbnails, second pictures, unknown blocks, and what
follows the end. Kept is what the pixels need (frames of an animation and transparency too) and their colours: ICC
profiles, gamma, Adobe's mark.

Sources: ITU-T T.81 annex B (JPEG) and JFIF 1.02, W3C PNG 3rd edition, GIF89a, the WebP container specification.
What is not understood from some place on is kept from there on: a decoder saw the whole file before.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator

from carnac.images.settings import MediaType

MARKER = re.compile(rb"\xff([^\x00\xff])")  # decoders skip what is none
MARKER_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # neither a stuffed 0xFF nor a restart
START_OF_SCAN, END_OF_IMAGE, FRAME_HEIGHT = 0xDA, 0xD9, 0xDC
# Frames, tables and their like: the codes of T.81 table B.1 that a picture is made of.
TABLES = frozenset((*range(0xC0, 0xD0), START_OF_SCAN, 0xDB, FRAME_HEIGHT, 0xDD, 0xDE, 0xDF)) - {0xC8}
NOTES = frozenset((*range(0xE0, 0xF0), 0xFE))  # application segments and comments
BARE = frozenset((0x01, *range(0xD0, 0xD8)))  # without a length
SEGMENTS = TABLES | NOTES
BEFORE_SCANS = SEGMENTS | BARE
# Application segments that decide on colours, by code: how they begin, and the bytes that a decoder wants to see.
COLOURS: dict[int, tuple[bytes, int]] = {0xE0: (b"JFIF\x00", 14), 0xE2: (b"ICC_PROFILE\x00", 14), 0xEE: (b"Adobe", 12)}

PNG_SIGNATURE_BYTES = 8
PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT")
PNG_COLOURS = (b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"mDCV", b"cLLI", b"sBIT")
PNG_CHUNKS = frozenset((*PNG_PIXELS, *PNG_COLOURS))
PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"

WEBP_CHUNKS = frozenset((b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))
WEBP_NOTES = 0x0C  # the flags of VP8X that announce EXIF and XMP
ANIMATION_FRAME_BYTES = 16  # of ANMF, before its own chunks

GIF_EXTENSION, GIF_FRAME, GIF_END = 0x21, 0x2C, 0x3B
GRAPHIC_CONTROL, APPLICATION = 0xF9, 0xFF
GIF_APPLICATIONS = (b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012")  # loops, loops, a colour profile


def clean_image(payload: bytes, media_type: MediaType) -> bytes:
    """Return `payload` without its metadata; the very same object where there is none.

    `payload` was decoded before: nothing is checked here but that nothing is read beyond its end.
    """
    cleaned = b"".join(PIECES[media_type](payload))
    return payload if cleaned == payload else cleaned


def _jpeg_pieces(data: bytes) -> Iterator[bytes]:
    kept_from, place = 0, 2
    while (marker := MARKER.search(data, place)) is not None:
        start, code = marker.start(), data[marker.end() - 1]
        if start > place:  # what was skipped
            yield data[kept_from:place]
            kept_from = start
        end = _segment_end(data, start)
        if end is None or code == START_OF_SCAN or code not in BEFORE_SCANS:
            yield from _scans(data, kept_from, start)
            return
        if code not in TABLES and (kept := _kept_note(code, data[start + 4 : end])) != data[start:end]:
            yield from (data[kept_from:start], kept)
            kept_from = end
        place = end
    yield data[kept_from:]


def _segment_end(data: bytes, start: int) -> int | None:
    """Return where the segment whose marker is at `start` ends; None if it has no sound length."""
    if data[start + 1] in BARE:
        return start + 2
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    end = start + 2 + length
    return end if length >= 2 and end <= len(data) else None


def _kept_note(code: int, body: bytes) -> bytes:
    """Return what is kept of a note in front of the pixels: nothing, or a segment that decides on colours."""
    begin, length = COLOURS.get(code, (b"", 1 << 16))
    if len(body) < length or not body.startswith(begin):
        return b""
    if code == 0xE0:
        body = body[: length - 2] + bytes(2)  # the size of a thumbnail, which would follow
    elif code == 0xEE:
        body = body[:length]
    return b"".join((b"\xff", bytes((code,)), (len(body) + 2).to_bytes(2, "big"), body))


def _scans(data: bytes, start: int, first_scan: int) -> list[bytes]:
    """Return the pieces from `start` to the end of the picture, without notes between the scans.

    Of damaged data libjpeg makes what it can, marker by marker; so that it makes the same of it, all that follows is
    kept where anything but whole segments and scans is met.
    """
    pieces: list[bytes] = []
    kept_from, place = start, first_scan
    while place + 1 < len(data) and data[place] == 0xFF:
        code, end = data[place + 1], _segment_end(data, place)
        if code == END_OF_IMAGE:
            return [*pieces, data[kept_from : place + 2]]
        if code == 0xFF:  # fill
            place += 1
            continue
        if end is None or code not in SEGMENTS:
            break
        if code in NOTES:
            pieces.append(data[kept_from:place])
            kept_from = end
        place = end
        if code == START_OF_SCAN:
            marker = MARKER_IN_SCAN.search(data, end)
            if marker is None:
                break
            place = marker.start()
    return [data[start:]]


def _png_pieces(data: bytes) -> Iterator[bytes]:
    yield data[:PNG_SIGNATURE_BYTES]
    place = PNG_SIGNATURE_BYTES
    while place + 12 <= len(data):
        name = data[place + 4 : place + 8]
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            break
        if name in PNG_CHUNKS or name[:1].isupper():  # who does not know a critical chunk must not show the picture
            yield data[place:end]
        if name == b"IEND":
            return
        place = end
    # All pixels are there, or it would not have been decoded, but perhaps not all of the checksums behind them.
    if (name := data[place + 4 : place + 8]) in (b"IDAT", b"fdAT"):
        body = data[place + 8 : place + 8 + int.from_bytes(data[place : place + 4], "big")]
        checksum = zlib.crc32(body, zlib.crc32(name))
        yield b"".join((len(body).to_bytes(4, "big"), name, body, checksum.to_bytes(4, "big")))
    yield PNG_END


def _webp_pieces(data: bytes) -> Iterator[bytes]:
    end = min(int.from_bytes(data[4:8], "little") + 8, len(data))
    chunks = b"".join(_webp_chunks(data, 12, end))
    yield b"".join((b"RIFF", (len(chunks) + 4).to_bytes(4, "little"), b"WEBP", chunks))


def _webp_chunks(data: bytes, place: int, end: int) -> Iterator[bytes]:
    while place + 8 <= end:
        name, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        next_place = place + 8 + length + length % 2
        if next_place > end + length % 2:
            break
        if name == b"VP8X" and length:
            yield data[place : place + 8] + bytes((data[place + 8] & ~WEBP_NOTES,)) + data[place + 9 : next_place]
        elif name == b"ANMF":
            inner, inner_end = place + 8 + ANIMATION_FRAME_BYTES, place + 8 + length
            # Without any chunk that is known it would be no frame, and no file.
            chunks = b"".join(_webp_chunks(data, inner, inner_end)) or data[inner:inner_end]
            body = data[place + 8 : inner] + chunks
            yield b"".join((name, len(body).to_bytes(4, "little"), body, bytes(len(body) % 2)))
        elif name in WEBP_CHUNKS:
            yield data[place : min(next_place, end)]
        place = next_place
    yield data[place:end]


def _gif_pieces(data: bytes) -> Iterator[bytes]:
    place = 13 + _gif_colours(data[10])
    yield data[:place]
    while place < len(data):
        start, kind = place, data[place]
        if kind == GIF_END:
            yield data[start : start + 1]
            return
        if kind == GIF_FRAME and start + 10 <= len(data):
            place = _gif_blocks_end(data, start + 11 + _gif_colours(data[start + 9]))
            yield data[start:place]
        elif kind == GIF_EXTENSION:
            place = _gif_blocks_end(data, start + 2)
            if _is_needed(data[start + 1 : start + 14]):
                yield data[start:place]
        else:
            yield data[start:]
            return


def _gif_colours(flags: int) -> int:
    """Return the bytes of the colour table that the flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_blocks_end(data: bytes, place: int) -> int:
    """Return where the data blocks that begin at `place` end: behind the first empty one, or behind the file."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return place + 1


def _is_needed(extension: bytes) -> bool:
    label = extension[:1]
    return label == bytes((GRAPHIC_CONTROL,)) or (
        label == bytes((APPLICATION,)) and extension[2:].startswith(GIF_APPLICATIONS)
    )


PIECES: dict[MediaType, Callable[[bytes], Iterator[bytes]]] = {
    "image/jpeg": _jpeg_pieces,
    "image/png": _png_pieces,
    "image/webp": _webp_pieces,
    "image/gif": _gif_pieces,
}

"""Real pictures, as many different ones as a web needs: a few are encoded, the others differ in a table of theirs.

A JPEG is told apart by its quantisation table, a PNG by its palette: other pixels and other bytes for a few
microseconds, and not in what is removed from a file when it is cleaned. A WebP has no such table and is encoded.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType
from PIL import Image

DATA = Path(__file__).parents[2] / "recipes" / "tiny" / "data"
DIGITS = 8  # values that one place of a table takes
WEBP_SIZE = (112, 84)


class Pictures:
    """Picture after picture by number, each with bytes of its own: mostly JPEG, one of 10 a PNG, one of 20 a WebP.

    `max_side_px` bounds the sides of those that the real ones are cut to; `only_jpeg` leaves the other types out.
    """

    def __init__(self, max_side_px: int, *, only_jpeg: bool = False) -> None:
        self._only_jpeg = only_jpeg
        self._drawn = _drawn()
        # A square of 4,096 pixels still has 64 blocks: something for every table entry to act on.
        cut = [_cut(picture, max_side_px) for picture in self._drawn]
        self._jpegs = list(dict.fromkeys(_saved(picture, "JPEG", quality=88) for picture in cut))
        coloured = [] if only_jpeg else [_saved(picture.quantize(256), "PNG") for picture in cut[:40]]
        self._pngs = list(dict.fromkeys(coloured))

    def payload(self, number: int) -> bytes:
        """Return the bytes of picture `number`."""
        kind = "jpeg" if self._only_jpeg else kind_of(number)
        if kind == "webp":
            return _webp(self._drawn[number % len(self._drawn)], number)
        if kind == "png":
            base, version = number % len(self._pngs), number // len(self._pngs)
            return with_palette(self._pngs[base], version)
        return with_quantisation(self._jpegs[number % len(self._jpegs)], number // len(self._jpegs))


def kind_of(number: int) -> str:
    """Return the type of picture `number`: "jpeg", "png" or "webp"."""
    return {7: "webp", 3: "png", 13: "png"}.get(number % 20, "jpeg")


def with_quantisation(jpeg: bytes, version: int) -> bytes:
    """Return a JPEG of other colours: five entries of its first quantisation table are those of `version`."""
    table = jpeg.index(b"\xff\xdb") + 5  # marker, length, table number; then 64 bytes, coarse details first
    return _changed(jpeg, table + 5, version, step=1)


def with_palette(png: bytes, version: int) -> bytes:
    """Return a PNG with other colours: five bytes of its palette are those of `version`."""
    start = png.index(b"PLTE")
    (length,) = struct.unpack(">I", png[start - 4 : start])
    changed = _changed(png[start : start + 4 + length], 4, version, step=3)
    return png[:start] + changed + struct.pack(">I", zlib.crc32(changed)) + png[start + 8 + length :]


def _changed(data: bytes, place: int, version: int, step: int) -> bytes:
    assert version < DIGITS**5, version
    changed = bytearray(data)
    for _ in range(5):
        # The three lowest bits are the digit: never 0, which no quantisation table may hold.
        changed[place] = max(8, changed[place] & 0xF8) | version % DIGITS
        version //= DIGITS
        place += step
    return bytes(changed)


@functools.cache
def _drawn() -> list[Image.Image]:
    """The pictures of the tiny recipe's archives."""
    found = []
    for path in sorted(DATA.glob("*.warc.gz")):
        with path.open("rb") as file:
            found += [
                Image.open(io.BytesIO(record.reader.read())).convert("RGB")
                for record in ArchiveIterator(file, record_types=WarcRecordType.response)
                if (record.http_content_type or "").startswith("image/png")
            ]
    return [picture for picture in found if min(picture.size) >= 64]


def _cut(picture: Image.Image, max_side_px: int) -> Image.Image:
    width, height = (min(side, max_side_px) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _webp(picture: Image.Image, number: int) -> bytes:
    """Encode a window of the picture; the number is drawn into it as bars, in base 4."""
    window = picture.resize(WEBP_SIZE)
    for place in range(10):
        grey = number // 4**place % 4 * 85
        window.paste((grey, grey, grey), (place * 8, 0, place * 8 + 8, 8))
    return _saved(window, "WEBP", quality=80, method=0)


def _saved(picture: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()

"""Bytes of an image type -> a picture of Pillow, within limits; what goes wrong on the way becomes a reason.

The order is that of cost and danger: the size as declared, the scans of a JPEG, and only then the pixels.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from functools import partial

from PIL import Image, ImageFile

from carnac.core.errors import RecordError
from carnac.images.settings import MediaType
from carnac.sequence.pixels import TURNS, orientation_of
from carnac.sequence.tiles import Size

PILLOW_FORMATS: dict[MediaType, str] = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
}

# Each progressive scan may touch every block of the image, so scans, not bytes, set the time of a decode. Encoders
# write about ten.
MAX_JPEG_SCANS = 500
START_OF_SCAN = 0xDA
# Pillow takes 300 bytes of memory for each segment of a JPEG: 20 MB of empty ones were 1.5 GB. Files of less than a
# megabyte cannot hold enough of them to matter.
MAX_SEGMENTS, MIN_BYTES_TO_COUNT = 10_000, 1 << 20
SEGMENT = re.compile(rb"\xff[\xc0-\xc7\xc9-\xcf\xda-\xef\xfe]")  # those that have a length

BAND_PIXELS = 1 << 20  # about, of a band


@contextlib.contextmanager
def opened(payload: bytes, media_type: MediaType, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """Open the image and check the size that its header declares; nothing is decoded yet.

    Raises `RecordError` (`too_many_pixels`, `truncated_image`, `undecodable`) also for whatever is raised inside.
    """
    assert not ImageFile.LOAD_TRUNCATED_IMAGES, "Pillow is set to accept truncated images"
    try:
        with warnings.catch_warnings():
            # Of damaged notes Pillow warns, and of too many pixels: ours to refuse. Of Pillow only: filters are global.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if media_type == "image/webp":
                _check_pixels(_webp_size(payload), max_pixels)  # its decoder takes memory for all pixels when opened
            elif media_type == "image/jpeg" and len(payload) > MIN_BYTES_TO_COUNT:
                _check_segments(payload)
            with Image.open(io.BytesIO(payload), formats=[PILLOW_FORMATS[media_type]]) as image:
                _check_pixels(image.size, max_pixels)
                yield image
    except RecordError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RecordError("too_many_pixels", str(error)) from error
    except MemoryError:
        raise  # its guard asks whether this machine or this picture is to blame
    except Exception as error:  # the edge of a record: decoders of damaged files raise nearly anything
        cut = "truncated" in str(error).lower() or _ends_early(payload, media_type)
        raise RecordError(
            "truncated_image" if cut else "undecodable", f"{media_type}, {type(error).__name__}: {error}"
        ) from error


def turn_of(image: ImageFile.ImageFile) -> Image.Transpose | None:
    """Return what makes the picture upright; None for nothing. A GIF has no orientation.

    It is looked up once: of a PNG, whose EXIF may stand behind its pixels, ask when it is loaded.
    """
    # A PNG's own method would decode it to see what stands there.
    return None if image.format == "GIF" else TURNS.get(orientation_of(partial(Image.Image.getexif, image)))


def is_jpeg(image: ImageFile.ImageFile) -> bool:
    """Tell whether it can be decoded at a smaller scale. A file with several pictures counts, too."""
    return image.format in ("JPEG", "MPO")


def load(image: ImageFile.ImageFile, payload: bytes, min_size: Size | None, *, luma: bool = False) -> None:
    """Decode the whole first frame, which proves that the file is whole.

    A JPEG is decoded at the smallest scale with `min_size` (width, height) pixels or more, at full size with None; with
    `luma` also without its colours, where they are stored apart. Every coefficient is still read, so a cut is found at
    the same places, for less.
    """
    if is_jpeg(image):
        # The second byte alone is counted in a third of the time, and few files have so many.
        if payload.count(b"\xda") > MAX_JPEG_SCANS and (num_scans := payload.count(b"\xff\xda")) > MAX_JPEG_SCANS:
            raise RecordError("undecodable", f"{num_scans} scans, at most {MAX_JPEG_SCANS}")
        if luma or min_size is not None:
            image.draft("L" if luma else None, min_size)
    image.load()


def bands(image: Image.Image, rows: int) -> Iterator[tuple[int, Image.Image]]:
    """Yield (top, band of so many rows): what needs a copy of a picture can do without a copy of all of it."""
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise RecordError("undecodable", f"{width} x {height} pixels")
    if width * height > max_pixels:
        raise RecordError("too_many_pixels", f"{width} x {height} pixels declared, at most {max_pixels} allowed")


def _check_segments(payload: bytes) -> None:
    """Count the segments before the first scan, and raise if there are too many."""
    place = 2
    for _ in range(MAX_SEGMENTS):
        marker = SEGMENT.search(payload, place)
        if marker is None or payload[marker.end() - 1] == START_OF_SCAN:
            return
        place = marker.end() + int.from_bytes(payload[marker.end() : marker.end() + 2], "big")
    raise RecordError("undecodable", f"more than {MAX_SEGMENTS} segments before the pixels")


def _webp_size(payload: bytes) -> Size:
    """Return the size of the canvas that the first chunk declares."""
    name, head = payload[12:16], payload[20:30]
    if len(payload) < 30:
        raise ValueError("truncated header")
    if name == b"VP8X":
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if name == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if name == b"VP8 ":
        return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
    raise ValueError(f"begins with a chunk {name!r}")


def _ends_early(payload: bytes, media_type: MediaType) -> bool:
    """Tell whether a file that did not decode lacks its end: only the reason depends on it."""
    if media_type == "image/jpeg":
        return b"\xff\xd9" not in payload[-1024:]
    if media_type == "image/png":
        return b"IEND" not in payload[-1024:]
    if media_type == "image/webp":
        return int.from_bytes(payload[4:8], "little") + 8 > len(payload)
    return not payload.rstrip(b"\x00").endswith(b";")

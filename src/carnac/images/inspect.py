"""Bytes of unknown origin -> the facts of an image, or the reason why it is none.

The order is that of cost and danger: length, signature, header (about 150 times cheaper than a decode), pixels as
declared, and only then a complete decode, which proves that the file is whole.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass

from PIL import Image, ImageFile

from carnac.core.errors import RecordError
from carnac.images.settings import ImageSettings, MediaType

PILLOW_FORMATS: dict[MediaType, str] = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
}

# (place, bytes there, media type): also of image types that are recognised only to name them in the ledger.
SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"\x00\x00\x01\x00", "image/x-icon"),
    (0, b"8BPS", "image/vnd.adobe.photoshop"),
    (0, b"\xff\x0a", "image/jxl"),
    (4, b"JXL \r\n", "image/jxl"),
    (4, b"jP  \r\n", "image/jp2"),
    (4, b"ftypavi", "image/avif"),
    (4, b"ftyphei", "image/heic"),
    (4, b"ftypmif1", "image/heif"),
)

# Each progressive scan may touch every block of the image, so scans, not bytes, set the time of a decode. Encoders
# write about ten.
MAX_JPEG_SCANS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What is known of a whole, decodable image. Width and height are as stored: EXIF orientation is not applied."""

    sha256: str
    media_type: MediaType
    width: int
    height: int


def inspect_image(payload: bytes, settings: ImageSettings) -> ImageFacts:
    """Return the facts of the image in `payload`; of several frames, the first is looked at.

    Raises `RecordError` and nothing else, whatever the bytes: `empty`, `too_many_bytes`, `not_an_image`,
    `unsupported_type`, `too_many_pixels`, `truncated_image`, `undecodable`.
    """
    assert not ImageFile.LOAD_TRUNCATED_IMAGES, "Pillow is set to accept truncated images"
    if not payload:
        raise RecordError("empty", "no bytes")
    if len(payload) > settings.max_image_bytes:
        raise RecordError("too_many_bytes", f"{len(payload)} bytes, at most {settings.max_image_bytes}")
    media_type = _supported_type(payload, settings)
    with warnings.catch_warnings():
        # Of Pillow only: filters are global, and other threads may be at work.
        warnings.filterwarnings("error", module=r"PIL\.")
        width, height = _decoded_size(payload, media_type, settings.max_pixels)
    return ImageFacts(
        sha256=hashlib.sha256(payload).hexdigest(),
        media_type=media_type,
        width=width,
        height=height,
    )


def _supported_type(payload: bytes, settings: ImageSettings) -> MediaType:
    name = sniff_media_type(payload)
    if name is None:
        raise RecordError("not_an_image", f"starts with {payload[:16]!r}")
    for media_type in settings.media_types:
        if media_type == name:
            return media_type
    raise RecordError("unsupported_type", name)


def sniff_media_type(payload: bytes) -> str | None:
    """Return the media type that the first bytes tell, also of images that are not supported; None if no image."""
    for start, signature, name in SIGNATURES:
        if payload.startswith(signature, start):
            return name
    if payload.startswith(b"RIFF") and payload[8:12] == b"WEBP":
        return "image/webp"
    if payload.startswith(b"BM") and payload[6:10] == bytes(4):
        return "image/bmp"
    head = payload[:1024].lower()
    return "image/svg+xml" if b"<svg" in head and b"<html" not in head else None


def _decoded_size(payload: bytes, media_type: MediaType, max_pixels: int) -> tuple[int, int]:
    """Return width and height after a decode of the whole first frame."""
    try:
        with Image.open(io.BytesIO(payload), formats=[PILLOW_FORMATS[media_type]]) as image:
            size = image.size
            _check_pixels(size, max_pixels)
            if media_type == "image/jpeg":
                _check_scans(payload)
                # Decoded at 1/8: every coefficient is still read, so a cut is found at the same places, for less.
                image.draft(None, (1, 1))
            image.load()
    except RecordError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RecordError("too_many_pixels", str(error)) from error
    except Exception as error:  # the edge of a record: decoders of damaged files raise nearly anything
        cut = "truncated" in str(error).lower() or _ends_early(payload, media_type)
        raise RecordError(
            "truncated_image" if cut else "undecodable", f"{media_type}, {type(error).__name__}: {error}"
        ) from error
    return size


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise RecordError("undecodable", f"{width} x {height} pixels")
    if width * height > max_pixels:
        raise RecordError("too_many_pixels", f"{width} x {height} pixels declared, at most {max_pixels} allowed")


def _check_scans(payload: bytes) -> None:
    num_scans = payload.count(b"\xff\xda")
    if num_scans > MAX_JPEG_SCANS:
        raise RecordError("undecodable", f"{num_scans} scans, at most {MAX_JPEG_SCANS}")


def _ends_early(payload: bytes, media_type: MediaType) -> bool:
    """Tell whether a file that did not decode lacks its end: only the reason depends on it."""
    if media_type == "image/jpeg":
        return b"\xff\xd9" not in payload[-1024:]
    if media_type == "image/png":
        return b"IEND" not in payload[-1024:]
    if media_type == "image/webp":
        return int.from_bytes(payload[4:8], "little") + 8 > len(payload)
    return not payload.rstrip(b"\x00").endswith(b";")

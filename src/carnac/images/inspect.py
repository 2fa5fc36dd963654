"""Bytes of unknown origin -> the facts of an image and what to store of it, or the reason why it is none.

The order is that of cost and danger: length, signature, header (about 150 times cheaper than a decode), pixels as
declared, and only then a complete decode, which proves that the file is whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from PIL import Image, ImageFile

from carnac.core.errors import RecordError
from carnac.images.clean import clean_image
from carnac.images.decode import is_jpeg, load, opened, turn_of
from carnac.images.encode import new_jpeg, new_size, size_to_decode, turned_file
from carnac.images.phash import MIN_SIDE_PX, perceptual_hash
from carnac.images.settings import ImageSettings, MediaType
from carnac.sequence.pixels import SIDEWAYS
from carnac.sequence.tiles import Size

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What is known of an image. Of the bytes to store, but for `received_sha256`; width and height as it is shown.

    `phash` (see `perceptual_hash`) is None where nothing was decoded.
    """

    received_sha256: str
    sha256: str
    media_type: MediaType
    width: int
    height: int
    phash: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenImage:
    """An image to be kept: its facts, and the bytes to store."""

    facts: ImageFacts
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """What is stored of a file."""

    payload: bytes
    media_type: MediaType
    size: Size
    phash: int | None


def take_image(payload: bytes, settings: ImageSettings) -> TakenImage:
    """Return the facts of the image in `payload` and what to store of it; of several frames, the first is looked at.

    Raises `RecordError`, whatever the bytes: `empty`, `too_many_bytes`, `not_an_image`, `unsupported_type`,
    `too_many_pixels`, `truncated_image`, `undecodable`. Only a MemoryError of this machine passes.
    """
    if not payload:
        raise RecordError("empty", "no bytes")
    if len(payload) > settings.max_image_bytes:
        raise RecordError("too_many_bytes", f"{len(payload)} bytes, at most {settings.max_image_bytes}")
    media_type = _supported_type(payload, settings)
    with opened(payload, media_type, settings.max_pixels) as image:
        stored = _stored(image, payload, media_type, settings)
    received_sha256 = hashlib.sha256(payload).hexdigest()
    is_same = stored.payload is payload
    facts = ImageFacts(
        received_sha256=received_sha256,
        sha256=received_sha256 if is_same else hashlib.sha256(stored.payload).hexdigest(),
        media_type=stored.media_type,
        width=stored.size[0],
        height=stored.size[1],
        phash=stored.phash,
    )
    return TakenImage(facts=facts, payload=stored.payload)


def _stored(image: ImageFile.ImageFile, payload: bytes, media_type: MediaType, settings: ImageSettings) -> _Stored:
    if not settings.decode:
        return _Stored(payload=payload, media_type=media_type, size=_upright(image.size, turn_of(image)), phash=None)
    size = image.size  # before a JPEG is loaded at a smaller scale
    _load(image, payload, settings)
    turn = turn_of(image)
    phash, size = perceptual_hash(image, turn), _upright(size, turn)
    if settings.store == "reencoded":
        size, media_type = new_size(size, settings), "image/jpeg"
        payload = new_jpeg(image, turn, size, settings)
    elif settings.store == "clean":
        payload = clean_image(payload, media_type) if turn is None else turned_file(image, turn, payload, media_type)
    return _Stored(payload=payload, media_type=media_type, size=size, phash=phash)


def _load(image: ImageFile.ImageFile, payload: bytes, settings: ImageSettings) -> None:
    """Decode as many pixels as the signals and what is stored want."""
    if settings.store == "reencoded":
        load(image, payload, size_to_decode(new_size(image.size, settings)))
    elif settings.store == "clean" and is_jpeg(image) and turn_of(image) is not None:
        load(image, payload, None)
    else:
        load(image, payload, (MIN_SIDE_PX, MIN_SIDE_PX), luma=True)


def _upright(size: Size, turn: Image.Transpose | None) -> Size:
    return size[::-1] if turn in SIDEWAYS else size


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

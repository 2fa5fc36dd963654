"""A decoded picture -> a file that we write ourselves: turned upright, or a new JPEG."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, ImageFile, JpegImagePlugin

from carnac.images.decode import BAND_PIXELS, bands
from carnac.images.settings import ImageSettings, MediaType
from carnac.sequence.pixels import DRAFT_FACTOR, REDUCING_GAP, opaque
from carnac.sequence.tiles import Size

# Of a file that is encoded again only to turn it: nothing to be seen is lost.
TURNED_QUALITY = 95
MAX_JPEG_SIDE_PX = 65_500  # libjpeg's
SUBSAMPLING_444, SUBSAMPLING_420 = 0, 2
PROFILE_SPACES = {"RGB": b"RGB ", "L": b"GRAY", "CMYK": b"CMYK"}


def turned_file(image: ImageFile.ImageFile, turn: Image.Transpose, payload: bytes, media_type: MediaType) -> bytes:
    """Return the first frame, decoded at full size, turned and encoded again as `media_type`, without metadata.

    JPEG and lossy WebP at quality 95, the others without loss.
    """
    options: dict[str, Any] = {"icc_profile": image.info.get("icc_profile")}
    if media_type == "image/jpeg":
        is_halved = JpegImagePlugin.get_sampling(image) == SUBSAMPLING_420  # stays so when turned
        options |= {"quality": TURNED_QUALITY, "subsampling": SUBSAMPLING_420 if is_halved else SUBSAMPLING_444}
    elif media_type == "image/webp":
        options |= {"quality": TURNED_QUALITY, "lossless": b"VP8L" in payload[:4096], "exact": True}
    return _encoded(image.transpose(turn), media_type.partition("/")[2], options)


def new_jpeg(image: Image.Image, turn: Image.Transpose | None, size: Size, settings: ImageSettings) -> bytes:
    """Return a decoded picture as a JPEG of `size` (width, height), upright, transparency laid on white."""
    picture = image if image.mode == "L" and not image.has_transparency_data else _opaque(image)
    if turn is not None:
        picture = picture.transpose(turn)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP)
    profile = image.info.get("icc_profile")
    # A profile of other colours (CMYK, turned into RGB without it) would be worse than none.
    fits = isinstance(profile, bytes) and profile[16:20] == PROFILE_SPACES[picture.mode]
    return _encoded(picture, "jpeg", {"quality": settings.quality, "icc_profile": profile if fits else None})


def new_size(size: Size, settings: ImageSettings) -> Size:
    """Return the size (width, height) of a new JPEG of a picture that is shown at `size`."""
    max_side = min(settings.max_side_px or MAX_JPEG_SIDE_PX, MAX_JPEG_SIDE_PX)
    scale = min(max_side / max(size), 1.0)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def size_to_decode(size: Size) -> Size:
    """Return the size that a picture should at least be decoded at before it is scaled down to `size`."""
    return DRAFT_FACTOR * size[0], DRAFT_FACTOR * size[1]


def _opaque(image: Image.Image) -> Image.Image:
    """Return what `opaque` returns; of a large picture with transparency in a fifth of the memory."""
    if not image.has_transparency_data:
        return opaque(image)
    picture = Image.new("RGB", image.size)
    for top, band in bands(image, max(BAND_PIXELS // image.width, 1)):
        picture.paste(opaque(band), (0, top))
    return picture


def _encoded(picture: Image.Image, pillow_format: str, options: dict[str, Any]) -> bytes:
    picture.info = {name: value for name, value in picture.info.items() if name == "transparency"}
    buffer = io.BytesIO()
    picture.save(buffer, pillow_format, **options)
    return buffer.getvalue()

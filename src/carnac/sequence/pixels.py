"""Encoded pictures to what a vision tower eats: float32 [3, H, W], normalised.

Flow in: the bytes of a file as found on the web. Flow out: arrays, or RecordError where a picture does not decode.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from carnac.core.errors import RecordError
from carnac.sequence.settings import PictureSettings

Pixels = npt.NDArray[np.float32]

# Formats of the web. Left out on purpose: EPS, which starts Ghostscript, and rarities that nobody hardens.
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 89_000_000  # Pillow warns of a bomb from 89,478,485 pixels on; we refuse just below
# A JPEG is decoded at the smallest of 1/1, 1/2, 1/4, 1/8 that is still this many times the wanted side; at 1 the
# decoder's box filter would replace most of the antialiasing.
DRAFT_FACTOR = 2
REDUCING_GAP = 3.0  # shrink by whole factors before the bicubic filter; Pillow: "almost indistinguishable" from 3 on

TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def image_tokens(width: int, height: int, settings: PictureSettings) -> int:  # noqa: ARG001 - squares look alike
    """Return how many positions a picture of `width` x `height` pixels fills in a sequence; the one place that counts.

    Every picture becomes one square, so its own size changes nothing and layouts need not read headers.
    """
    return (settings.size_px // settings.patch_px) ** 2


def load_pixels(payload: bytes, settings: PictureSettings) -> Pixels:
    """Decode a picture: upright, transparency on white, first frame, resized to a square, normalised.

    Returns float32 [3, size_px, size_px]. Raises RecordError (`image_does_not_decode`, `image_too_large`).
    """
    try:
        square = _square(payload, settings.size_px)
    except RecordError:
        raise
    except Exception as error:  # the edge of a record: Pillow's decoders raise a dozen types on damaged files
        raise RecordError("image_does_not_decode", f"{type(error).__name__}: {error}") from error
    return normalise(np.asarray(square, dtype=np.float32) / np.float32(255), settings)


def grey_pixels(settings: PictureSettings) -> Pixels:
    """Return the stand-in for a picture that does not decode: middle grey, of the planned size."""
    return normalise(np.full((settings.size_px, settings.size_px, 3), 0.5, dtype=np.float32), settings)


def normalise(values: Pixels, settings: PictureSettings) -> Pixels:
    """Turn [H, W, 3] in [0, 1] into the tower's [3, H, W]."""
    mean, std = np.asarray(settings.mean, dtype=np.float32), np.asarray(settings.std, dtype=np.float32)
    return np.ascontiguousarray(((values - mean) / std).transpose(2, 0, 1))


def _square(payload: bytes, size_px: int) -> Image.Image:
    with Image.open(io.BytesIO(payload), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise RecordError(
                "image_too_large", f"{image.width} x {image.height} pixels, wanted at most {MAX_PIXELS:,} in all"
            )
        image.draft(None, (size_px * DRAFT_FACTOR, size_px * DRAFT_FACTOR))
        image.load()
        turn = TURNS.get(_orientation(image))  # after load: TIFF turns itself and then forgets its orientation
        square = _opaque(image).resize((size_px, size_px), Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP)
        return square if turn is None else square.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001 - a good picture with damaged EXIF is a good picture
        return 1


def _opaque(image: Image.Image) -> Image.Image:
    """Return `image` as RGB, transparency laid on white: before resizing, or hidden colours would bleed into edges."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bit(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits (Pillow's own conversion clips at 255); stretch what has no natural white."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = 0.0, 65535.0
    if image.mode == "F" or values.min() < low or values.max() > high:
        low, high = float(values.min()), float(values.max())
    return Image.fromarray(((values - low) * (255 / max(high - low, 1e-9))).round().astype(np.uint8))

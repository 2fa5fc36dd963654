"""Bytes of a kept image -> what it scores: one decode, at the smallest scale that is enough, for all scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from carnac.images.decode import BAND_PIXELS, bands, load, opened, turn_of
from carnac.images.nsfw import NsfwScorer
from carnac.images.pdq import pdq_hash
from carnac.images.settings import MediaType

SIDE_PX = 512  # of the square that is scored
MAX_PIXELS = 89_478_485  # no setting lets through more (`ImageSettings.max_pixels`)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a picture scores; None where it was not asked for. `pdq` has 32 bytes."""

    nsfw_score: float | None
    pdq: bytes | None


def score_image(payload: bytes, media_type: MediaType, nsfw: NsfwScorer | None, *, with_pdq: bool) -> Scores:
    """Return the scores of the image in `payload`. Raises RecordError where it cannot be decoded."""
    picture = square(payload, media_type)
    return Scores(
        nsfw_score=None if nsfw is None else nsfw.score(picture),
        pdq=pdq_hash(picture) if with_pdq else None,
    )


def square(payload: bytes, media_type: MediaType) -> Image.Image:
    """Return the picture upright, transparency laid on white, squeezed to 512 x 512 in RGB."""
    with opened(payload, media_type, MAX_PIXELS) as image:
        load(image, payload, (SIDE_PX, SIDE_PX))
        turn = turn_of(image)
        squeezed = _reduced(image).resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    return squeezed if turn is None else squeezed.transpose(turn)


def _reduced(image: Image.Image) -> Image.Image:
    """Return `image` in RGB with sides shorter than twice 512; in bands, so that no second copy is held of it."""
    across, down = max(image.width // SIDE_PX, 1), max(image.height // SIDE_PX, 1)
    rows = max(BAND_PIXELS // (image.width * down), 1) * down
    reduced = Image.new("RGB", (-(-image.width // across), -(-image.height // down)))
    for top, band in bands(image, rows):
        reduced.paste(_on_white(band).reduce((across, down)), (0, top // down))
    return reduced


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")

"""Pictures for a page that needs no other file, as data URIs: thumbnails of photographs, drawings as they are."""

from __future__ import annotations

import base64
import io

from PIL import Image

from carnac.sequence.pixels import FORMATS, MAX_PIXELS


def thumbnail(payload: bytes, side_px: int) -> str | None:
    """Return a data URI of a picture that fits a square, or None when it does not decode."""
    try:
        with Image.open(io.BytesIO(payload), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            image.draft("RGB", (side_px, side_px))
            small = image.convert("RGBA" if image.has_transparency_data else "RGB")
            small.thumbnail((side_px, side_px))
            flat = Image.new("RGB", small.size, "white")
            flat.paste(small, mask=small if small.mode == "RGBA" else None)
    except Exception:  # noqa: BLE001 - the edge of a record: Pillow's decoders raise a dozen types on damaged files
        return None
    out = io.BytesIO()
    flat.save(out, "WEBP", quality=80)
    return data_uri(out.getvalue(), "webp")


def drawing(svg: bytes) -> str:
    """Return a data URI of an SVG of our own. As a picture it can run nothing and load nothing."""
    return data_uri(svg, "svg+xml")


def data_uri(payload: bytes, kind: str) -> str:
    """Return an encoded picture of a kind (`png`) as a URI that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(payload).decode()}"

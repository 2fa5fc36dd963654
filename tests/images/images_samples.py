"""Real pictures, from the sample WARCs."""

from __future__ import annotations

import functools
import io
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType
from PIL import Image

DATA = Path(__file__).parents[2] / "recipes" / "tiny" / "data"


def read_warc_images(path: Path) -> dict[str, bytes]:
    with path.open("rb") as file:
        return {
            record.headers["WARC-Target-URI"]: record.reader.read()
            for record in ArchiveIterator(file, record_types=WarcRecordType.response)
            if (record.http_content_type or "").startswith("image/")
        }


@functools.cache
def warc_images() -> dict[str, bytes]:
    """The 106 images of the sample, by URL."""
    return {url: payload for path in sorted(DATA.glob("*.warc.gz")) for url, payload in read_warc_images(path).items()}


@functools.cache
def encoded() -> dict[str, bytes]:
    """One real picture of the sample, and what encoders make of it; names start with the subtype."""
    url = next(url for url, payload in warc_images().items() if 20_000 < len(payload) < 60_000)
    picture = Image.open(io.BytesIO(warc_images()[url])).convert("RGB")
    turned = [picture.rotate(9), picture.rotate(20)]
    return {
        "png": warc_images()[url],
        "jpeg": save(picture, "JPEG"),
        "jpeg progressive": save(picture, "JPEG", progressive=True),
        "jpeg grey": save(picture.convert("L"), "JPEG"),
        "jpeg cmyk": save(picture.convert("CMYK"), "JPEG"),
        "jpeg several": save(picture, "MPO", save_all=True, append_images=turned),
        "webp": save(picture, "WEBP"),
        "webp lossless": save(picture, "WEBP", lossless=True),
        "webp moving": save(picture, "WEBP", save_all=True, append_images=turned),
        "gif": save(picture.convert("P"), "GIF"),
        "gif moving": save(picture.convert("P"), "GIF", save_all=True, append_images=[t.convert("P") for t in turned]),
    }


def save(picture: Image.Image, pillow_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, pillow_format, **options)
    return buffer.getvalue()

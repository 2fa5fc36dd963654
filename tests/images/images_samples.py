"""Real pictures, from the sample WARCs, and what makers write beside them."""

from __future__ import annotations

import functools
import io
import zlib
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType
from PIL import Image, ImageCms

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


@functools.cache
def small_picture() -> Image.Image:
    """A photograph of the sample (a cup of coffee, by its segments), 96 x 72 pixels, with many colours."""
    (payload,) = (payload for url, payload in warc_images().items() if url.endswith("plot_rag_mean_color_001.png"))
    picture = Image.open(io.BytesIO(payload)).convert("RGB").crop((30, 40, 570, 380))
    return picture.resize((96, 72), Image.Resampling.LANCZOS)


SECRET = b"52.3702N 4.8952E by A. Maker"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_notes(orientation: int = 1) -> bytes:
    """EXIF that tells where, by whom and with what; its thumbnail is nobody's business either."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x013B] = orientation, "Camera", SECRET.decode()
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes() + SECRET


def xmp_notes() -> bytes:
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:creator>' + SECRET + b"</dc:creator></x:xmpmeta>"


def noted() -> dict[str, bytes]:
    """One picture in each format, with an ICC profile and every kind of note: each holds `SECRET`."""
    picture = small_picture()
    jpeg = save(picture, "JPEG", exif=exif_notes(), comment=SECRET, xmp=xmp_notes(), icc_profile=PROFILE)
    thumbnail = bytes((4, 4)) + (SECRET + bytes(48))[:48]
    head = b"\xff\xe0" + (16 + 48).to_bytes(2, "big") + jpeg[6:18] + thumbnail
    photoshop = _segment(0xED, b"Photoshop 3.0\0" + SECRET) + _segment(0xE5, SECRET)
    png = save(picture, "PNG", exif=exif_notes(), icc_profile=PROFILE)
    words = [(b"tEXt", b"Author\0" + SECRET), (b"zTXt", b"Comment\0\0" + zlib.compress(SECRET))]
    words += [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp_notes()), (b"tIME", b"\x07\xea\1\1\1\1\1")]
    words += [(b"pHYs", bytes(9)), (b"prVt", SECRET)]
    chunks = b"".join(png_chunk(name, body) for name, body in words)
    colours = png_chunk(b"gAMA", (45_455).to_bytes(4, "big"))
    webp = save(picture, "WEBP", exif=exif_notes(), xmp=xmp_notes(), icc_profile=PROFILE)
    webp += b"priv" + len(SECRET).to_bytes(4, "little") + SECRET
    gif = save(picture.quantize(60), "GIF", comment=SECRET)
    xmp = b"\x21\xff\x0bXMP DataXMP" + xmp_notes() + b"\1" + bytes(range(255, 0, -1)) + bytes(2)
    loop = b"\x21\xff\x0bNETSCAPE2.0\x03\1\0\0\0"
    screen = gif.index(b"\x21\xfe")
    return {
        "jpeg": jpeg[:2] + head + jpeg[20:-2] + photoshop + b"\xff\xff\xff\xd9" + SECRET,
        "png": png[:33] + chunks + colours + png[33:-12] + chunks + png[-12:] + SECRET,
        "webp": b"RIFF" + (len(webp) - 8).to_bytes(4, "little") + webp[8:] + SECRET,
        "gif": gif[:screen] + loop + xmp + gif[screen:] + SECRET,
    }


def png_chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def _segment(code: int, body: bytes) -> bytes:
    return b"\xff" + bytes((code,)) + (len(body) + 2).to_bytes(2, "big") + body

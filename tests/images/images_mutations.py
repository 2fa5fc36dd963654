"""Image files as they are not meant to be: flipped, cut, spliced (as a fuzzer does, from a seed), and bombs."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from images_samples import noted, png_chunk, save, small_picture
from PIL import Image

from carnac.core.errors import RecordError
from carnac.engine.part import LOST, Part
from carnac.engine.unit import Stage, Unit
from carnac.images.inspect import take_image
from carnac.images.settings import ImageSettings, Store

BLOWS = ("flip", "byte", "edge", "add", "number", "cut out", "double", "overwrite", "cut", "splice", "insert")
EDGES = (0x00, 0x01, 0x7F, 0x80, 0xD8, 0xD9, 0xDA, 0xFE, 0xFF)
NUMBERS = (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER_BYTES = 64  # headers are short and worth most of the blows


def seeds() -> dict[str, bytes]:
    """Return small sound files of all kinds that are read or named, from 0.5 to 10 kB each."""
    picture = small_picture()
    red = Image.new("RGB", picture.size, "red")
    deep = Image.linear_gradient("L").resize(picture.size).convert("I").point(lambda grey: grey * 257)
    clear = picture.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(picture.size))
    more = {
        "jpeg grey": save(picture.convert("L"), "JPEG"),
        "jpeg cmyk": save(picture.convert("CMYK"), "JPEG"),
        "jpeg progressive": save(picture, "JPEG", progressive=True),
        "jpeg restarts": save(picture, "JPEG", restart_marker_blocks=4),
        "jpeg rgb": save(picture, "JPEG", keep_rgb=True),
        "png bit": save(picture.convert("1"), "PNG"),
        "png palette": save(picture.quantize(60), "PNG", transparency=3),
        "png deep": save(deep.convert("I;16"), "PNG"),
        "png moving": save(clear, "PNG", save_all=True, append_images=[red, clear.rotate(40)]),
        "webp clear": save(clear, "WEBP"),
        "webp lossless": save(clear, "WEBP", lossless=True),
        "webp moving": save(clear, "WEBP", save_all=True, append_images=[red, clear.rotate(40)], lossless=True),
        "gif moving": save(picture.quantize(30), "GIF", save_all=True, append_images=[picture.rotate(20).quantize(60)]),
        "tiff": save(picture, "TIFF", compression="tiff_deflate"),
        "avif": save(picture, "AVIF"),
        "ico": save(picture, "ICO", sizes=[(32, 32)]),
        "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image/></svg>',
    }
    return noted() | more


def mutated(number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield `number` damaged files by name: one to six blows on one of the seeds."""
    draw, files = random.Random(seed), seeds()
    names = [*files]
    for turn in range(number):
        name, other = names[turn % len(names)], files[draw.choice(names)]
        payload, blows = bytearray(files[name]), draw.choices(BLOWS, k=draw.choice((1, 1, 2, 3, 6)))
        for blow in blows:
            strike(payload, blow, other, draw)
        yield f"{turn} {name}: {', '.join(blows)}", bytes(payload)


def strike(payload: bytearray, blow: str, other: bytes, draw: random.Random) -> None:
    """Damage `payload` once, in place."""
    if not payload:
        return
    end = len(payload)
    at = draw.randrange(min(draw.choice((HEADER_BYTES, 700, end, end)), end))
    if blow in ("flip", "byte", "edge", "add"):
        payload[at] = _struck(payload[at], blow, draw)
        return
    length = min(draw.choice((1, 2, 4, 16, 200)), end - at)
    start = draw.randrange(len(other))
    if blow == "number":
        size = draw.choice((2, 4))
        number = (draw.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, "big")
        payload[at : at + size] = number if draw.random() < 0.5 else number[::-1]
    elif blow == "cut out":
        del payload[at : at + length]
    elif blow == "double":
        payload[at:at] = payload[at : at + length] * draw.choice((1, 2, 50))
    elif blow == "overwrite":
        payload[start % end : start % end + length] = payload[at : at + length]
    elif blow == "cut":
        del payload[start % end :]
    elif blow == "splice":
        payload[at:] = other[start:]
    else:
        payload[at:at] = other[start : start + length]


def _struck(byte: int, blow: str, draw: random.Random) -> int:
    if blow == "flip":
        return byte ^ 1 << draw.randrange(8)
    if blow == "edge":
        return draw.choice(EDGES)
    return draw.randrange(256) if blow == "byte" else (byte + draw.randint(-35, 35)) % 256


def png_of(width: int, height: int, data: bytes, kind: int = 2, depth: int = 8, extra: bytes = b"") -> bytes:
    """Return a PNG of colour type `kind` around the compressed `data`, `extra` chunks before it."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    end = png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + extra + end


def _zeros(length: int) -> bytes:
    """Return so many zero bytes, compressed about a thousand times."""
    deflate = zlib.compressobj(9)
    return b"".join([*(deflate.compress(bytes(1 << 20)) for _ in range(length >> 20)), deflate.flush()])


def bombs() -> dict[str, bytes]:
    """Return small files that declare, or unpack to, much more than they should."""
    huge, text, small = 2**31 - 1, _zeros(200 << 20), _zeros(1 << 20)
    flat = Image.new("RGBA", (40, 40), (1, 2, 3, 4))
    gif, webp = save(flat.convert("P"), "GIF"), save(flat, "WEBP", lossless=True)
    jpeg, tiff = save(flat.convert("RGB"), "JPEG"), save(flat, "TIFF")
    frame, width = jpeg.index(b"\xff\xc0"), tiff.index(b"\x00\x01\x04\x00\x01\x00\x00\x00")
    canvas = b"VP8X\x0a\0\0\0\x10\0\0\0\xff\xff\xff\xff\xff\xff"
    return {
        "png of 4 exapixels": png_of(huge, huge, small),
        "png of 900 megapixels": png_of(30_000, 30_000, text),
        "png of fewer pixels than its data": png_of(40, 40, text),
        "png zTXt": png_of(40, 40, small, extra=png_chunk(b"zTXt", b"Comment\0\0" + text)),
        "png iTXt": png_of(40, 40, small, extra=png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + text)),
        "png iCCP": png_of(40, 40, small, extra=png_chunk(b"iCCP", b"profile\0\0" + text)),
        "png of 1,000 texts": png_of(40, 40, small, extra=png_chunk(b"zTXt", b"Comment\0\0" + small) * 1000),
        "png of 100,000 chunks": png_of(40, 40, small, extra=png_chunk(b"prVt", b"") * 100_000),
        "gif of 4 gigapixels": gif[:6] + b"\xff\xff\xff\xff" + gif[10:],
        "gif of a frame beyond its screen": gif.replace(b",\0\0\0\0\x28\0\x28\0", b",\0\0\0\0\xff\xff\xff\xff"),
        "gif of 20,000 frames": gif[:-1] + gif[gif.index(b",") : -1] * 20_000 + b";",
        "webp of a large canvas": b"RIFF" + (len(webp) + 10).to_bytes(4, "little") + b"WEBP" + canvas + webp[12:],
        "webp of 268 megapixels": webp[:21] + b"\xff\xff\xff\x0f" + webp[25:],
        "jpeg of 4 gigapixels": jpeg[: frame + 5] + b"\xff\xff\xff\xff" + jpeg[frame + 9 :],
        "jpeg of 4,000,000 notes": jpeg[:2] + b"\xff\xd8\xff\xe5\x00\x02\xff\xfe\x00\x02" * 1_900_000 + jpeg[2:],
        "jpeg of 2,000 notes": jpeg[:2] + (b"\xff\xe1\x03\xe8" + bytes(998)) * 2000 + jpeg[2:],
        "tiff of 4 gigapixels": tiff[: width + 8] + b"\xff\xff" + tiff[width + 10 :],
        "svg of a billion laughs": b'<!DOCTYPE svg [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><svg>&b;</svg>',
    }


def giants(pixels: int) -> dict[str, Callable[[], bytes]]:
    """Return what makes sound pictures of `pixels` in small files: the most that limits let through."""
    side = int(pixels**0.5)
    many = Image.Resampling.NEAREST
    return {
        "png": lambda: png_of(side, side, _zeros(side * (3 * side + 1) + (1 << 20))),
        "png clear": lambda: png_of(side, side, _zeros(side * (4 * side + 1) + (1 << 20)), kind=6),
        "png deep": lambda: png_of(side, side, _zeros(side * (2 * side + 1) + (1 << 20)), kind=0, depth=16),
        "gif": lambda: save(Image.new("P", (side, side)), "GIF"),
        "webp": lambda: save(Image.new("RGBA", (side, side), (1, 2, 3, 4)), "WEBP", lossless=True, method=0),
        "jpeg": lambda: save(small_picture().resize((side, side), many), "JPEG", quality=30),
        "jpeg progressive": lambda: save(Image.new("RGB", (side, side), "teal"), "JPEG", progressive=True),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesTask:
    """Which files to take: `number` mutated ones from `seed`, or the bombs, or the giants of so many pixels."""

    number: int = 0
    seed: int = 0
    with_bombs: bool = False
    giant_pixels: int = 0
    store: Store = "clean"


def take_files(unit: Unit, part: Part) -> None:
    """Write a row per file: what it came to. What a file does to the process, its guard sees."""
    task: FilesTask = unit.task
    files = mutated(task.number, task.seed)
    if task.with_bombs:
        files = iter(bombs().items())
    elif task.giant_pixels:
        files = ((name, make()) for name, make in giants(task.giant_pixels).items())
    for name, payload in files:
        came_to = part.attempt(name, outcome, payload, task.store)
        if came_to is not LOST:
            part.write({"file": name, "outcome": came_to})


def outcome(payload: bytes, store: Store) -> str:
    """Return why a file is refused, or `taken`; raise AssertionError where what is stored is another picture."""
    try:
        taken = take_image(payload, ImageSettings(store=store))
    except RecordError as error:
        return error.reason
    facts, size = taken.facts, (taken.facts.width, taken.facts.height)
    if size[0] * size[1] > 1_000_000:  # to compare the pixels would take more memory than to take them
        return "taken"
    with Image.open(io.BytesIO(taken.payload)) as stored, Image.open(io.BytesIO(payload)) as received:
        assert facts.phash is not None
        stored.load()
        if store == "original":
            assert taken.payload == payload
        else:
            assert stored.size == size, f"{stored.size}, noted as {size}"
        if store == "clean" and received.getexif().get(0x0112, 1) not in range(2, 9):
            check_pixels(np.asarray(stored.convert("RGBA")), np.asarray(received.convert("RGBA")), facts.media_type)
    return "taken"


def check_pixels(stored: npt.NDArray[np.uint8], received: npt.NDArray[np.uint8], media_type: str) -> None:
    """Raise AssertionError where a picture has changed.

    What libjpeg makes of a damaged block depends on how near the end of its buffer it stands, so on notes before it.
    """
    share = float(np.any(stored != received, axis=-1).mean())
    assert share <= (0.05 if media_type == "image/jpeg" else 0), f"{share:.2%} of the pixels are others"


FILES = Stage(
    name="files", version=1, schema=pa.schema([("file", pa.string()), ("outcome", pa.string())]), work=take_files
)


def files_unit(name: str, task: FilesTask) -> Unit:
    """Return a unit of files to take."""
    return FILES.unit(name, task, settings={}, inputs=[])

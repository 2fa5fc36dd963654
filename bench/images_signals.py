"""The cost of all image signals together beside that of decoding the same files: wanted <= 1.0.

    scripts/bench images_signals                       pictures of this repository and of installed packages
    python bench/images_signals.py FOLDER ...          pictures below FOLDER, also those in WARC files

Pictures are encoded anew as JPEG (quality 88, at most 1024 pixels a side), each once. `noted` are the same files with
EXIF, XMP, a comment and a thumbnail of 6 kB, which `clean` takes out. If imagehash is installed, its hash is timed too.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import io
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType
from PIL import Image, ImageOps
from turns import in_turns, machine, report

from carnac.core.seeds import generator
from carnac.images.clean import clean_image
from carnac.images.decode import load, opened, turn_of
from carnac.images.inspect import take_image
from carnac.images.phash import MIN_SIDE_PX, perceptual_hash
from carnac.images.settings import ImageSettings
from carnac.sequence.pixels import opaque

DATA = Path(__file__).parents[1] / "recipes" / "tiny" / "data"
FOLDERS = (DATA, Path(sys.prefix), Path("/usr/share/doc"))
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif"}
MIN_SIDE = 200  # smaller ones are icons
BLOCK = 10  # files that one function takes before it is another's turn
CLEAN, ORIGINAL, NEW = ImageSettings(), ImageSettings(store="original"), ImageSettings(store="reencoded")
SMALL, HEADER = ImageSettings(store="reencoded", max_side_px=512), ImageSettings(decode=False, store="original")


def files(folders: Sequence[Path]) -> Iterator[bytes]:
    """Yield the bytes of all picture files below the folders, and of the images in WARC files."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.name.endswith(".warc.gz"):
                with path.open("rb") as file:
                    for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                        if (record.http_content_type or "").startswith("image/"):
                            yield record.reader.read()
            elif path.suffix.lower() in SUFFIXES and path.is_file():
                yield path.read_bytes()


def pictures(folders: Sequence[Path], number: int) -> list[Image.Image]:
    """Return up to `number` different pictures, at most 1024 pixels a side, on white, in random order."""
    found: dict[bytes, Image.Image] = {}
    for payload in files(folders):
        try:
            with Image.open(io.BytesIO(payload)) as image:
                if min(image.size) < MIN_SIDE:
                    continue
                picture = opaque(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
        picture.thumbnail((1024, 1024))
        found.setdefault(hashlib.sha256(picture.tobytes()).digest(), picture)
        if len(found) == number:
            break
    order = generator(0, "bench images_signals").permutation(len(found))
    return [list(found.values())[place] for place in order]


def encoded(picture: Image.Image, *, noted: bool) -> bytes:
    """Return a picture as JPEG, `noted` as a camera and an editor leave it."""
    buffer, options = io.BytesIO(), {}
    if noted:
        thumbnail = io.BytesIO()
        ImageOps.fit(picture, (160, 120)).save(thumbnail, "JPEG", quality=90)
        exif = Image.Exif()
        exif[0x010F], exif[0x0110], exif[0x013B] = "Maker", "Camera", "A. Author"
        notes = exif.tobytes() + thumbnail.getvalue()
        options = {"exif": notes, "xmp": b"<x:xmpmeta>" + b" " * 2000 + b"</x:xmpmeta>", "comment": "made by hand"}
    picture.save(buffer, "JPEG", quality=88, **options)
    return buffer.getvalue()


def plain_decode(payload: bytes) -> None:
    """Decode as anyone does."""
    with Image.open(io.BytesIO(payload)) as image:
        image.load()


def whole_check(payload: bytes) -> None:
    """Decode as little as proves that a file is whole."""
    with opened(payload, "image/jpeg", CLEAN.max_pixels) as image:
        load(image, payload, (MIN_SIDE_PX, MIN_SIDE_PX), luma=True)


def whole_check_and_hash(payload: bytes) -> None:
    """The same, and what the pixels are hashed to."""
    with opened(payload, "image/jpeg", CLEAN.max_pixels) as image:
        load(image, payload, (MIN_SIDE_PX, MIN_SIDE_PX), luma=True)
        perceptual_hash(image, turn_of(image))


def functions() -> dict[str, Callable[[bytes], object]]:
    """Return what is timed: each takes one file."""
    found: dict[str, Callable[[bytes], object]] = {
        "plain decode": plain_decode,
        "sha256": lambda payload: hashlib.sha256(payload).hexdigest(),
        "clean": lambda payload: clean_image(payload, "image/jpeg"),
        "header alone (decode = false)": lambda payload: take_image(payload, HEADER),
        "whole check": whole_check,
        "whole check, phash": whole_check_and_hash,
        "all signals, clean": lambda payload: take_image(payload, CLEAN),
        "all signals, original": lambda payload: take_image(payload, ORIGINAL),
        "all signals, reencoded": lambda payload: take_image(payload, NEW),
        "all signals, reencoded to 512 px": lambda payload: take_image(payload, SMALL),
    }
    if importlib.util.find_spec("imagehash") is not None:
        phash = importlib.import_module("imagehash").phash
        found["imagehash.phash"] = lambda payload: phash(Image.open(io.BytesIO(payload)))
    return found


def in_blocks(payloads: list[bytes], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every round of every function over all files, taken a few files at a time.

    What else the machine does comes and goes within the second that all files take one function.
    """
    seconds = {name: [0.0] * rounds for name in functions()}
    for start in range(0, len(payloads), BLOCK):
        block = payloads[start : start + BLOCK]
        timed = {name: partial(over, function, block) for name, function in functions().items()}
        for name, times in in_turns(timed, rounds=rounds).items():
            seconds[name] = [whole + part for whole, part in zip(seconds[name], times, strict=True)]
    return seconds


def over(function: Callable[[bytes], object], payloads: list[bytes]) -> None:
    """Do it to each file."""
    for payload in payloads:
        function(payload)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, default=FOLDERS)
    parser.add_argument("--number", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    found = pictures(arguments.folders, arguments.number)
    pixels = statistics.median(picture.width * picture.height for picture in found)
    pillow = importlib.metadata.version("pillow")
    print(f"{machine()}, Pillow {pillow}; {len(found)} pictures, {pixels:,.0f} pixels in the median")
    for name, noted in (("plain", False), ("noted", True)):
        payloads = [encoded(picture, noted=noted) for picture in found]
        print(f"== {name}: {statistics.median(map(len, payloads)):,.0f} bytes in the median")
        report(in_blocks(payloads, arguments.rounds), "plain decode")


if __name__ == "__main__":
    main()

"""A crawl of real pictures some of which stand on lists, and the lists: what is planted is known, the rest is clean."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fastwarc.warc import ArchiveIterator, WarcRecordType
from PIL import Image
from story_runs import carnac
from test_jobs_bad_input import page, record

from carnac.images.phash import perceptual_hash
from carnac.images.scores import square

DATA = Path(__file__).parents[2] / "recipes/tiny/data"
SITE = "https://gallery.example"
PLANTED, CLEAN = 50, 1000
TILE_PX, MIN_SPREAD = 120, 25  # what is flatter than this spread of grey is the margin of a plot
IMAGES_PER_PAGE = 10

Edit = Callable[[Image.Image], bytes]


def saved(picture: Image.Image, pillow_format: str = "JPEG", **options: object) -> bytes:
    picture.save(out := io.BytesIO(), pillow_format, **options)
    return out.getvalue()


def _rescaled(picture: Image.Image) -> bytes:
    return saved(
        picture.resize((picture.width * 3 // 5, picture.height * 3 // 5), Image.Resampling.LANCZOS), quality=85
    )


def _recompressed(picture: Image.Image) -> bytes:
    return saved(picture, quality=40)


def _cropped(picture: Image.Image) -> bytes:
    """Cut off two of a hundred columns and rows, half of them on either side."""
    across, down = max(picture.width // 100, 1), max(picture.height // 100, 1)
    return saved(picture.crop((across, down, picture.width - across, picture.height - down)), "PNG")


EDITS: tuple[Edit, ...] = (_rescaled, _recompressed, _cropped)


@dataclass(slots=True)
class Planted:
    """Pictures by URL, and of the planted ones the name of the list that each stands on."""

    pictures: dict[str, bytes] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)
    pages: list[str] = field(default_factory=list)


def pictures() -> list[Image.Image]:
    """The pictures of the sample, each once, that are larger than icons."""
    found: dict[bytes, None] = {}
    for path in sorted(DATA.glob("*.warc.gz")):
        with path.open("rb") as file:
            for entry in ArchiveIterator(file, record_types=WarcRecordType.response):
                if (entry.http_content_type or "").startswith("image/"):
                    found.setdefault(entry.reader.read())
    opened = [Image.open(io.BytesIO(payload)) for payload in found]
    return [picture.convert("RGB") for picture in opened if min(picture.size) >= 150]


def tiles() -> Iterator[Image.Image]:
    """Yield squares of the sample's pictures, none overlapping another, without those of nearly one colour."""
    for picture in pictures():
        for left in range(0, picture.width - TILE_PX + 1, TILE_PX):
            for top in range(0, picture.height - TILE_PX + 1, TILE_PX):
                tile = picture.crop((left, top, left + TILE_PX, top + TILE_PX))
                if np.asarray(tile.convert("L")).std() > MIN_SPREAD:
                    yield tile


def write_planted(folder: Path) -> Planted:
    """Write a crawl of 1,125 pictures and lists that 125 of them, and 25 pages, stand on; crawl it, get the images.

    Lists: `hashes.txt` (sha256 as received), `pdq.txt` and `phash.txt` (of the originals of edited copies), `urls.txt`
    and `domains.txt`.
    """
    from carnac.images.pdq import pdq_hash

    planted, hashes, pdqs, phashes, urls = Planted(), [], [], [], []
    cut = list(tiles())
    for number, tile in enumerate(cut[: PLANTED + CLEAN]):
        notes = Image.Exif()
        notes[0x010E] = f"picture {number}"  # which is taken out: what is stored has another sha256
        url = f"{SITE}/{'hashed' if number < PLANTED else 'clean'}/{number}.jpg"
        planted.pictures[url] = saved(tile, quality=90, exif=notes)
        if number < PLANTED:
            planted.listed[url] = "sha256"
            hashes.append(hashlib.sha256(planted.pictures[url]).hexdigest())
    for number, original in enumerate(pictures()[:PLANTED]):
        url = f"{SITE}/near/{EDITS[number % 3].__name__}{number}.jpg"
        planted.pictures[url], planted.listed[url] = EDITS[number % 3](original), "near"
        pdqs.append(pdq_hash(square(saved(original, "PNG"), "image/png")).hex())
        phashes.append(f"{perceptual_hash(original):016x}")
    for number, tile in enumerate(cut[PLANTED + CLEAN :][: PLANTED // 2]):
        host = "https://cdn.optedout.example" if number % 2 else SITE
        url = f"{host}/out/{number}.jpg"
        planted.pictures[url], planted.listed[url] = saved(tile), "domain" if number % 2 else "url"
        urls += [] if number % 2 else [f"{url.replace('https', 'http')}#top"]
    addresses = list(planted.pictures)
    records = [record(url, "image/jpeg", payload) for url, payload in planted.pictures.items()]
    for number, start in enumerate(range(0, len(addresses), IMAGES_PER_PAGE)):
        links = "".join(f'<img src="{url}" alt="seen">' for url in addresses[start : start + IMAGES_PER_PAGE])
        planted.pages.append(f"{SITE}/page/{number}")
        records.append(record(planted.pages[-1], "text/html", page(number, links)))
    out = [f"{SITE}/closed/{number}" for number in range(PLANTED // 2)]
    records += [record(url, "text/html", page(1000 + number)) for number, url in enumerate(out)]
    planted.listed |= dict.fromkeys(out, "url")
    lists = {"hashes": hashes, "pdq": pdqs, "phash": phashes, "urls": [*urls, *out], "domains": ["OptedOut.example"]}
    for name, entries in lists.items():
        (folder / f"{name}.txt").write_text("# entries\n\n" + "".join(f"{entry}\n" for entry in entries))
    (folder / "crawl.warc").write_bytes(b"".join(records))
    (folder / "crawl.toml").write_text('job = "crawl"\nwarcs = ["crawl.warc"]\noutput = "documents"\n')
    recipe = 'job = "images"\ndocuments = "documents"\noutput = "images"\n[scores]\npdq = true\n'
    (folder / "images.toml").write_text(recipe)
    carnac(folder, "run", "crawl.toml", "images.toml")
    return planted

"""A crawl of 30 sites with all its pictures in it, of which 100 URLs, 5 domains and 50 hashes are taken down."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image
from story_runs import DATA, RECIPES, all_rows, carnac
from test_jobs_bad_input import record

MARK = "urn:carnac:taken-down"
GONE = tuple(f"gone{number}.test" for number in range(5))
SITES = (*(f"www.{name}" for name in GONE), *(f"site{number}.example" for number in range(25)))
PAGES_PER_SITE = 10
CDN = "pictures.example"
CHAIN = [str(RECIPES / name) for name in DATA]
WARCS = "--set=warcs=['crawl-*.warc']"
RUN = ("run", *CHAIN, "--workers", "2")
STORE = "out/tiny"


def picture(number: int) -> bytes:
    """Return a JPEG unlike all others, with a comment, which is not stored: the bytes that came are others."""
    image = Image.new("RGB", (72, 72))
    image.putdata([((x * number) % 256, (number * 7 + x // 72) % 256, (number // 256) * 40) for x in range(72 * 72)])
    image.save(out := io.BytesIO(), "JPEG", quality=60, comment=b"made by nobody")
    return out.getvalue()


def page_url(site: int, number: int) -> str:
    return f"https://{SITES[site]}/story/{number:04d}-of-{site:02d}.html"


def own_image(site: int, number: int) -> str:
    return f"https://{SITES[site]}/image/{number:04d}-of-{site:02d}.jpg"


def cdn_image(site: int, number: int) -> str:
    return f"https://{CDN}/{site:02d}/{number:04d}.jpg?size=large&form=square"


def mirrored_image(site: int, number: int) -> str:
    """The bytes of the site's own image at another place."""
    return f"https://mirror.example/{site:02d}/{number:04d}.jpg"


def page(site: int, number: int) -> bytes:
    """Return a page: text, three pictures and, on some pages, words about a place that is taken down."""
    words = " ".join(f"word{site}x{number}y{place}" for place in range(5))
    images = [own_image(site, number), cdn_image(site, number)]
    if number % 3 == 0:
        images.append(mirrored_image((site + 1) % len(SITES), number))
    if (site, number) == (20, 1):
        words += f" as is told on {GONE[0]}, and shown at {own_image(6, 0)}."
    if (site, number) == (21, 1):
        images.append(f"https://proxy.example/resize/https://{SITES[1]}/image/0001-of-01.jpg")
    head = f'<link rel="canonical" href="https://{GONE[2]}/original.html">' if (site, number) == (22, 1) else ""
    shown = "".join(f'<img src="{url.replace("&", "&amp;")}" alt="shown {url[-12:]}">' for url in images)
    story = (
        f"<p>The river runs past the old mill and the people of the town walk along it in the evening, {words}.</p>"
        f"{shown}<p>In the morning of that day it was the other way round, and nobody knew why that was {words}.</p>"
    )
    if number == 4:  # dropped for its few words: the funnel shows samples of such
        story = f"<p>The story of the mill, page {number}.</p>{shown}"
    head = f"<head><title>Story {number} of {site}</title>{head}</head>"
    return f"<html>{head}<body><h1>Story {number}</h1>{story}</body></html>".encode()


def write_crawl(folder: Path) -> None:
    """Write two archives with all pages and pictures."""
    for half in range(2):
        records = []
        for site in range(half, len(SITES), 2):
            for number in range(PAGES_PER_SITE):
                own = picture(site * PAGES_PER_SITE + number)
                records += [
                    record(page_url(site, number), "text/html", page(site, number)),
                    record(own_image(site, number), "image/jpeg", own),
                    record(mirrored_image(site, number), "image/jpeg", own),
                    record(cdn_image(site, number), "image/jpeg", picture(1000 + site * PAGES_PER_SITE + number)),
                ]
        proxied = f"https://proxy.example/resize/https://{SITES[1]}/image/0001-of-01.jpg"
        records.append(record(proxied, "image/jpeg", picture(5000)))
        (folder / f"crawl-{half}.warc").write_bytes(b"".join(records))


def run(folder: Path, *arguments: str) -> str:
    """Run crawl, images, curate and shards."""
    carnac(folder, "run", CHAIN[0], WARCS, "--workers", "2", *arguments)
    return carnac(folder, "run", *CHAIN[1:], "--workers", "2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is taken down."""

    pages: tuple[str, ...]
    images: tuple[str, ...]
    hashes: tuple[str, ...]
    domains: tuple[str, ...] = GONE
    received: tuple[str, ...] = field(default=())

    def list_file(self, folder: Path) -> Path:
        """Write the entries as a list, each kind of line in it."""
        lines = ["# asked for by their makers", *(f"url {url}" for url in self.pages), *self.images, ""]
        lines += [
            f"domain {self.domains[0]}",
            *self.domains[1:],
            *self.received,
            *(f"sha256 {one}" for one in self.hashes),
        ]
        (path := folder / "asked.txt").write_text("\n".join(lines) + "\n")
        return path

    def strings(self) -> tuple[str, ...]:
        """All entries, as they would stand in a file."""
        return (*self.pages, *self.images, *self.domains, *self.hashes, *self.received)


def asked_of(folder: Path) -> Asked:
    """Choose 50 pages, 50 images, 5 domains, and 50 hashes: of stored bytes, and of bytes as they came."""
    kept = {row["url"]: row for row in all_rows(folder / STORE / "images") if row["status"] == "kept"}
    of_sites = [(site, number) for site in range(5, 30) for number in range(PAGES_PER_SITE)]
    pages = tuple(page_url(site, number) for site, number in of_sites if number in (2, 4))
    images = tuple(own_image(site, number) for site, number in of_sites if number in (0, 7))
    hashes = tuple(kept[cdn_image(site, 5)]["sha256"] for site in range(5, 30))
    received = tuple(kept[cdn_image(site, 8)]["received_sha256"] for site in range(5, 30))
    assert len(set(pages + images)) == 100
    assert len({*hashes, *received}) == 50
    return Asked(pages=pages, images=images, hashes=hashes, received=received)


def rows_by_part(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every part below a folder, by its name there."""
    return {
        str(part.relative_to(folder)): pq.read_table(part).to_pylist() for part in sorted(folder.rglob("*.parquet"))
    }


def everything_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file below a folder, raw, and every table also as it is read."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes()
            if path.suffix == ".parquet":
                yield f"{path} (read)", json.dumps(pq.read_table(path).to_pylist(), default=repr).encode()

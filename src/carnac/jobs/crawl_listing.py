"""A crawl by its name -> its WARC files, by the listing that Common Crawl keeps of each crawl."""

from __future__ import annotations

import re
import zlib

from carnac.core.errors import InputError
from carnac.core.places import Place, read_bytes, source_of
from carnac.core.seeds import seed_of

COMMON_CRAWL = "https://data.commoncrawl.org"
MAX_LISTING_BYTES = 1 << 28  # a crawl has 100,000 files at most so far, whose paths take 14 MB
_WARC_PATH = re.compile(r"[^:<>\s]+\.warc(\.gz|\.zst)?")


def listed_archives(root: str, crawl: str, sample: int | None, seed: int) -> list[Place]:
    """Return the WARC files of a crawl in the order of its listing, all or a sample of so many.

    A sample spreads over the crawl, is the same for the same seed, and lies within every larger one. Raises InputError
    where there is no such crawl, or its listing is none.
    """
    listing = source_of(f"{root.rstrip('/')}/crawl-data/{crawl}/warc.paths.gz")
    paths = _paths(listing, _read_listing(listing, crawl))
    if sample is not None:
        chosen = set(sorted(paths, key=lambda path: seed_of("crawl sample", seed, path))[:sample])
        paths = [path for path in paths if path in chosen]
    return [source_of(f"{root.rstrip('/')}/{path}") for path in paths]


def _read_listing(listing: Place, crawl: str) -> bytes:
    try:
        packed = read_bytes(listing)
    except FileNotFoundError:
        raise InputError(
            f"{listing}: no such crawl as {crawl!r}. Wanted a name such as CC-MAIN-2026-30; Common Crawl lists its "
            "crawls at https://index.commoncrawl.org."
        ) from None
    except OSError as error:
        raise InputError(f"{listing}: cannot be read ({error.strerror}). Wanted the listing of {crawl}.") from None
    unpack = zlib.decompressobj(31)
    try:
        text = unpack.decompress(packed, MAX_LISTING_BYTES)
    except zlib.error:
        raise InputError(f"{listing}: no gzip file. Wanted the paths of WARC files, gzipped.") from None
    if not unpack.eof:
        why = "is larger than any listing" if unpack.unconsumed_tail else "ends in the middle"
        raise InputError(f"{listing}: {why}. Wanted the paths of WARC files, gzipped.")
    return text


def _paths(listing: Place, text: bytes) -> list[str]:
    paths = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    for number, path in enumerate(paths, 1):
        # Nothing that a listing says leads out of its root.
        if not _WARC_PATH.fullmatch(path) or {"", ".", ".."} & set(path.split("/")):
            raise InputError(f"{listing}: line {number}: got {path[:80]!r}, wanted the path of a WARC file.")
    if not paths:
        raise InputError(f"{listing}: names no file. Wanted the paths of WARC files, gzipped.")
    return list(dict.fromkeys(paths))

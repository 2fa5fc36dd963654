"""The page behind a document, read again from where the crawl's manifest says it lay.

Flow in: a manifest of `documents` and which record is sought. Flow out: its HTTP response, found by the document's id,
which is a digest of URL and bytes: what was changed since is never taken for it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from urllib.parse import quote

from carnac.archive.frames import DamagedFrameError
from carnac.archive.pointers import Pointer, count_pointers, read_pointers
from carnac.archive.records import Damage, Response, read_frames
from carnac.archive.search import Frames
from carnac.archive.zstd_frames import ZSTD_MAGIC, Dictionary, read_dictionary
from carnac.core.document import document_id
from carnac.core.errors import InputError
from carnac.core.places import Place, open_binary, read_bytes, source_of
from carnac.core.stores import store_errors
from carnac.engine.manifest import Manifest

MAX_PAGE_BYTES = 64_000_000  # as the crawl: what is larger was never read
MAX_LISTING_BYTES = 1 << 28
POINTERS_AT_ONCE = 100_000
# How much is read from a record on: nearly all are below the first. The others are for large pages, and for archives
# that are one gzip member as a whole.
_WINDOWS = (1 << 20, 1 << 24, 1 << 28)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """A record: the name of its file, as the document tells it, and its offset there.

    It is known by the document's `id`; a lost one, which has none, by its `number` within the frame.
    """

    file: str
    offset: int
    id: str | None
    number: int = 0

    def is_it(self, response: Response) -> bool:
        """Say whether a response is the one sought."""
        if self.id is None:
            return response.number == self.number
        return document_id(response.url, response.payload) == self.id


def stored_page(manifest: Manifest, sought: Sought) -> Response:
    """Return the response. Raises InputError, which says what is missing."""
    if not manifest.inputs:
        raise InputError(
            f"{manifest.folder}: has no manifest, which tells where its pages lie. Wanted a finished crawl: run its "
            "recipe again, it goes on from there."
        )
    if "pages" in manifest.inputs:
        return _file_sought(manifest, sought)
    why = [f"{manifest.folder}: its manifest names no archive {sought.file!r}; its input was {_input_of(manifest)}."]
    for place in _archives(manifest, sought):
        found = _read_at(place, sought)
        if isinstance(found, Response):
            return found
        why.append(found)
    raise InputError(why[-1])


def _input_of(manifest: Manifest) -> str:
    return ", ".join(manifest.inputs)


def _archives(manifest: Manifest, sought: Sought) -> Iterator[Place]:
    """Yield the archives of that name: several may lie in folders of their own."""
    inputs = manifest.inputs
    if "warcs" in inputs:
        names: Iterator[str] = iter(inputs["warcs"])
    elif "crawl" in inputs:
        names = _below(inputs["crawl_root"], _listing(inputs["crawl_root"], inputs["crawl"]))
    elif "pointers" in inputs:
        names = _below(inputs["crawl_root"], _pointed_to(inputs["pointers"], sought))
    else:
        raise InputError(
            f"{manifest.folder}: was made from {_input_of(manifest)}, which hold documents and not pages. Wanted a "
            "crawl's documents."
        )
    yield from (source_of(name) for name in dict.fromkeys(names) if name.rpartition("/")[2] == sought.file)


def _below(root: str, paths: Iterator[str]) -> Iterator[str]:
    # Nothing that a listing says leads out of its root.
    sound = (path for path in paths if Pointer(file=path, offset=0, length=1).is_sound)
    return (f"{root.rstrip('/')}/{path}" for path in sound)


def _listing(root: str, crawl: str) -> Iterator[str]:
    place = source_of(f"{root.rstrip('/')}/crawl-data/{crawl}/warc.paths.gz")
    try:
        text = zlib.decompressobj(31).decompress(_bytes_of(place, None, None), MAX_LISTING_BYTES)
    except zlib.error:
        raise InputError(f"{place}: no gzip file. Wanted the paths of WARC files, gzipped.") from None
    yield from text.decode(errors="replace").split()


def _pointed_to(files: list[str], sought: Sought) -> Iterator[str]:
    for file in files:
        place = source_of(file)
        num_rows = count_pointers(place)
        for start in range(0, num_rows, POINTERS_AT_ONCE):
            for pointer in read_pointers(place, start, min(num_rows, start + POINTERS_AT_ONCE)):
                if pointer.offset == sought.offset and pointer.file is not None:
                    yield pointer.file


def _read_at(place: Place, sought: Sought) -> Response | str:
    """Return the response at an offset of an archive, or why it is not there."""
    why = "no record begins there"
    for num_bytes in _WINDOWS:
        data = _bytes_of(place, sought.offset, sought.offset + num_bytes)
        try:
            frames = Frames(BytesIO(data), _dictionary(place, data))
        except DamagedFrameError as error:
            why = str(error)
            break
        for record in read_frames(frames, MAX_PAGE_BYTES):
            if record.offset:  # another record
                break
            if isinstance(record, Damage):
                why = f"{record.reason}: {record.detail.partition(';')[0]}"  # not where the next sound record lies
            elif sought.is_it(record):
                return replace(record, offset=sought.offset)
            else:
                why = f"another page lies there now ({record.url})"
        if len(data) < num_bytes:
            break
    return f"{place}: holds no such page at byte {sought.offset:,}: {why}. Wanted the archive as it was crawled."


def _dictionary(place: Place, data: bytes) -> Dictionary | None:
    if not data.startswith(ZSTD_MAGIC):
        return None
    with open_binary(place, exact=True) as stream, store_errors(place):
        return read_dictionary(stream)


def _bytes_of(place: Place, start: int | None, stop: int | None) -> bytes:
    try:
        return read_bytes(place, start, stop)
    except OSError as error:
        kind = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror or error})"
        raise InputError(
            f"{place}: {kind}. The page was crawled from there; wanted the file back in its place, or a link to it."
        ) from None


def _file_sought(manifest: Manifest, sought: Sought) -> Response:
    """Return the page of a file of a folder, by its path below the folder."""
    base_url = str(manifest.inputs["base_url"])
    url = f"{base_url.rstrip('/')}/{quote(sought.file)}"
    patterns = [str(pattern) for pattern in manifest.inputs["pages"]]
    if {"", ".", ".."}.isdisjoint(sought.file.split("/")):
        # Which part of a pattern is the folder, the crawl knows; the id tells the right one as well.
        for folder in (folder for pattern in patterns for folder in source_of(pattern).parents):
            try:
                payload = read_bytes(folder / sought.file, 0, MAX_PAGE_BYTES)
            except OSError:
                continue
            page = Response(
                url=url, offset=0, fetched_at=None, status=200, media_type="text/html", charset=None, payload=payload
            )
            if sought.is_it(page):
                return page
    raise InputError(
        f"{sought.file}: not found as it was crawled, by {', '.join(patterns)}. Wanted the file unchanged; relative "
        "paths mean the working folder, which must be that of the crawl."
    )

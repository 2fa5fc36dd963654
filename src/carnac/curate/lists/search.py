"""Documents, their kept blocks and what their images hash to -> what of them stands on a list.

A row is a page or an image found on a list; of an image on a list of hashes, its hash and source are all that is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.schema import HITS
from carnac.curate.lists.entries import HASH_BYTES, Entries, Kind, Match
from carnac.curate.lists.settings import UNHASHED, ListsPass
from carnac.curate.masks import Masks

# `url` and `sha256` are of what was found (the page, or the image in it), `entry` and `file` say where it stands;
# `distance` is in bits. With `drop = "document"` the row of an image names its whole document: `block` is null.
LISTED = pa.schema(
    [
        *HITS,
        ("url", pa.string()),
        ("sha256", pa.string()),
        ("entry", pa.string()),
        ("file", pa.string()),
        ("distance", pa.int16()),
    ]
)
DOCUMENT_COLUMNS = ("id", "url", "canonical_url", "reservations", "images")
MASK_COLUMNS = ("id", "reason", "block_reason")
IMAGE_COLUMNS = ("id", "block_has_image", "block_sha256", "block_received_sha256", "block_pdq", "block_phash")

Truths = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """What documents are compared with: entries by kind, the URLs that a service knows as opted out, the settings."""

    settings: ListsPass
    entries: Mapping[Kind, Entries]
    opted_out: Collection[str] = ()

    def find_url(self, url: str) -> tuple[str, Match] | None:
        """Return the reason and the entry of a URL that stands on a list, of the first list."""
        found: Match | None
        if (entries := self.entries.get("url")) is not None and (found := entries.match_url(url)) is not None:
            return "listed.url", found
        if (entries := self.entries.get("domain")) is not None and (found := entries.match_host(url)) is not None:
            return "listed.domain", found
        if url in self.opted_out:
            assert self.settings.service is not None
            return "listed.service", Match(entry=url, file=self.settings.service.endpoint)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The kept image blocks of some documents, by row and block; [n] each. `facts` are columns of `IMAGE_COLUMNS`."""

    row: Sequence[int]
    block: Sequence[int]
    url: Sequence[str]
    facts: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def kept_of(documents: pa.Table, last: pa.Table | None) -> tuple[Truths, Truths]:
    """Return which documents (bool[d]) and which of their blocks (bool[b]) are kept: all before the first pass."""
    if last is None:
        num_blocks = len(documents.column("images").combine_chunks().flatten())
        return np.ones(documents.num_rows, np.bool_), np.ones(num_blocks, np.bool_)
    masks = Masks.from_table(last)
    return masks.keep, masks.keep_block


def kept_images(documents: pa.Table, images: pa.Table | None, keep: Truths, keep_block: Truths) -> Blocks:
    """Return the image blocks that are kept (bool[b]) of documents that are (bool[d]), in their order."""
    urls = documents.column("images").combine_chunks()
    parents = pc.list_parent_indices(urls).to_numpy()
    is_image = urls.flatten().is_valid().to_numpy(zero_copy_only=False)
    places = np.flatnonzero(is_image & keep_block & keep[parents])
    starts = np.searchsorted(parents, np.arange(len(documents)))
    taken = pa.array(places)
    names = () if images is None else IMAGE_COLUMNS[1:]
    return Blocks(
        row=parents[places].tolist(),
        block=(places - starts[parents[places]]).tolist(),
        url=urls.flatten().take(taken).to_pylist(),
        facts={name: _flat(images, name).take(taken).to_pylist() for name in names},
    )


def urls_kept(documents: pa.Table, blocks: Blocks, keep: Truths) -> list[str]:
    """Return the URLs of kept documents and of their kept images, each once; the web's alone (http, https)."""
    urls = [url for name in ("url", "canonical_url") for url in documents.column(name).filter(keep).to_pylist()]
    every = dict.fromkeys([*urls, *blocks.url])
    return [url for url in every if url is not None and url.lower().startswith(("http://", "https://"))]


def find_listed(lists: Lists, documents: pa.Table, blocks: Blocks, keep: Truths) -> list[dict[str, Any]]:
    """Return the rows of `LISTED` of some documents, by row and block; a document or block has one for each list."""
    ids = documents.column("id").to_pylist()
    rows = [*_pages(lists, documents, keep), *_image_urls(lists, blocks), *_image_files(lists, blocks)]
    if lists.settings.drop == "document":
        rows = [{**row, "block": None} for row in rows]
    order = {name: place for place, name in enumerate(lists.settings.reasons())}
    rows.sort(key=lambda row: (row["row"], -1 if row["block"] is None else row["block"], order[row["reason"]]))
    return [{"id": ids[row["row"]], **row} for row in rows]


def _pages(lists: Lists, documents: pa.Table, keep: Truths) -> Iterator[dict[str, Any]]:
    """Yield what is found of documents: by their URL, by the one they call their own, by what they object to."""
    objections = frozenset(lists.settings.reservations)
    columns = [documents.column(name).to_pylist() for name in ("url", "canonical_url", "reservations")]
    for row, (url, canonical, reservations) in enumerate(zip(*columns, strict=True)):
        if not keep[row]:
            continue
        for address in dict.fromkeys(address for address in (url, canonical) if address is not None):
            if (found := lists.find_url(address)) is not None:
                yield {"row": row, "block": None, "reason": found[0], "url": address, **_entry(found[1])}
                break
        for use in reservations or ():
            if use in objections:
                yield {"row": row, "block": None, "reason": f"reserved.{use}", "url": url, "entry": use}


def _image_urls(lists: Lists, blocks: Blocks) -> Iterator[dict[str, Any]]:
    known = {url: lists.find_url(url) for url in dict.fromkeys(blocks.url)}
    for place, url in enumerate(blocks.url):
        if (found := known[url]) is not None:
            yield {**_at(blocks, place), "reason": found[0], **_entry(found[1])}


def _image_files(lists: Lists, blocks: Blocks) -> Iterator[dict[str, Any]]:
    """Yield what is found of images by what their files hash to; only those with a kept file have any."""
    there = [place for place, has in enumerate(blocks.facts.get("block_has_image", ())) if has]
    if (entries := lists.entries.get("sha256")) is not None:
        for place in there:
            hashes = (blocks.facts[name][place] for name in ("block_sha256", "block_received_sha256"))
            found = next((one for each in hashes if each and (one := entries.match_sha256(each)) is not None), None)
            if found is not None:
                yield {**_at(blocks, place), "reason": "listed.sha256", **_entry(found)}
    distances: tuple[tuple[Kind, int], ...] = (
        ("pdq", lists.settings.max_pdq_distance),
        ("phash", lists.settings.max_phash_distance),
    )
    for kind, max_distance in distances:
        if (entries := lists.entries.get(kind)) is not None:
            yield from _near(entries, blocks, there, max_distance)


def _near(entries: Entries, blocks: Blocks, there: Sequence[int], max_distance: int) -> Iterator[dict[str, Any]]:
    """Yield the images near an entry of a list of perceptual hashes, and those that have no such hash."""
    kind = entries.kind
    values = {place: blocks.facts[f"block_{kind}"][place] for place in there}
    yield from (
        {**_at(blocks, place), "reason": f"{UNHASHED}.{kind}"} for place, value in values.items() if value is None
    )
    hashed = {place: _bytes(value, HASH_BYTES[kind]) for place, value in values.items() if value is not None}
    matches = entries.match_hashes(list(hashed.values()), max_distance)
    for place, found in zip(hashed, matches, strict=True):
        if found is not None:
            yield {**_at(blocks, place), "reason": f"listed.{kind}", **_entry(found)}


def _bytes(value: int | bytes, num_bytes: int) -> bytes:
    return value.to_bytes(num_bytes, "big") if isinstance(value, int) else value


def _at(blocks: Blocks, place: int) -> dict[str, Any]:
    sha256 = blocks.facts["block_sha256"][place] if blocks.facts else None
    return {"row": blocks.row[place], "block": blocks.block[place], "url": blocks.url[place], "sha256": sha256}


def _entry(match: Match) -> dict[str, Any]:
    return {"entry": match.entry, "file": match.file, "distance": match.distance}


def _flat(images: pa.Table | None, name: str) -> pa.Array:
    assert images is not None
    return images.column(name).combine_chunks().flatten()

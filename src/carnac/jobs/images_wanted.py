"""The images that documents want: their URLs by host, each once, and a short way to ask whether one is wanted.

    documents part --wanted--> (partition of its host, URL, where it stands)     one unit per documents part
    partition --urls--> its URLs, each once, and their digests, sorted           one unit per partition

A partition holds whole hosts: whoever asks for images knows all that is wanted of a host. Each step holds the URLs of
one partition at most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.core.places import Place, is_local, read_bytes
from carnac.core.taken_down import MARK, TakenDown
from carnac.engine.aligned import read_aligned
from carnac.engine.buckets import BUCKET, KEY, BucketWriter, bucket_of, num_buckets, read_bucket
from carnac.engine.manifest import Manifest, PartEntry
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage, Unit
from carnac.images.urls import host_of

# Small enough that the memory of a step is the same for 10,000 and 100,000 URLs (25,000 took 30 MB more than 10,000).
# Every partition reads the parts of every other step, so beyond 1,024 of them they grow instead: of 353 million URLs
# (OBELICS) one holds 345,000, about 150 MB.
URLS_PER_PARTITION = 10_000
MAX_PARTITIONS = 1024
IMAGES_PER_DOCUMENT = 4  # where the documents do not say how many images they have

WANTED = pa.schema(
    [
        (BUCKET, pa.int32()),
        (KEY, pa.string()),
        ("id", pa.string()),
        ("row", pa.int32()),
        ("block", pa.int32()),
        ("url", pa.string()),
    ]
)
URLS = pa.schema([(KEY, pa.string()), ("url", pa.string())])
ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTask:
    """What a worker needs for one documents part. With `masks` only what they keep is wanted."""

    documents: Place
    masks: Place | None
    limit: int | None
    num_partitions: int
    taken_down: TakenDown


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlsTask:
    """What a worker needs for one partition."""

    wanted: tuple[Place, ...]
    partition: int
    folder: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the later steps read: `parts` of every documents part, `urls` of every partition."""

    parts: tuple[PartEntry, ...]
    urls: tuple[PartEntry, ...]

    @property
    def num_partitions(self) -> int:
        """Number of partitions."""
        return len(self.urls)


def find_wanted(
    runner: Runner,
    folder: Place,
    documents: Manifest,
    masks: Manifest | None,
    limit: int | None,
    taken_down: TakenDown,
) -> Wanted:
    """Write `folder`/wanted and `folder`/urls."""
    count = documents.counts.get("images", documents.rows * IMAGES_PER_DOCUMENT)
    partitions = min(num_buckets(count, URLS_PER_PARTITION), MAX_PARTITIONS)
    settings: dict[str, Any] = {"limit": limit, "num_partitions": partitions}
    units = []
    for entry in documents.parts:
        mask = None if masks is None else masks.part(entry.unit)
        task = WantedTask(
            documents=entry.path,
            masks=None if mask is None else mask.path,
            limit=limit,
            num_partitions=partitions,
            taken_down=taken_down,
        )
        inputs = [entry.digest, "" if mask is None else mask.rows_digest]
        units.append(WANTED_STAGE.unit(entry.unit, task, settings=settings, inputs=inputs))
    parts = runner.do(WANTED_STAGE, units, folder / "wanted")
    runner.publish(WANTED_STAGE, folder / "wanted", parts, settings, {})
    inputs = [entry.digest for entry in parts]
    units = []
    for partition in range(partitions):
        each = UrlsTask(wanted=tuple(entry.path for entry in parts), partition=partition, folder=folder / "urls")
        units.append(URLS_STAGE.unit(partition_name(partition), each, settings=settings, inputs=inputs))
    urls = runner.do(URLS_STAGE, units, folder / "urls")
    runner.publish(URLS_STAGE, folder / "urls", urls, settings, {})
    return Wanted(parts=parts, urls=urls)


def owner_of(url: str) -> str:
    """Return under which name a URL is routed: its host, or itself where nobody can be asked for it (`tar://...`)."""
    return host_of(url) or url


def partition_name(partition: int) -> str:
    """Return the name of the unit of a partition."""
    return f"p{partition:04d}"


def write_wanted(unit: Unit, part: Part) -> None:
    """Write where one documents part wants which images, by partition."""
    task: WantedTask = unit.task
    names = WANTED.names[1:]
    schema = pa.schema([WANTED.field(name) for name in names])
    met: set[str] = set()
    held: list[dict[str, Any]] = []
    with BucketWriter(part, task.num_partitions) as writer:
        for identity, row, block, url in _images_of(task):
            if url == MARK or task.taken_down.has_url(url):
                continue
            if task.limit is not None and url not in met:
                if len(met) == task.limit:
                    continue
                met.add(url)
            held.append(dict(zip(names, (owner_of(url), identity, row, block, url), strict=True)))
            if len(held) == ROWS_AT_ONCE:
                writer.write(pa.Table.from_pylist(held, schema))
                held.clear()
        writer.write(pa.Table.from_pylist(held, schema))


def _images_of(task: WantedTask) -> Iterator[tuple[str, int, int, str]]:
    """Yield (id, row, block, URL) of the images of a documents part; with masks, of those that they keep."""
    if task.masks is None:
        for row, document in enumerate(read_rows(task.documents, ["id", "images"])):
            yield from _blocks(document, row, [True] * len(document["images"]))
        return
    for row, rows in enumerate(read_aligned({"document": task.documents, "mask": task.masks})):
        if rows["mask"]["keep"]:
            yield from _blocks(rows["document"], row, rows["mask"]["keep_block"])


def _blocks(document: dict[str, Any], row: int, keep: Sequence[bool]) -> Iterator[tuple[str, int, int, str]]:
    for block, (url, kept) in enumerate(zip(document["images"], keep, strict=True)):
        if url is not None and kept:
            yield document["id"], row, block, url


def write_urls(unit: Unit, part: Part) -> None:
    """Write the URLs of one partition, each once, in the order in which documents want them; and their digests."""
    task: UrlsTask = unit.task
    urls: dict[str, str] = {}
    for place in task.wanted:
        for batch in read_bucket(place, task.partition, [KEY, "url"]):
            for host, url in zip(batch.column(KEY).to_pylist(), batch.column("url").to_pylist(), strict=True):
                urls.setdefault(url, host)
    for url, host in urls.items():
        part.write({KEY: host, "url": url})
    part.count("urls", len(urls))
    digests = np.sort(np.fromiter((digest_of_url(url) for url in urls), "<u8", len(urls)))
    part.beside(task.folder, DIGESTS).write_bytes(digests.tobytes())


def digest_of_url(url: str) -> int:
    """Return the first 8 bytes of the BLAKE2b-64 digest of a URL as a number (RFC 7693)."""
    return int.from_bytes(hashlib.blake2b(url.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


class WantedUrls:
    """Says whether a URL is wanted, from 8 bytes for each: mapped from the disk, so that workers share them.

    Of 100 million wanted URLs, one in 10^11 others is taken for wanted: it costs a look at an image.
    """

    def __init__(self, urls: Sequence[Place]) -> None:
        self._urls = urls
        self._digests: dict[int, npt.NDArray[np.uint64]] = {}

    def __contains__(self, url: str) -> bool:
        partition = bucket_of(owner_of(url), len(self._urls))
        if partition not in self._digests:
            self._digests[partition] = _read_digests(self._urls[partition])
        digests, wanted = self._digests[partition], np.uint64(digest_of_url(url))
        place = int(np.searchsorted(digests, wanted))
        return place < len(digests) and digests[place] == wanted


def _read_digests(urls: Place) -> npt.NDArray[np.uint64]:
    place = urls.with_name(urls.name.removesuffix(".parquet") + DIGESTS)
    if not is_local(place):
        return np.frombuffer(read_bytes(place), "<u8")
    size = Path(place).stat().st_size  # an empty file cannot be mapped
    return np.memmap(place, "<u8", "r") if size else np.empty(0, "<u8")


DIGESTS = ".u64"
WANTED_STAGE = Stage(name="wanted", version=1, schema=WANTED, work=write_wanted, rows_per_group=100_000, is_step=True)
URLS_STAGE = Stage(name="urls", version=1, schema=URLS, work=write_urls, rows_per_group=100_000, is_step=True)

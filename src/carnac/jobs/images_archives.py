"""Images that a crawl's own archives hold: one archive is one unit, with a pack of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from carnac.archive.pairs import read_pair_images
from carnac.archive.records import Damage, Response, read_responses
from carnac.core.places import Place, source_of
from carnac.core.schema import IMAGE_STATES
from carnac.core.taken_down import TakenDown
from carnac.engine.buckets import BUCKET, KEY, BucketWriter
from carnac.engine.manifest import Manifest, PartEntry
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit, digest_of, outside_digests, unit_names
from carnac.images.pack import PackWriter
from carnac.images.settings import ImageSettings
from carnac.jobs.images_kept import ImageKeeper
from carnac.jobs.images_wanted import Wanted, WantedUrls, owner_of

ARCHIVED = pa.schema([(BUCKET, pa.int32()), (KEY, pa.string()), *IMAGE_STATES])
ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveTask:
    """What a worker needs for one archive: a WARC file or, with `is_pairs`, a tar of image-text pairs."""

    archive: Place
    is_pairs: bool
    urls: tuple[Place, ...]
    packs: Place
    inspect: ImageSettings
    taken_down: TakenDown


def take_from_archives(
    runner: Runner,
    folder: Place,
    documents: Manifest,
    wanted: Wanted,
    inspect: ImageSettings,
    taken_down: TakenDown,
) -> tuple[PartEntry, ...]:
    """Write the parts `archived~NAME` and their packs; of sources that hold no images (a crawl by name, pages) none."""
    is_pairs = "pairs" in documents.inputs
    files = [source_of(name) for name in documents.inputs.get("pairs" if is_pairs else "warcs", [])]
    settings = {"inspect": inspect.model_dump(mode="json"), "num_partitions": wanted.num_partitions}
    shared = digest_of([entry.digest for entry in wanted.urls])
    units = []
    for name, file, digest in zip(unit_names(files), files, outside_digests(files), strict=True):
        task = ArchiveTask(
            archive=file,
            is_pairs=is_pairs,
            urls=tuple(entry.path for entry in wanted.urls),
            packs=folder / "packs",
            inspect=inspect,
            taken_down=taken_down,
        )
        units.append(ARCHIVED_STAGE.unit(f"archived~{name}", task, settings=settings, inputs=[shared, digest]))
    return runner.do(ARCHIVED_STAGE, units, folder) if units else ()


def take_from_archive(unit: Unit, part: Part) -> None:
    """Take each wanted URL from its first sound record; one that has none keeps the reason of its first bad one."""
    task: ArchiveTask = unit.task
    limit = task.inspect.max_image_bytes
    read = read_pair_images if task.is_pairs else read_responses
    with PackWriter(part.beside(task.packs, ".tar")) as pack, BucketWriter(part, len(task.urls)) as writer:
        keeper = ImageKeeper(part, pack, f"{unit.stem}.tar", task.inspect, task.taken_down)
        rows = _Rows(writer, part, "pairs" if task.is_pairs else "warc")
        _take_records(task, read(task.archive, max_payload_bytes=limit), keeper, rows)
        rows.flush()


class _Rows:
    """Rows on their way to their partitions."""

    def __init__(self, writer: BucketWriter, part: Part, source: str) -> None:
        self.part, self._writer, self._source = part, writer, source
        self._held: list[dict[str, Any]] = []
        self._schema = pa.schema(list(ARCHIVED)[1:])

    def write(self, url: str, columns: dict[str, Any]) -> None:
        status, reason = columns["status"], columns.get("reason")
        self.part.count(status if reason is None else f"{status}.{reason}")
        self._held.append({KEY: owner_of(url), "url": url, "source": self._source, **columns})
        if len(self._held) == ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        self._writer.write(pa.Table.from_pylist(self._held, self._schema))
        self._held.clear()


def _take_records(task: ArchiveTask, records: Iterable[Response | Damage], keeper: ImageKeeper, rows: _Rows) -> None:
    wanted = WantedUrls(task.urls)
    kept: set[str] = set()
    failed: dict[str, dict[str, Any]] = {}
    for record in records:
        url = record.url
        if url is None or (url not in kept and url not in failed and url not in wanted):
            continue
        name = f"{task.archive.name}@{record.place}"
        if url in kept:
            rows.part.quarantine(name, "second_record_of_url", url, is_loss=False)
        elif isinstance(record, Damage):
            failed.setdefault(url, {"status": "dropped", "reason": record.reason})
        elif not 200 <= record.status < 300:
            # A page requisite that failed in the crawl may still be had over HTTP: it stays wanted.
            rows.part.count("archived_failures")
        else:
            columns = keeper.keep(name, record.payload)
            if columns["status"] == "kept":
                kept.add(url)
                rows.write(url, columns)
            else:
                failed.setdefault(url, columns)
    for url, columns in failed.items():
        if url not in kept:
            rows.write(url, columns)


ARCHIVED_STAGE = Stage(name="archived", version=1, schema=ARCHIVED, work=take_from_archive)

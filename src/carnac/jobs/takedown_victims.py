"""What entries come to: the bytes behind their URLs, other URLs of the same bytes, and the pages.

All of it enters the record before anything is rewritten: a take-down that is killed knows the rest by the record alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from carnac.core.places import Place
from carnac.core.schema import SAMPLES
from carnac.core.taken_down import MARK, TakenDown
from carnac.engine.tables import open_part
from carnac.jobs.takedown_columns import known_rows
from carnac.jobs.takedown_rows import SHA256_COLUMNS, URL_COLUMNS, Victims, facts_of, image_urls_of

MAX_PASSES = 20  # bytes lead to URLs, those to other bytes (of another day): each pass follows one step further


def find_victims(parts: Sequence[Place], record: TakenDown) -> Victims:
    """Return the record of all that `record` comes to in some parts, and the ids of its pages."""
    victims = Victims(taken_down=record)
    for _ in range(MAX_PASSES):
        found = _Found()
        for part in parts:
            _look(part, victims, found)
        grown = victims.taken_down.merged(TakenDown.of(urls=found.urls, images=found.images))
        after = Victims(taken_down=grown, page_ids=victims.page_ids | frozenset(found.page_ids))
        if after == victims:
            break
        victims = after
    return victims


@dataclasses.dataclass(slots=True)
class _Found:
    urls: set[str] = dataclasses.field(default_factory=set)
    images: set[str] = dataclasses.field(default_factory=set)
    page_ids: set[str] = dataclasses.field(default_factory=set)

    def add_image(self, url: str | None, *sha256s: str | None) -> None:
        if url is not None and url != MARK and "://" in url:
            self.urls.add(url)
        self.images.update(sha256 for sha256 in sha256s if sha256)


def _look(part: Place, victims: Victims, found: _Found) -> None:
    with open_part(part) as file:
        names = frozenset(file.schema_arrow.names)
        if {"url", "sha256"} <= names:
            for row in _rows(file, [*URL_COLUMNS, *SHA256_COLUMNS], names, victims):
                found.add_image(row["url"], *(row.get(name) for name in SHA256_COLUMNS))
        elif {"url", "texts", "images"} <= names:
            for row in _rows(file, ["id", "url", "canonical_url"], names, victims):
                if victims.is_page(row):
                    found.page_ids.add(row["id"])
        elif names >= set(SAMPLES.names):
            for group in range(file.num_row_groups):
                columns = ["id", "metadata", *_paths(file)]
                _look_at_samples(file.read_row_group(group, columns=columns, use_threads=False), victims, found)


def _rows(file: Any, columns: Sequence[str], names: frozenset[str], victims: Victims) -> Iterator[dict[str, Any]]:
    """Yield the rows in which a URL or a hash was taken down, or a page is marked so."""
    wanted = [name for name in columns if name in names]
    for group in range(file.num_row_groups):
        table: pa.Table = file.read_row_group(group, columns=wanted, use_threads=False)
        yield from table.take(pa.array(known_rows(table, victims), pa.int64())).to_pylist()


def _paths(file: Any) -> list[str]:
    columns = (file.schema.column(number).path for number in range(len(file.schema.names)))
    return [path for path in columns if path.startswith("images.") and path.endswith(".path")]


def _look_at_samples(samples: pa.Table, victims: Victims, found: _Found) -> None:
    record = victims.taken_down
    for row in samples.to_pylist():
        facts = facts_of(row["metadata"])
        if record.has_url(facts.get("url")):
            found.page_ids.add(row["id"])
        for image, url in zip(row["images"], image_urls_of(facts, len(row["images"])), strict=True):
            sha256 = None if image is None else PurePosixPath(image["path"] or "").stem
            if sha256 is not None and len(sha256) == 64 and (record.has_url(url) or record.has_image(sha256)):
                found.add_image(url, sha256)

"""Documents, what is measured of them and masks, written as the jobs write them: what a search reads."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import pyarrow as pa

from carnac.core.document import KINDS, Document, Kind
from carnac.core.places import Place
from carnac.core.schema import DOCUMENTS, MASKS, document_to_row
from carnac.curate.repeats.settings import RepeatsPass
from carnac.engine.manifest import Manifest, PartEntry, collect_parts, find_done, manifest_of
from carnac.engine.part import Part
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.storage import list_files, make_folder
from carnac.engine.tables import read_table
from carnac.engine.unit import Stage, Unit
from carnac.jobs.repeats_near import search_near
from carnac.jobs.repeats_sources import RepeatSources, SearchLimits

DOCUMENTS_STAGE = Stage(name="documents", version=1, schema=DOCUMENTS, work=None, rows_per_group=7)
SIGNALS_SCHEMA = pa.schema([("id", pa.string()), ("failed", pa.string()), ("block_kind", pa.list_(pa.int8()))])
SIGNALS_STAGE = Stage(name="signals", version=1, schema=SIGNALS_SCHEMA, work=None, rows_per_group=5)
IMAGES_SCHEMA = pa.schema([("id", pa.string()), ("block_phash", pa.list_(pa.uint64()))])
IMAGES_STAGE = Stage(name="image_signals", version=1, schema=IMAGES_SCHEMA, work=None, rows_per_group=3)
MASKS_STAGE = Stage(name="masks", version=1, schema=MASKS, work=None, rows_per_group=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A document of a crawl of some units: blocks are texts, or hashes of pictures (None: no file is known)."""

    texts: Sequence[str] = ()
    pictures: Sequence[int | None] = ()
    fetched_at: str | None = "2026-01-01T00:00:00Z"
    keep: bool = True
    dropped_blocks: frozenset[int] = frozenset()
    failed: str | None = None

    @property
    def num_blocks(self) -> int:
        return len(self.texts) + len(self.pictures)


Crawl = Mapping[str, Sequence[Page]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerHere(Runner):
    """Does units in this process, in the order given or turned round: a process per unit would take minutes."""

    backwards: bool = False
    done: list[str] = field(default_factory=list)

    def do(self, stage: Stage, units: Sequence[Unit], folder: Place) -> tuple[PartEntry, ...]:
        make_folder(folder)
        found = find_done(folder, units, list_files(folder))
        for unit in reversed(units) if self.backwards else units:
            if found[unit.name] is None:
                assert stage.work is not None
                with Part(stage, unit, folder) as part:
                    stage.work(unit, part)
                self.done.append(f"{stage.name}/{unit.name}")
        return collect_parts(folder, units)


def here(*, backwards: bool = False) -> RunnerHere:
    return RunnerHere(reporter=TerminalReporter(io.StringIO()), backwards=backwards)


def sources(folder: Place, crawl: Crawl, *, masked: bool = True, with_images: bool = False) -> RepeatSources:
    """Write what a search reads; `masked` False is before the first pass."""
    rows = {unit: [_rows(f"{unit}:{row}", page) for row, page in enumerate(pages)] for unit, pages in crawl.items()}

    def wrote(stage: Stage, which: int) -> Manifest:
        place = folder / stage.name
        make_folder(place)
        units = [stage.unit(name, None, settings={}, inputs=[str(rows[name])]) for name in rows]
        for unit in units:
            with Part(stage, unit, place) as part:
                for row in rows[unit.name]:
                    part.write(row[which])
        return manifest_of(stage, place, collect_parts(place, units), {}, {})

    return RepeatSources(
        documents=wrote(DOCUMENTS_STAGE, 0),
        signals=wrote(SIGNALS_STAGE, 1),
        images=wrote(IMAGES_STAGE, 2) if with_images else None,
        last=wrote(MASKS_STAGE, 3) if masked else None,
    )


def _rows(name: str, page: Page) -> tuple[dict[str, object], ...]:
    """Return the rows of a page in documents, signals, image signals and masks."""
    kinds = cast("tuple[Kind, ...]", ("paragraph",) * len(page.texts) + ("image",) * len(page.pictures))
    document = Document(
        id=name,
        url=f"https://example.org/{name}",
        warc_file="a.warc.gz",
        warc_offset=0,
        fetched_at=page.fetched_at,
        title=None,
        language="en",
        language_score=1.0,
        texts=(*page.texts, *(None for _ in page.pictures)),
        images=(*(None for _ in page.texts), *(f"https://example.org/{n}.png" for n in range(len(page.pictures)))),
        kinds=kinds,
        image_nodes=(None,) * page.num_blocks,
    )
    keep_block = [block not in page.dropped_blocks for block in range(page.num_blocks)]
    return (
        document_to_row(document),
        {"id": name, "failed": page.failed, "block_kind": [KINDS.index(kind) for kind in kinds]},
        {"id": name, "block_phash": [*(None for _ in page.texts), *page.pictures]},
        {
            "id": name,
            "keep": page.keep,
            "reason": None if page.keep else 0,
            "keep_block": keep_block,
            "block_reason": [None if kept else 0 for kept in keep_block],
        },
    )


def near(
    folder: Place,
    crawl: Crawl,
    *,
    runner: Runner | None = None,
    masked: bool = True,
    rows_per_bucket: int = 1000,
    max_memory_mb: int = 100,
    **settings: object,
) -> list[dict[str, object]]:
    """Search a crawl for near-duplicates; return the rows of `REPEATS` in order."""
    step = RepeatsPass.model_validate({"name": "repeats", "kind": "repeats", "by": ("near",), **settings})
    limits = SearchLimits(max_memory_mb=max_memory_mb, rows_per_bucket=rows_per_bucket)
    read = sources(folder, crawl, masked=masked)
    return rows_of(search_near(runner or here(), step, read, (), folder / "repeats", limits))


def rows_of(entries: Sequence[PartEntry]) -> list[dict[str, object]]:
    """Return the rows of parts, one part after the other."""
    return [row for entry in entries for row in read_table(entry.path).to_pylist()]

"""What a search for repeats reads: the stored columns of a part, and what is still kept of its documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.places import Place
from carnac.core.schema import HIT_COLUMNS, HITS
from carnac.curate.hits import WHOLE, Hits, judge_hits
from carnac.curate.masks import NO_BLOCKS_LEFT, SIGNALS_FAILED, Masks, Reasons, check_same_rows
from carnac.curate.repeats.within import KIND as WITHIN
from carnac.curate.signals.frame import Frame
from carnac.engine.aligned import read_aligned_tables
from carnac.engine.buckets import read_equal
from carnac.engine.manifest import Manifest, PartEntry
from carnac.engine.unit import digest_of

ROWS_READ = 5_000  # at once; 43 blocks each make 215,000 keys, 1.7 MB a column
TEXTS_READ = 256  # with their texts: a few megabytes, as the row groups of documents


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatSources:
    """What a search reads: `images` where image files are known, `last` the masks of the pass before."""

    documents: Manifest
    signals: Manifest
    images: Manifest | None
    last: Manifest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLimits:
    """What bounds the memory of the search: DuckDB's, and the rows of a bucket. Neither changes what is found."""

    max_memory_mb: int
    rows_per_bucket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSources:
    """What a worker opens of one part. `found` are parts of what earlier kinds found, as far as they may name it."""

    unit: str
    documents: Place
    signals: Place
    images: Place | None
    last: Place | None
    found: tuple[Place, ...]


def part_sources(
    sources: RepeatSources, unit: str, found: Sequence[PartEntry], folders: Sequence[str]
) -> tuple[PartSources, list[str]]:
    """Return what to open of a part, and the digests of it.

    `folders` are those whose columns are read beside the masks and the kinds of blocks: "documents", "signals",
    "images".
    """
    signals = sources.signals.part(unit)
    images = None if sources.images is None or "images" not in folders else sources.images.part(unit)
    last = None if sources.last is None else sources.last.part(unit)
    earlier = naming(found, unit)
    digests = [
        sources.documents.part(unit).digest if "documents" in folders else "",
        signals.digest,
        "" if images is None else images.digest,
        "" if last is None else last.rows_digest,
        digest_of([entry.digest for entry in earlier]),
    ]
    opened = PartSources(
        unit=unit,
        documents=sources.documents.part(unit).path,
        signals=signals.path,
        images=None if images is None else images.path,
        last=None if last is None else last.path,
        found=tuple(entry.path for entry in earlier),
    )
    return opened, digests


def naming(found: Sequence[PartEntry], unit: str) -> tuple[PartEntry, ...]:
    """Return those of the parts of a search for repeats that may name documents of the part `unit`.

    Not those without rows, nor those in which another part was searched for itself.
    """
    own = within_unit(unit)
    return tuple(entry for entry in found if entry.rows and (entry.unit == own or not entry.unit.startswith(WITHIN)))


def within_unit(unit: str) -> str:
    """Return the name of the unit that searches the documents of `unit`, each for itself."""
    return f"{WITHIN}-{unit}"


def read_hits(found: Sequence[Place], unit: str) -> Hits:
    """Return what parts of a search for repeats say of one unit, by row."""
    batches = [batch for part in found for batch in read_equal(part, "unit", unit, HIT_COLUMNS)]
    table = pa.Table.from_batches(batches, pa.schema([HITS.field(name) for name in HIT_COLUMNS])).sort_by("row")
    return Hits(
        row=table.column("row").to_numpy(),
        block=pc.fill_null(table.column("block"), WHOLE).to_numpy().astype(np.int64),
        reason=table.column("reason").to_pylist(),
    )


def read_kept(part: PartSources, columns: Mapping[str, Sequence[str]]) -> Iterator[tuple[int, Frame, Masks]]:
    """Yield (first row, columns, what is still kept) of a part, a number of rows at once.

    `columns` are read of "documents", "signals" and "images". Kept is what the passes before left and no earlier kind
    found; a document that could not be measured or has no block left is not, as the masks after this pass have it.
    """
    hits = read_hits(part.found, part.unit)
    reasons = Reasons(tuple(dict.fromkeys((SIGNALS_FAILED, NO_BLOCKS_LEFT, *hits.reason))))
    num_rows = TEXTS_READ if "texts" in columns.get("documents", ()) else ROWS_READ
    for first, tables in read_aligned_tables(_parts(part, columns), num_rows):
        check_same_rows(*tables.values())
        last = tables.pop("last", None)
        signals = tables["signals"]
        frame = Frame.of(*tables.values())
        masks = Masks.after(last, signals.column("id"), frame.starts)
        failed = signals.column("failed").is_valid().to_numpy()
        masks = judge_hits(masks, failed, hits.between(first, signals.num_rows), reasons)
        yield first, frame.with_kept(masks.is_alive), masks


def _parts(part: PartSources, columns: Mapping[str, Sequence[str]]) -> dict[str, tuple[Place, Sequence[str]]]:
    wanted = ["id", "failed", "block_kind", *columns.get("signals", ())]
    parts: dict[str, tuple[Place, Sequence[str]]] = {"signals": (part.signals, wanted)}
    if columns.get("images") and part.images is not None:
        parts["images"] = (part.images, ["id", *columns["images"]])
    if columns.get("documents"):
        parts["documents"] = (part.documents, ["id", *columns["documents"]])
    if part.last is not None:
        parts["last"] = (part.last, ["id", "reason", "block_reason"])
    return parts

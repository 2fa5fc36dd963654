"""What a pass is judged from: which stored columns it needs, and those of one part read in bounded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carnac.core.places import Place
from carnac.curate.masks import Masks, check_same_rows
from carnac.curate.rules import columns_read
from carnac.curate.settings import RulesPass
from carnac.curate.signals.catalogue import column_named
from carnac.curate.signals.frame import Frame
from carnac.engine.aligned import read_aligned_tables
from carnac.engine.manifest import Manifest
from carnac.jobs.curate_passes import AnyPass, FetchPass

ROWS_JUDGED = 2_000  # at once; 43 blocks each make 86,000 entries, under a megabyte a column
ALWAYS = ("id", "failed", "block_kind")  # of signals/, whatever is judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a pass judges from: `images` where image files are known, `kept` where signals were measured again.

    `hits` is what was searched for this pass; `last` are the masks of the pass before.
    """

    signals: Manifest
    images: Manifest | None
    kept: Manifest | None
    last: Manifest | None
    hits: Manifest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredParts:
    """The parts of one unit, and the stored columns that are needed of them."""

    signals: Place
    images: Place | None
    kept: Place | None
    last: Place | None
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBatch:
    """Some documents of a part, from row `first` on: their columns, what is kept so far, and what failed (bool[d])."""

    first: int
    frame: Frame
    last: Masks
    failed: npt.NDArray[np.bool_]


def columns_of(step: AnyPass) -> tuple[str, ...]:
    """Return the stored columns that a pass needs, in the order of their names."""
    if isinstance(step, RulesPass):
        return tuple(sorted(columns_read(step.rules)))
    return ("block_has_image",) if isinstance(step, FetchPass) else ()


def needs_files(step: AnyPass) -> bool:
    """Whether a pass judges by what image files tell."""
    return any(column_named(name).table == "image_signals" for name in columns_of(step))


def remeasured_columns(step: AnyPass) -> tuple[str, ...]:
    """Return the columns that must be measured again over what is kept before a pass, in the order of their names."""
    return tuple(name for name in columns_of(step) if column_named(name).remeasured)


def stored_parts(sources: Sources, step: AnyPass, unit: str) -> tuple[StoredParts, list[str]]:
    """Return the parts that a pass needs of a unit, and the digests of what is read of them."""
    signals = sources.signals.part(unit)
    images = sources.images.part(unit) if sources.images is not None and needs_files(step) else None
    kept = sources.kept.part(unit) if sources.kept is not None and remeasured_columns(step) else None
    last = None if sources.last is None else sources.last.part(unit)
    parts = StoredParts(
        signals=signals.path,
        images=None if images is None else images.path,
        kept=None if kept is None else kept.path,
        last=None if last is None else last.path,
        columns=columns_of(step),
    )
    digests = [signals.digest, *("" if each is None else each.digest for each in (images, kept))]
    # Of the last masks what is kept counts, whatever the reasons are called.
    return parts, [*digests, "" if last is None else last.rows_digest]


def read_stored(parts: StoredParts) -> Iterator[StoredBatch]:
    """Yield the documents of a unit in bounded batches."""
    for first, tables in read_aligned_tables(_places(parts), ROWS_JUDGED):
        check_same_rows(*tables.values())
        frame = Frame.of(*(tables[name] for name in ("signals", "images", "kept") if name in tables))
        signals, last = tables["signals"], tables.get("last")
        masks = Masks.after(last, signals.column("id"), frame.starts)
        failed = tables.get("kept", signals).column("failed").is_valid().to_numpy()
        yield StoredBatch(first=first, frame=frame, last=masks, failed=failed)


def _places(parts: StoredParts) -> dict[str, tuple[Place, Sequence[str]]]:
    """Return the parts to read, with the columns that are needed of each."""
    columns = {name: column_named(name) for name in parts.columns}
    again = [] if parts.kept is None else [name for name, column in columns.items() if column.remeasured]
    wanted = {
        table: [name for name, column in columns.items() if column.table == table and name not in again]
        for table in ("signals", "image_signals")
    }
    places: dict[str, tuple[Place, Sequence[str]]] = {"signals": (parts.signals, [*ALWAYS, *wanted["signals"]])}
    if parts.images is not None:
        places["images"] = (parts.images, ["id", *wanted["image_signals"]])
    if parts.kept is not None:
        places["kept"] = (parts.kept, ["id", "failed", *again])
    if parts.last is not None:
        places["last"] = (parts.last, ["id", "reason", "block_reason"])
    return places

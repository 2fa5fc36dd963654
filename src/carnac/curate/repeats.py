"""Find documents that equal another, over all parts, and keep one of each set.

In: the digests of all parts and the last masks. Out: a table of `REPEATS`, and verdicts from it. DuckDB does the
grouping under a hard memory cap and spills to a scratch folder; of the parts only one at a time is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.errors import RunError
from carnac.core.schema import REPEATS
from carnac.curate.settings import RepeatKind
from carnac.curate.verdicts import (
    Reasons,
    Verdict,
    check_same_rows,
    keep_all,
    masks_table,
    repeat_reason,
    verdict_from_row,
)

# The columns of `signals/` and `masks/` that the search reads.
SIGNALS_COLUMNS = ("id", "url_digest", "text_digest")
MASKS_COLUMNS = ("id", "keep")

_CREATE = """
CREATE TABLE competing (arrival INTEGER, row BIGINT, id VARCHAR, url_digest VARCHAR, text_digest VARCHAR);
CREATE TABLE units (arrival INTEGER, rank BIGINT, unit VARCHAR);
CREATE TABLE found (kind_order INTEGER, kind VARCHAR, key VARCHAR, id VARCHAR, unit VARCHAR, row BIGINT, root VARCHAR,
                    arrival INTEGER);
"""
# The root of a key is the document of the smallest (unit, row). What repeats by one kind is gone when the next is
# searched: a document is found at most once, and never for the sake of one that is itself dropped.
_SEARCH = """
INSERT INTO found
SELECT {order}, '{kind}', key, id, unit, row, root.id, arrival
FROM (
    SELECT {kind}_digest AS key, arg_min({{'id': id, 'rank': rank, 'row': row}}, {{'rank': rank, 'row': row}}) AS root
    FROM competing JOIN units USING (arrival) WHERE {kind}_digest IS NOT NULL GROUP BY key HAVING count(*) > 1
) AS groups
JOIN competing ON competing.{kind}_digest = groups.key JOIN units USING (arrival)
WHERE (rank, row) <> (root.rank, root.row);
DELETE FROM competing USING found WHERE competing.arrival = found.arrival AND competing.row = found.row;
"""
_RESULT = "SELECT kind, key, id, unit, row, root FROM found ORDER BY kind_order, unit, row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Competitors:
    """One part: the name of its unit, its signals and its last masks (None before the first pass)."""

    unit: str
    signals: pa.Table
    masks: pa.Table | None


def find_repeats(
    parts: Iterable[Competitors], *, by: Sequence[RepeatKind], max_memory_mb: int, scratch: Path
) -> pa.Table:
    """Return the table of `REPEATS`: each document that equals one of a smaller (unit, row), by kind, unit and row.

    Only documents that are still kept compete, and only those with a digest: a page without text, or one that could not
    be measured, equals no other. `parts` is read once, in any order, so a generator may open them one by one; of their
    columns `SIGNALS_COLUMNS` and `MASKS_COLUMNS` are used. `scratch` is an existing folder for what exceeds the memory.
    Raises RunError where `max_memory_mb` is too little even so.
    """
    assert set(by) <= set(get_args(RepeatKind)), by
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{max_memory_mb}MB",
        "temp_directory": str(scratch),
        "threads": 1,  # a thread more takes its own buffers out of the cap
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    with duckdb.connect(":memory:", config=config) as database:
        try:
            return _search(database, parts, by)
        except duckdb.OutOfMemoryException as error:
            raise RunError(f"repeats need more than max_memory_mb = {max_memory_mb}; raise it ({error})") from error


def _search(database: duckdb.DuckDBPyConnection, parts: Iterable[Competitors], by: Sequence[RepeatKind]) -> pa.Table:
    """Load the parts, search kind after kind, return what was found."""
    database.execute(_CREATE)
    units: list[str] = []
    for part in parts:
        assert part.unit not in units, f"unit {part.unit} was given twice"
        digests = _still_kept(part, arrival=len(units))  # noqa: F841 - DuckDB reads the variable by its name
        database.execute("INSERT INTO competing SELECT * FROM digests")
        units.append(part.unit)
    ranks = {unit: rank for rank, unit in enumerate(sorted(units))}
    if units:
        database.executemany("INSERT INTO units VALUES (?, ?, ?)", [(n, ranks[u], u) for n, u in enumerate(units)])
    for order, kind in enumerate(by):
        database.execute(_SEARCH.format(order=order, kind=kind))
    found: pa.Table = database.sql(_RESULT).to_arrow_table()
    return found.cast(REPEATS)


def _still_kept(part: Competitors, arrival: int) -> pa.Table:
    """Return the digests of the documents of a part that are still kept, with their rows."""
    num_rows = part.signals.num_rows
    columns = {name: part.signals.column(name) for name in SIGNALS_COLUMNS}
    table = pa.table(
        {"arrival": pa.array(np.full(num_rows, arrival), pa.int32()), "row": np.arange(num_rows), **columns}
    )
    if part.masks is None:
        return table
    check_same_rows(part.signals, part.masks)
    return table.filter(part.masks.column("keep"))


def judge_repeats(
    unit: str, num_blocks: Sequence[int], last: Sequence[Verdict] | None, repeats: pa.Table, reasons: Reasons
) -> list[Verdict]:
    """Return the verdicts on the documents of one part: those that `repeats` lists under `unit` are dropped.

    `num_blocks` holds the number of blocks of each document; `last` their verdicts after the pass before.
    """
    verdicts = [keep_all(count) for count in num_blocks] if last is None else list(last)
    mine = repeats.filter(pc.equal(repeats.column("unit"), unit))
    for row, kind in zip(mine.column("row").to_pylist(), mine.column("kind").to_pylist(), strict=True):
        before = verdicts[row]
        if before.keep:
            code = reasons.code(repeat_reason(kind))
            verdicts[row] = Verdict(
                keep=False, reason=code, keep_block=before.keep_block, block_reason=before.block_reason
            )
    return verdicts


def judge_repeats_part(
    unit: str, documents: pa.Table, last: pa.Table | None, repeats: pa.Table, reasons: Reasons
) -> pa.Table:
    """Return the part of `MASKS` of a pass of repeats; `documents` needs the columns `id` and `kinds`."""
    check_same_rows(documents, *([] if last is None else [last]))
    before = None if last is None else [verdict_from_row(row) for row in last.to_pylist()]
    num_blocks = [len(kinds) for kinds in documents.column("kinds").to_pylist()]
    return masks_table(
        documents.column("id").to_pylist(), judge_repeats(unit, num_blocks, before, repeats, reasons), reasons
    )

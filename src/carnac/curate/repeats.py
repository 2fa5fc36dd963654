"""Find documents that equal another, over all parts, and keep one of each set.

In: the digests of all parts and the last masks. Out: rows of `REPEATS`, and verdicts from them. What competes is put
into buckets by its digest, so that equal ones meet; each bucket is searched alone, by DuckDB under a memory cap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import duckdb  # here too, so that an installation without it says so before any work
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.schema import REPEATS
from carnac.curate.settings import RepeatKind
from carnac.curate.verdicts import (
    SIGNALS_FAILED,
    Reasons,
    Verdict,
    check_same_rows,
    keep_all,
    masks_table,
    repeat_reason,
    verdict_from_row,
)
from carnac.engine.buckets import BUCKET, KEY

# A document that competes: row `row` of its part, with the digest that it would share.
REPEAT_KEYS = pa.schema([(BUCKET, pa.int32()), (KEY, pa.string()), ("id", pa.string()), ("row", pa.int64())])

# Rows that DuckDB is given and gives back at once: about 20 MB, which its cap does not count.
ROWS_AT_ONCE = 100_000

# A document's place is one number that orders documents by unit and row: a minimum over pairs took twice the time.
ROW_BITS = 40
_CREATE = "CREATE TABLE competing (place BIGINT, key VARCHAR, id VARCHAR)"
_INSERT = "INSERT INTO competing SELECT place, key, id FROM rows"
# The root of a key is the document of the smallest place. Steps one after the other have the whole cap each: as one
# statement it needs half as much again. What is found is numbered, to be read in slices: DuckDB counts nothing of
# what it hands over.
_SEARCH = f"""
CREATE TABLE roots AS
    SELECT key, min(place) AS first, arg_min(id, place) AS root FROM competing GROUP BY key HAVING count(*) > 1;
CREATE TABLE pairs AS
    SELECT key, place, id, root FROM roots JOIN competing USING (key) WHERE place <> first;
DROP TABLE competing;
DROP TABLE roots;
CREATE TABLE found AS
    SELECT row_number() OVER (ORDER BY place) AS number, key, id, unit, place & {(1 << ROW_BITS) - 1} AS row, root
    FROM pairs JOIN units ON units.rank = place >> {ROW_BITS};
"""  # noqa: S608 -- numbers of ours
_SLICE = "SELECT ? AS kind, key, id, unit, row, root FROM found WHERE number BETWEEN ? AND ? ORDER BY number"


def competing_rows(
    signals: pa.Table, masks: pa.Table | None, kind: RepeatKind, gone: npt.NDArray[np.int64], first_row: int
) -> pa.Table:
    """Return the documents that compete by `kind`: the columns of `REPEAT_KEYS` after the bucket.

    `signals` and `masks` (None before the first pass) hold the same rows of a part, those from `first_row` on; `gone`
    are rows of the part that repeat by an earlier kind. Only documents that are still kept compete, and only those with
    a digest: a page without text, or one that could not be measured, equals no other.
    """
    rows = np.arange(first_row, first_row + signals.num_rows)
    keep = np.isin(rows, gone, invert=True)
    if masks is not None:
        check_same_rows(signals, masks)
        keep &= masks.column("keep").to_numpy()
    digests = signals.column(f"{kind}_digest")
    keep &= pc.is_valid(digests).to_numpy()
    return pa.table({KEY: digests, "id": signals.column("id"), "row": rows}).filter(pa.array(keep))


def find_in_bucket(
    rows: Iterable[tuple[int, pa.RecordBatch]],
    units: Sequence[str],
    kind: RepeatKind,
    database: duckdb.DuckDBPyConnection,
) -> Iterator[pa.Table]:
    """Yield, by unit and row, tables of `REPEATS`: each document whose key equals that of a smaller (unit, row).

    `rows` are pairs of a place in `units` and rows of it (`key`, `id`, `row`), in any order, and all of a key are among
    them. `database` is empty and stays in use while tables are taken.
    """
    database.execute(_CREATE)
    rank_of = {unit: rank for rank, unit in enumerate(sorted(units))}
    assert len(rank_of) == len(units), "a unit was given twice"
    for table in _gathered((rank_of[units[place]], batch) for place, batch in rows):
        database.register("rows", table)
        database.execute(_INSERT)
        database.unregister("rows")
    database.register(
        "units", pa.table({"rank": pa.array(rank_of.values(), pa.int64()), "unit": pa.array(rank_of, pa.string())})
    )
    database.execute(_SEARCH)
    ((num_found,),) = database.execute("SELECT count(*) FROM found").fetchall()
    for first in range(1, num_found + 1, ROWS_AT_ONCE):
        found = database.sql(_SLICE, params=[kind, first, first + ROWS_AT_ONCE - 1]).to_arrow_table()
        yield found.cast(REPEATS)


def _gathered(rows: Iterable[tuple[int, pa.RecordBatch]]) -> Iterator[pa.Table]:
    """Yield tables of about `ROWS_AT_ONCE` rows with the place of each: a statement per small batch is slow."""
    held: list[pa.RecordBatch] = []
    num_held = 0
    for rank, batch in rows:
        place = (rank << ROW_BITS) | batch.column("row").to_numpy()
        held.append(batch.append_column("place", pa.array(place, pa.int64())))
        num_held += batch.num_rows
        if num_held >= ROWS_AT_ONCE:
            yield pa.Table.from_batches(held)
            held, num_held = [], 0
    if held:
        yield pa.Table.from_batches(held)


def judge_repeats(
    num_blocks: Sequence[int],
    failed: Sequence[str | None],
    last: Sequence[Verdict] | None,
    repeats: Mapping[int, RepeatKind],
    reasons: Reasons,
) -> list[Verdict]:
    """Return the verdicts on some documents: those that could not be measured and the rows of `repeats` are dropped.

    `num_blocks` holds the number of blocks of each document, `failed` the column of its signals, `last` its verdict
    after the pass before. What could not be measured repeats nothing, and so would be kept with every copy of it.
    """
    verdicts = [keep_all(count) for count in num_blocks] if last is None else list(last)
    names = {row: SIGNALS_FAILED for row, reason in enumerate(failed) if reason is not None}
    names |= {row: repeat_reason(kind) for row, kind in repeats.items()}
    for row, name in names.items():
        before = verdicts[row]
        if before.keep:
            verdicts[row] = replace(before, keep=False, reason=reasons.code(name))
    return verdicts


def judge_repeats_part(
    documents: pa.Table,
    signals: pa.Table,
    last: pa.Table | None,
    repeats: Mapping[int, RepeatKind],
    reasons: Reasons,
) -> pa.Table:
    """Return the part of `MASKS` of a pass of repeats; `repeats` maps the rows that repeat another to their kind.

    `documents` needs the columns `id` and `kinds`, `signals` `id` and `failed`. Raises InputError where they and `last`
    do not hold the same documents.
    """
    check_same_rows(documents, signals, *([] if last is None else [last]))
    before = None if last is None else [verdict_from_row(row) for row in last.to_pylist()]
    num_blocks = [len(kinds) for kinds in documents.column("kinds").to_pylist()]
    verdicts = judge_repeats(num_blocks, signals.column("failed").to_pylist(), before, repeats, reasons)
    return masks_table(documents.column("id").to_pylist(), verdicts, reasons)

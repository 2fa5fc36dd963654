"""Find what equals another over all parts: documents of which one stays, blocks that are all over the place.

In: keys of all parts, bucket by bucket. Out: rows of `REPEATS`. The keys of a bucket go through DuckDB once, under a
memory cap; what it finds to repeat (no more than half of the documents, or one key per frequent block) is then matched
with the rows of the bucket, in the order of part names and rows, as they are read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import duckdb  # here too, so that an installation without it says so before any work
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.core.schema import REPEATS
from carnac.curate.repeats.settings import repeat_reason
from carnac.engine.buckets import KEY

# A document's place is one number that orders documents by unit and row.
ROW_BITS = 40
# Rows of a part that are handed over at once: a row group of repeats tells its first and last unit, and is then skipped
# by readers of another.
ROWS_AT_ONCE = 10_000

_PLACED = pa.schema([(KEY, pa.uint64()), ("place", pa.int64()), ("preference", pa.int64())])
_BARE = pa.schema([(KEY, pa.uint64())])
# Preference and place in one number of 128 bits: a minimum over two columns took twice the time.
_ROOTS = """
SELECT key, (best % (1::HUGEINT << 63))::BIGINT AS root
FROM (
    SELECT key, count(*) AS copies, min(preference::HUGEINT * (1::HUGEINT << 63) + place) AS best
    FROM rows GROUP BY key
)
WHERE copies > 1
"""
_FREQUENT = "SELECT key FROM rows GROUP BY key HAVING count(*) > ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """The rows of a bucket: `read(unit, columns)` yields batches of those of one unit, by row, as often as asked."""

    units: Sequence[str]
    read: Callable[[str, Sequence[str]], Iterable[pa.RecordBatch]]

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, str, pa.RecordBatch]]:
        """Yield (rank of the unit, its name, rows), by unit."""
        assert len(set(self.units)) == len(self.units), "a unit was given twice"
        for rank, unit in enumerate(sorted(self.units)):
            for batch in self.read(unit, columns):
                yield rank, unit, batch


def find_documents(bucket: Bucket, kind: str, database: duckdb.DuckDBPyConnection) -> Iterator[pa.Table]:
    """Yield tables of `REPEATS`, by unit and row: each document whose key equals that of a preferred one.

    The rows of `bucket` are those of `DOCUMENT_KEYS`; all of a key are among them.
    """
    found = _ask(database, _ROOTS, (), _PLACED, _placed(bucket))
    order = np.argsort(found.column(KEY).to_numpy())
    keys, roots = (found.column(name).to_numpy()[order] for name in (KEY, "root"))
    if len(keys):
        yield from cut(_copies(bucket, keys, roots, kind))


def find_frequent(
    bucket: Bucket, kind: str, max_copies: int, database: duckdb.DuckDBPyConnection
) -> Iterator[pa.Table]:
    """Yield tables of `REPEATS`, by unit and row: each block whose key occurs more than `max_copies` times.

    The rows of `bucket` are those of `BLOCK_KEYS`; all of a key are among them.
    """
    rows = (batch for _, _, batch in bucket.rows([KEY]))
    found = _ask(database, _FREQUENT, (max_copies,), _BARE, rows)
    keys = np.sort(found.column(KEY).to_numpy())
    if len(keys):
        yield from cut(_frequent(bucket, keys, kind))


def _copies(
    bucket: Bucket, keys: npt.NDArray[np.uint64], roots: npt.NDArray[np.int64], kind: str
) -> Iterator[pa.Table]:
    names = _names_of_roots(bucket, keys, roots)
    for rank, unit, batch in bucket.rows([KEY, "id", "row"]):
        at, known = _look_up(keys, batch.column(KEY).to_numpy())
        is_copy = known & (roots[at] != _places(rank, batch))
        yield _repeats(batch.filter(pa.array(is_copy)), unit, kind, names.take(pa.array(at[is_copy])))


def _frequent(bucket: Bucket, keys: npt.NDArray[np.uint64], kind: str) -> Iterator[pa.Table]:
    for _, unit, batch in bucket.rows([KEY, "id", "row", "block"]):
        _, known = _look_up(keys, batch.column(KEY).to_numpy())
        hits = batch.filter(pa.array(known))
        yield _repeats(hits, unit, kind, pa.nulls(hits.num_rows, pa.string()))


def _placed(bucket: Bucket) -> Iterator[pa.RecordBatch]:
    """Yield the documents of a bucket as rows of `_PLACED`."""
    for rank, _, batch in bucket.rows([KEY, "row", "preference"]):
        columns = [batch.column(KEY), pa.array(_places(rank, batch)), batch.column("preference")]
        yield pa.record_batch(columns, schema=_PLACED)


def _ask(
    database: duckdb.DuckDBPyConnection,
    query: str,
    parameters: Sequence[int],
    schema: pa.Schema,
    rows: Iterable[pa.RecordBatch],
) -> pa.Table:
    """Return what `query` makes of `rows` of `schema`, which stream through and are held by nobody.

    What reading them raises (a damaged part, a lack of memory) is raised, not DuckDB's word for it.
    """
    raised: list[BaseException] = []

    def read() -> Iterator[pa.RecordBatch]:
        try:
            yield from rows
        except BaseException as error:
            raised.append(error)
            raise

    database.register("rows", pa.RecordBatchReader.from_batches(schema, read()))
    try:
        return database.sql(query, params=list(parameters)).to_arrow_table()
    except duckdb.Error:
        if raised:
            raise raised[0] from None
        raise


def _places(rank: int, batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    places: npt.NDArray[np.int64] = (rank << ROW_BITS) | batch.column("row").to_numpy()
    return places


def _look_up(
    keys: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return where each wanted key would be among `keys` (ascending, at least one), and whether it is there."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted


def _names_of_roots(bucket: Bucket, keys: npt.NDArray[np.uint64], roots: npt.NDArray[np.int64]) -> pa.Array:
    """Return the id of the root of every key."""
    found, names = [], []
    for rank, _, batch in bucket.rows([KEY, "id", "row"]):
        at, known = _look_up(keys, batch.column(KEY).to_numpy())
        is_root = known & (roots[at] == _places(rank, batch))
        found.append(at[is_root])
        names.append(batch.column("id").filter(pa.array(is_root)))
    order = np.argsort(np.concatenate(found))
    return pa.concat_arrays(names).take(pa.array(order))


def _repeats(rows: pa.RecordBatch, unit: str, kind: str, roots: pa.Array) -> pa.Table:
    """Return rows of a bucket as rows of `REPEATS`."""
    number = rows.num_rows
    block = rows.column("block") if "block" in rows.schema.names else pa.nulls(number, pa.int32())
    words = [pa.array([word] * number, pa.string()) for word in (repeat_reason(kind), unit, kind)]
    columns = [rows.column("id"), rows.column("row"), block, *words, written(rows.column(KEY).to_numpy()), roots]
    return pa.table(columns, schema=REPEATS)


def written(keys: npt.NDArray[np.uint64]) -> pa.Array:
    """Return keys as `REPEATS` has them: 16 hexadecimal digits."""
    return pa.array([f"{key:016x}" for key in keys.tolist()], pa.string())


def cut(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows of tables of `REPEATS` in tables of exactly `ROWS_AT_ONCE` rows, the last one of fewer."""
    held: list[pa.Table] = []
    room = ROWS_AT_ONCE
    for table in tables:
        left = table
        while left.num_rows:
            held.append(left.slice(0, room))
            left = left.slice(room)
            room -= held[-1].num_rows
            if not room:
                yield pa.concat_tables(held).combine_chunks()
                held, room = [], ROWS_AT_ONCE
    if held:
        yield pa.concat_tables(held).combine_chunks()

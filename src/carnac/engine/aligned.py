"""Tables with the same rows in the same order, read side by side: documents, signals, masks of one unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.engine.ledger import read_ledger
from carnac.engine.tables import read_batches, read_rows

ROWS_AT_ONCE = 1000  # of every part that is read: the row group of a stage, a few megabytes


def read_aligned(parts: Mapping[str, Place]) -> Iterator[dict[str, dict[str, Any]]]:
    """Yield, row by row, one row of every part by name.

    Raises InputError when the numbers of rows or an `id` differ: the parts were not made from one another.
    """
    readers = {name: read_rows(part) for name, part in parts.items()}
    lengths = {name: read_ledger(part).rows for name, part in parts.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(
            f"{', '.join(map(str, parts.values()))}: rows {lengths}; wanted equal numbers. Run the recipe again."
        )
    for row, values in enumerate(zip(*readers.values(), strict=True)):
        rows = dict(zip(readers, values, strict=True))
        ids = {name: value.get("id") for name, value in rows.items()}
        if len(set(ids.values())) > 1:
            raise InputError(
                f"row {row} of {', '.join(map(str, parts.values()))}: ids differ {ids}. Run the recipe again."
            )
        yield rows


def read_aligned_tables(
    parts: Mapping[str, tuple[Place, Sequence[str] | None]], num_rows: int = ROWS_AT_ONCE
) -> Iterator[tuple[int, dict[str, pa.Table]]]:
    """Yield (first row, tables by name) of parts with the same rows, `num_rows` at once; None stands for all columns.

    Whether the documents are the same is for the reader to check: see `check_same_rows`. Raises InputError when the
    numbers of rows differ.
    """
    readers = {name: _tables(part, columns, num_rows) for name, (part, columns) in parts.items()}
    first = 0
    while True:
        tables = {name: next(reader, None) for name, reader in readers.items()}
        there = {name: table for name, table in tables.items() if table is not None}
        if not there:
            return
        lengths = {name: first + (0 if table is None else table.num_rows) for name, table in tables.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(
                f"{', '.join(str(part) for part, _ in parts.values())}: rows {lengths} or more; wanted equal numbers. "
                "Run the recipe again."
            )
        yield first, there
        first += next(iter(there.values())).num_rows


def _tables(part: Place, columns: Sequence[str] | None, num_rows: int) -> Iterator[pa.Table]:
    """Yield tables of exactly `num_rows` rows, the last one of fewer."""
    held: list[pa.RecordBatch] = []
    room = num_rows
    for batch in read_batches(part, columns, num_rows):  # as many are held anyway
        left = batch
        while left.num_rows:
            held.append(left.slice(0, room))
            left = left.slice(room)
            room -= held[-1].num_rows
            if not room:
                yield pa.Table.from_batches(held)
                held, room = [], num_rows
    if held:
        yield pa.Table.from_batches(held)

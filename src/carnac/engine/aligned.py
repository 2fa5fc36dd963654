"""Tables with the same rows in the same order, read side by side: documents, signals, masks of one unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from carnac.core.errors import InputError
from carnac.engine.ledger import read_ledger


def read_batches(part: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a part in bounded batches (one row group is at most what its writer held in memory).

    Raises InputError when the file is gone or damaged.
    """
    try:
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches(batch_size=256, columns=columns)
    except (OSError, pa.ArrowException) as error:
        kind = str(error).partition("\n")[0]
        raise InputError(f"{part}: cannot be read ({kind}). Move the file away and run its recipe again.") from None


def read_rows(part: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a part as dictionaries."""
    for batch in read_batches(part, columns):
        yield from batch.to_pylist()


def read_aligned(parts: Mapping[str, Path]) -> Iterator[dict[str, dict[str, Any]]]:
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

"""Parts read: whole or in bounded batches, from a disk or a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from carnac.core.errors import InputError
from carnac.core.places import Place, is_local, open_binary
from carnac.core.stores import store_errors

BATCH_ROWS = 256  # pages with all their texts


@contextmanager
def open_part(part: Place) -> Iterator[pq.ParquetFile]:
    """Open a part for reading. Raises InputError when the file is gone or damaged."""
    try:
        with store_errors(part):
            if is_local(part):
                with pq.ParquetFile(part) as file:
                    yield file
            else:
                # Each read asks for its own bytes, the columns of a row group together and ahead of their use.
                with open_binary(part, exact=True) as stream, pq.ParquetFile(stream, pre_buffer=True) as file:
                    yield file
    except MemoryError:
        raise  # Arrow's is one of its own errors too
    except (OSError, pa.ArrowException) as error:
        kind = str(error).partition("\n")[0]
        raise InputError(f"{part}: cannot be read ({kind}). Move the file away and run its recipe again.") from None


def read_table(part: Place, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of a part whole. Raises InputError when the file is gone or damaged."""
    with open_part(part) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)


def read_batches(
    part: Place, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a part in bounded batches (one row group is at most what its writer held in memory).

    Raises InputError when the file is gone or damaged.
    """
    with open_part(part) as file:
        names = None if columns is None else list(columns)
        # Group by group: what is fetched ahead of its use stays in memory as long as the reader.
        # Small batches, of texts, are read with Arrow's threads: without them a worker of shards held 35 MB more.
        # Large ones, of numbers, are decoded where they are used: all cores have workers of their own.
        threads = batch_rows <= BATCH_ROWS
        for group in range(file.num_row_groups):
            yield from file.iter_batches(batch_size=batch_rows, row_groups=[group], columns=names, use_threads=threads)


def read_rows(part: Place, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a part as dictionaries."""
    for batch in read_batches(part, columns):
        yield from batch.to_pylist()

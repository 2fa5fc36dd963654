"""Rows of a plan on disk, read by row groups: row 8,000,000 costs what row 0 costs."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from carnac.core.batch import Piece
from carnac.core.errors import InputError
from carnac.core.places import Place, is_local, open_binary
from carnac.core.stores import store_errors
from carnac.mix.plan import PLAN, pieces_of_rows
from carnac.mix.recent import Recent

CACHED_BYTES = 64 << 20  # some row groups of 4,096 rows


class PlanRows:
    """The packed rows of a plan (`mix.plan.PLAN`). Raises InputError when `part` is none or cannot be read."""

    def __init__(self, part: Place) -> None:
        self._part = part
        try:
            with store_errors(part):
                source = part if is_local(part) else open_binary(part, exact=True)
                self._file = pq.ParquetFile(source, pre_buffer=not is_local(part))
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error
        names = self._file.schema_arrow.names
        if names != PLAN.names:
            raise InputError(f"{part}: not a plan: columns {names}, wanted {PLAN.names}. Plan again.")
        metadata = self._file.metadata
        sizes = (metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
        self._ends = list(accumulate(sizes))
        self._groups = Recent(self._read, lambda table: int(table.nbytes), CACHED_BYTES)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._ends[-1] if self._ends else 0

    def pieces(self, start: int, stop: int) -> list[list[Piece]]:
        """Return the pieces of rows [start, stop)."""
        found: list[list[Piece]] = []
        while start < stop:
            group = bisect_right(self._ends, start)
            first = self._ends[group - 1] if group else 0
            end = min(stop, self._ends[group])
            found += pieces_of_rows(self._groups.get(group), start - first, end - first)
            start = end
        return found

    def _read(self, group: int) -> pa.Table:
        try:
            with store_errors(self._part):
                return self._file.read_row_group(group, columns=["pieces"], use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: BaseException) -> InputError:
        return InputError(f"{self._part}: the plan cannot be read ({error}). Remove it and plan again.")

"""Samples by shard and row, read from Parquet parts: the only place of this stage that touches disk."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from carnac.core.errors import InputError
from carnac.core.places import Place, is_local, open_binary
from carnac.core.schema import SAMPLES
from carnac.core.stores import store_errors
from carnac.sequence.layout import Sample, sample_from_row

# A row group of 64 samples with their images is some tens of MB at most.
CACHED_ROW_GROUPS = 8


class SampleReader:
    """Reads any sample of `shards` (unit name -> part). Parquet is read in row groups; the last few stay in memory."""

    def __init__(self, shards: Mapping[str, Place]) -> None:
        self._shards = dict(shards)
        self._files: dict[str, tuple[pq.ParquetFile, list[int]]] = {}
        self._group = lru_cache(maxsize=CACHED_ROW_GROUPS)(self._read_group)
        self._lock = threading.Lock()

    def sample(self, shard: str, row: int) -> Sample:
        """Return a sample. Raises InputError when the shard or the row is not there or cannot be read."""
        with self._lock:
            _, ends = self._open(shard)
            group = bisect_right(ends, row)
            if group == len(ends):
                raise InputError(f"{self._shards[shard]}: no row {row} among {ends[-1] if ends else 0}. Plan again.")
            table = self._group(shard, group)
        offset = row - (ends[group - 1] if group else 0)
        return sample_from_row(table.slice(offset, 1).to_pylist()[0])

    def _open(self, shard: str) -> tuple[pq.ParquetFile, list[int]]:
        if shard not in self._files:
            if shard not in self._shards:
                raise InputError(f"the plan names shard {shard!r}, which is not among the {len(self._shards)} given.")
            path = self._shards[shard]
            try:
                # It stays open for the run: a store's file is a stream of its own.
                with store_errors(path):
                    source = path if is_local(path) else open_binary(path, exact=True)
                    file = pq.ParquetFile(source, pre_buffer=not is_local(path))
            except (OSError, pa.ArrowException) as error:
                raise InputError(f"{path}: cannot be read as Parquet ({error}). Make the shards again.") from error
            missing = set(SAMPLES.names) - set(file.schema_arrow.names)
            if missing:
                raise InputError(f"{path}: not a shard, it lacks {', '.join(sorted(missing))}.")
            groups = (file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
            self._files[shard] = (file, list(accumulate(groups)))
        return self._files[shard]

    def _read_group(self, shard: str, group: int) -> pa.Table:
        try:
            with store_errors(self._shards[shard]):
                return self._files[shard][0].read_row_group(group, columns=SAMPLES.names)
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{self._shards[shard]}: row group {group} cannot be read ({error}). Make the shards again."
            ) from error

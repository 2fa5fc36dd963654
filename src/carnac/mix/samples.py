"""Samples by shard and row, read from Parquet parts by row groups."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from carnac.core.errors import InputError
from carnac.core.places import Place, is_local, open_binary
from carnac.core.schema import SAMPLES
from carnac.core.stores import store_errors
from carnac.mix.recent import Recent
from carnac.sequence.layout import Sample, sample_from_row

T = TypeVar("T")

OPEN_FILES = 64  # of 1,024 that a process may commonly have open
COLUMNS = [name for name in SAMPLES.names if name != "metadata"]
# A network disk that answers no more may answer again; what is wrong with the file itself has no number.
PAUSES_SECONDS = (0.5, 5.0, 30.0)


class SampleReader:
    """Reads any sample of `shards` (name -> part). The row groups used last stay in memory, up to `cached_bytes`."""

    def __init__(self, shards: Mapping[str, Place], cached_bytes: int) -> None:
        self._shards = dict(shards)
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._ends: dict[str, list[int]] = {}
        self._groups: Recent[tuple[str, int], pa.Table] = Recent(
            lambda key: self._read_group(*key), _size_of, cached_bytes
        )
        self._lock = threading.Lock()
        self.groups_read = 0

    def sample(self, shard: str, row: int) -> Sample:
        """Return a sample. Raises InputError when the shard or the row is not there or cannot be read."""
        with self._lock:
            ends = self._ends_of(shard)
            group = bisect_right(ends, row)
            if group == len(ends):
                raise InputError(f"{self._shards[shard]}: no row {row} among {ends[-1] if ends else 0}. Plan again.")
            table = self._groups.get((shard, group))
        offset = row - (ends[group - 1] if group else 0)
        return sample_from_row(table.slice(offset, 1).to_pylist()[0])

    def _ends_of(self, shard: str) -> list[int]:
        if shard not in self._ends:
            if shard not in self._shards:
                raise InputError(f"the plan names shard {shard!r}, which is not among the {len(self._shards)} given.")
            metadata = self._try(shard, "cannot be read as Parquet", lambda: self._open(shard).metadata)
            groups = (metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
            self._ends[shard] = list(accumulate(groups))
        return self._ends[shard]

    def _read_group(self, shard: str, group: int) -> pa.Table:
        def read() -> pa.Table:
            return self._open(shard).read_row_group(group, columns=COLUMNS, use_threads=False)

        self.groups_read += 1
        return self._try(shard, f"row group {group} cannot be read", read)

    def _open(self, shard: str) -> pq.ParquetFile:
        """Return the shard's file; the few opened last stay open (a store's file is a stream of its own)."""
        if shard not in self._files:
            path = self._shards[shard]
            source: Any = path if is_local(path) else open_binary(path, exact=True)
            file = pq.ParquetFile(source, pre_buffer=not is_local(path))
            missing = set(COLUMNS) - set(file.schema_arrow.names)
            if missing:
                raise InputError(f"{path}: not a shard, it lacks {', '.join(sorted(missing))}.")
            self._files[shard] = file
            while len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].close(force=True)
        self._files.move_to_end(shard)
        return self._files[shard]

    def _try(self, shard: str, what: str, read: Callable[[], T]) -> T:
        """Return what `read` returns, trying again where the disk or the store is at fault."""
        path = self._shards[shard]
        for pause in (*PAUSES_SECONDS, None):
            try:
                with store_errors(path):
                    return read()
            except (OSError, pa.ArrowException) as error:
                if pause is None or not _may_pass(error):
                    raise InputError(f"{path}: {what} ({error}). Make the shards again.") from error
                if shard in self._files:
                    self._files.pop(shard).close(force=True)
                time.sleep(pause)
        raise AssertionError


def _may_pass(error: BaseException) -> bool:
    lasting = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, lasting)


def _size_of(table: pa.Table) -> int:
    return int(table.nbytes)

"""Stored signals of some documents as flat arrays, from which signals are computed for all of them at once.

Blocks of all documents lie one after the other; those of document d are `starts[d]:starts[d + 1]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.document import KINDS

Array = npt.NDArray[Any]
IMAGE_KIND = KINDS.index("image")


@dataclass(frozen=True, slots=True)
class Frame:
    """The stored columns of d documents with b blocks in all.

    `columns` holds what was read of `signals/` and `image_signals/`, as Arrow columns by name. `keep_block` (bool[b])
    tells which blocks are kept now: those of a document that is dropped do not matter.
    """

    columns: Mapping[str, pa.ChunkedArray]
    starts: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int8]
    keep_block: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, *tables: pa.Table, keep_block: npt.NDArray[np.bool_] | None = None) -> Frame:
        """Return the frame of tables of the same rows, the later ones' columns in place of the earlier ones'.

        One of them has `block_kind`. `keep_block` is all blocks where it is not given.
        """
        columns = {name: table.column(name) for table in tables for name in table.column_names}
        kinds = _flat(columns["block_kind"]).to_numpy()
        keep = np.ones(len(kinds), np.bool_) if keep_block is None else keep_block
        return cls(columns, starts_of(columns["block_kind"]), kinds, keep)

    @property
    def num_documents(self) -> int:
        """Number of documents, d."""
        return len(self.starts) - 1

    @property
    def is_image(self) -> npt.NDArray[np.bool_]:
        """Whether each block is an image: bool[b]."""
        images: npt.NDArray[np.bool_] = self.kinds == IMAGE_KIND
        return images

    def with_kept(self, keep_block: npt.NDArray[np.bool_]) -> Frame:
        """Return the frame with other blocks kept."""
        return Frame(self.columns, self.starts, self.kinds, keep_block)

    def block(self, name: str) -> Array:
        """Return a column of blocks as numbers: float64[b], NaN where it is null."""
        return _numbers(_flat(self.columns[name]))

    def document(self, name: str) -> Array:
        """Return a column of documents as numbers: float64[d], NaN where it is null."""
        return _numbers(self.columns[name])

    def labels(self, name: str) -> pa.Array:
        """Return a column of words: one per block or document, null where there is none."""
        column = self.columns[name]
        return _flat(column) if pa.types.is_list(column.type) else column.combine_chunks()

    def flags(self, name: str) -> npt.NDArray[np.bool_]:
        """Return a column of truths: one per block or document, null as false."""
        values: npt.NDArray[np.bool_] = pc.fill_null(self.labels(name), False).to_numpy(zero_copy_only=False)
        return values.astype(np.bool_, copy=False)

    def total(self, name: str) -> Array:
        """Return the sum of a column of blocks over the kept ones of each document, null as 0: float64[d]."""
        values = pc.fill_null(_flat(self.columns[name]), 0).to_numpy(zero_copy_only=False)
        return self.sum(values)

    def sum(self, values: Array) -> Array:
        """Return the sums of values per block (any numbers, [b]) over the kept ones of each document: float64[d]."""
        wide = np.int64 if values.dtype.kind in "iub" else np.float64
        sums = np.zeros(len(values) + 1, wide)
        np.cumsum(np.where(self.keep_block, values, 0), dtype=wide, out=sums[1:])
        totals: Array = (sums[self.starts[1:]] - sums[self.starts[:-1]]).astype(np.float64)
        return totals

    def largest(self, values: Array) -> Array:
        """Return the largest value per block (float64[b]) of each document's kept blocks, NaN if none is known."""
        known = np.where(self.keep_block & ~np.isnan(values), values, -np.inf)
        padded = np.append(known, -np.inf)  # reduceat wants every start inside
        most = np.maximum.reduceat(padded, self.starts[:-1]) if self.num_documents else np.zeros(0)
        most = np.where(np.diff(self.starts) == 0, -np.inf, most)
        return np.where(np.isinf(most), np.nan, most)


def ratio(part: Array, whole: Array) -> Array:
    """Return part / whole, 0 where the whole is nothing."""
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole != 0)


def starts_of(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return where each list of a column begins in its flattened entries, and their number: int64[d + 1]."""
    starts = np.zeros(len(column) + 1, np.int64)
    np.cumsum(pc.list_value_length(column).to_numpy(), out=starts[1:])
    return starts


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks().flatten()


def _numbers(values: pa.Array | pa.ChunkedArray) -> Array:
    numbers: Array = values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy()
    return numbers.astype(np.float64, copy=False)

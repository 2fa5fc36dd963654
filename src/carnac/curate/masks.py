"""What is kept of documents after a pass, as arrays, how it is stored in `masks/<pass>/`, and the names of reasons.

A document that is dropped keeps nothing, whatever its `keep_block` says: those entries stay as the rules on blocks left
them, so that each block's own reason can still be read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.errors import InputError
from carnac.core.schema import MASKS
from carnac.curate.signals.frame import starts_of

METADATA_KEY = b"carnac.reasons"
SIGNALS_FAILED = "signals_failed"
NO_BLOCKS_LEFT = "no_blocks_left"
IMAGE_MISSING = "image_missing"
KEPT = -1  # in place of a reason's code


class GivesReasons(Protocol):
    """A pass: its name, and what it can say of what it drops."""

    @property
    def name(self) -> str:
        """Name of the pass."""

    def reasons(self) -> tuple[str, ...]:
        """Return the names of its reasons, in the order in which it tries them."""


@dataclass(frozen=True, slots=True)
class Reasons:
    """The names of all reasons of all passes so far; a code is an index. Later passes never change earlier codes."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, passes: Iterable[GivesReasons]) -> Reasons:
        """Return the reasons that `passes` can give, each once, in the order of the recipe."""
        return cls(tuple(dict.fromkeys(name for pass_ in passes for name in pass_.reasons())))

    @classmethod
    def from_table(cls, masks: pa.Table) -> Reasons:
        """Return the reasons stored with a part of masks."""
        stored = (masks.schema.metadata or {}).get(METADATA_KEY)
        if stored is None:
            raise InputError(f"a part of masks lacks the metadata {METADATA_KEY.decode()}: was it written by carnac?")
        return cls(tuple(json.loads(stored)))

    def code(self, name: str) -> int:
        """Return the code of `name`."""
        return self.names.index(name)

    def to_metadata(self) -> dict[bytes, bytes]:
        """Return the metadata of a part of masks."""
        return {METADATA_KEY: json.dumps(self.names).encode()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """What is kept of d documents with b blocks in all: `KEPT` or the code of a reason, by document and by block.

    `starts` (int64[d + 1]) tells where each document's blocks begin. `keep_block` is false exactly where
    `block_reason` is a code.
    """

    ids: pa.ChunkedArray
    starts: npt.NDArray[np.int64]
    reason: npt.NDArray[np.int16]
    block_reason: npt.NDArray[np.int16]

    @classmethod
    def keeping_all(cls, ids: pa.ChunkedArray, starts: npt.NDArray[np.int64]) -> Masks:
        """Return what is kept before the first pass."""
        reason, block_reason = np.full(len(starts) - 1, KEPT, np.int16), np.full(starts[-1], KEPT, np.int16)
        return cls(ids=ids, starts=starts, reason=reason, block_reason=block_reason)

    @classmethod
    def after(cls, last: pa.Table | None, ids: pa.ChunkedArray, starts: npt.NDArray[np.int64]) -> Masks:
        """Return what the last pass left of documents; all of them where there was none."""
        return cls.keeping_all(ids, starts) if last is None else cls.from_table(last)

    @classmethod
    def from_table(cls, table: pa.Table) -> Masks:
        """Return the rows of a part of `MASKS`; it needs `id`, `reason` and `block_reason`."""
        blocks = table.column("block_reason")
        return cls(
            ids=table.column("id"),
            starts=starts_of(blocks),
            reason=pc.fill_null(table.column("reason"), KEPT).to_numpy(),
            block_reason=pc.fill_null(blocks.combine_chunks().flatten(), KEPT).to_numpy(),
        )

    def to_table(self, reasons: Reasons) -> pa.Table:
        """Return rows of `MASKS` with the names of the reasons in the metadata."""
        starts = pa.array(self.starts, pa.int32())
        keep, keep_block = self.keep, self.keep_block
        lists = (pa.array(keep_block), pa.array(self.block_reason, mask=keep_block))
        columns = [
            self.ids,
            pa.array(keep),
            pa.array(self.reason, mask=keep),
            *(pa.ListArray.from_arrays(starts, values) for values in lists),
        ]
        return pa.table(columns, schema=MASKS.with_metadata(reasons.to_metadata()))

    @property
    def keep(self) -> npt.NDArray[np.bool_]:
        """Whether each document is kept: bool[d]."""
        kept: npt.NDArray[np.bool_] = self.reason == KEPT
        return kept

    @property
    def keep_block(self) -> npt.NDArray[np.bool_]:
        """Whether no rule has dropped each block itself: bool[b]."""
        kept: npt.NDArray[np.bool_] = self.block_reason == KEPT
        return kept

    @property
    def is_alive(self) -> npt.NDArray[np.bool_]:
        """Whether each block is kept and its document too: bool[b]."""
        return self.keep_block & np.repeat(self.keep, np.diff(self.starts))

    def drop_documents(self, which: npt.NDArray[np.bool_], code: int) -> Masks:
        """Return the masks with documents (bool[d]) dropped too; what was dropped before keeps its reason."""
        return replace(self, reason=np.where(self.keep & which, np.int16(code), self.reason))

    def drop_blocks(self, which: npt.NDArray[np.bool_], code: int) -> Masks:
        """Return the masks with blocks (bool[b]) dropped too; those of dropped documents stay as they were."""
        return replace(self, block_reason=np.where(self.is_alive & which, np.int16(code), self.block_reason))

    def drop_coded_documents(self, codes: npt.NDArray[np.int16]) -> Masks:
        """Return the masks with every document dropped for which `codes` (int16[d]) is no `KEPT`."""
        return replace(self, reason=np.where(self.keep & (codes != KEPT), codes, self.reason))

    def drop_coded_blocks(self, codes: npt.NDArray[np.int16]) -> Masks:
        """Return the masks with every block dropped for which `codes` (int16[b]) is no `KEPT`."""
        return replace(self, block_reason=np.where(self.is_alive & (codes != KEPT), codes, self.block_reason))

    def drop_emptied(self, code: int) -> Masks:
        """Return the masks without the documents of which no block is kept."""
        return self.drop_documents(self.num_kept_blocks == 0, code)

    @property
    def num_kept_blocks(self) -> npt.NDArray[np.int64]:
        """How many blocks of each document no rule has dropped: int64[d]."""
        kept = np.zeros(len(self.block_reason) + 1, np.int64)
        np.cumsum(self.keep_block, out=kept[1:])
        number: npt.NDArray[np.int64] = kept[self.starts[1:]] - kept[self.starts[:-1]]
        return number


def check_same_rows(first: pa.Table, *others: pa.Table) -> None:
    """Raise InputError unless all tables hold the same documents in the same order."""
    ids = first.column("id")
    for other in others:
        if other.column("id").equals(ids):
            continue
        want, got = ids.to_pylist(), other.column("id").to_pylist()
        row = next((n for n, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got)))
        raise InputError(
            f"two parts of one unit hold different documents from row {row} on ({len(want)} and {len(got)} rows): "
            "one of the folders was made from other documents; remove it and run its stage again"
        )


def names_of(reasons: Sequence[str | None]) -> tuple[str, ...]:
    """Return names, each once, without gaps."""
    return tuple(dict.fromkeys(name for name in reasons if name is not None))

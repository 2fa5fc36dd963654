"""Judge documents by what a search found: repeats, entries of lists, benchmark items.

A search writes rows that name a document of the part (`row`), or a block of it (`block`), and a reason. What is hit is
dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carnac.curate.masks import KEPT, NO_BLOCKS_LEFT, SIGNALS_FAILED, Masks, Reasons

WHOLE = -1  # in place of a block's number: the document itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """What a search found among some documents: `row` counts them from 0, `block` is `WHOLE` or a block's number.

    All three are as long; `reason` holds names. A document or block that is hit twice goes by the first.
    """

    row: npt.NDArray[np.int64]
    block: npt.NDArray[np.int64]
    reason: Sequence[str]

    def between(self, first: int, num_rows: int) -> Hits:
        """Return the hits of `num_rows` documents from `first` on, counted from there; `row` must ascend."""
        start, stop = np.searchsorted(self.row, [first, first + num_rows]).tolist()
        return Hits(row=self.row[start:stop] - first, block=self.block[start:stop], reason=self.reason[start:stop])


def judge_hits(last: Masks, failed: npt.NDArray[np.bool_], hits: Hits, reasons: Reasons) -> Masks:
    """Return what is kept after a pass: what is hit goes, and what could not be measured (`failed`, bool[d]).

    What could not be measured repeats nothing, and so would be kept with every copy of it.
    """
    masks = last.drop_documents(failed, reasons.code(SIGNALS_FAILED))
    codes = np.array([reasons.code(name) for name in hits.reason], np.int16)
    whole = hits.block == WHOLE
    places = masks.starts[hits.row] + hits.block
    blocks = _first(places[~whole], codes[~whole], len(masks.block_reason))
    documents = _first(hits.row[whole], codes[whole], len(masks.reason))
    # Blocks before documents, as rules do it.
    masks = masks.drop_coded_blocks(blocks).drop_coded_documents(documents)
    return masks.drop_emptied(reasons.code(NO_BLOCKS_LEFT))


def _first(places: npt.NDArray[np.int64], codes: npt.NDArray[np.int16], number: int) -> npt.NDArray[np.int16]:
    """Return for each of `number` places the first of its codes, `KEPT` where it has none."""
    first = np.full(number, KEPT, np.int16)
    first[places[::-1]] = codes[::-1]  # of several that are put to one place, the last one stays
    return first

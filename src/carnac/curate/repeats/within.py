"""Find images that a document shows again: no other document is looked at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.core.schema import REPEATS
from carnac.curate.masks import Masks
from carnac.curate.repeats.keys import Keys, keys_of, locate
from carnac.curate.repeats.search import written
from carnac.curate.repeats.settings import repeat_reason
from carnac.curate.signals.frame import Frame

KIND = "image_in_document"


def find_in_documents(frame: Frame, masks: Masks, unit: str, first_row: int) -> pa.Table:
    """Return rows of `REPEATS`: each kept image block of which the document showed the URL, or the bytes, before.

    `frame` and `masks` hold the same rows of the part `unit`, those from `first_row` on. Bytes are compared where the
    frame has `block_sha256`. Images of dropped blocks were not shown.
    """
    keys = np.zeros(len(frame.kinds), np.uint64)
    is_again = np.zeros(len(frame.kinds), np.bool_)
    for column in ("block_sha256", "block_image_digest"):  # the URL last: where both are shown again, it is the key
        if column in frame.columns:
            digests, known = keys_of(frame.labels(column))
            again = _shown_again(frame, digests, np.flatnonzero(known & masks.is_alive))
            keys[again], is_again[again] = digests[again], True
    places = np.flatnonzero(is_again)
    row, block = locate(frame, places)
    ids = frame.columns["id"].take(pa.array(row)).combine_chunks()
    words = [pa.array([word] * len(places), pa.string()) for word in (repeat_reason(KIND), unit, KIND)]
    columns = [ids, pa.array(row + first_row), pa.array(block, pa.int32()), *words, written(keys[places]), ids]
    return pa.table(columns, schema=REPEATS)


def _shown_again(frame: Frame, digests: Keys, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return those of `places` (ascending) whose digest an earlier one of the same document has."""
    row, _ = locate(frame, places)
    wanted = digests[places]
    order = np.lexsort((places, wanted, row))
    row, wanted = row[order], wanted[order]
    again = (row[1:] == row[:-1]) & (wanted[1:] == wanted[:-1])
    found: npt.NDArray[np.int64] = places[order][1:][again]
    return found

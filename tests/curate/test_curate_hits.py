"""What a search found is dropped: documents and blocks, each by the first reason that names it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from carnac.curate.hits import WHOLE, Hits, judge_hits
from carnac.curate.masks import KEPT, Masks, Reasons

REASONS = Reasons(("signals_failed", "repeat.url", "repeat.image_url", "no_blocks_left"))
NOBODY = np.zeros(4, np.bool_)


def masks() -> Masks:
    ids = pa.chunked_array([["a", "b", "c", "d"]], pa.string())
    return Masks.keeping_all(ids, np.array([0, 2, 3, 5, 5], np.int64))


def hits(*found: tuple[int, int, str]) -> Hits:
    rows, blocks, reasons = zip(*found, strict=True)
    return Hits(row=np.array(rows), block=np.array(blocks), reason=reasons)


def test_a_hit_drops_a_document_or_one_block_of_it() -> None:
    found = hits((0, 1, "repeat.image_url"), (2, WHOLE, "repeat.url"))
    judged = judge_hits(masks(), NOBODY, found, REASONS)
    assert judged.reason.tolist() == [KEPT, KEPT, 1, 3]  # the last one has no blocks
    assert judged.block_reason.tolist() == [KEPT, 2, KEPT, KEPT, KEPT]


def test_a_document_that_loses_its_last_block_goes() -> None:
    judged = judge_hits(masks(), NOBODY, hits((1, 0, "repeat.image_url")), REASONS)
    assert judged.reason.tolist() == [KEPT, 3, KEPT, 3]


def test_the_first_of_two_hits_gives_the_reason() -> None:
    twice = hits((0, 0, "repeat.image_url"), (0, WHOLE, "repeat.url"), (0, WHOLE, "repeat.image_url"))
    judged = judge_hits(masks(), NOBODY, twice, REASONS)
    assert judged.reason[0] == 1
    assert judged.block_reason[0] == 2


def test_what_could_not_be_measured_goes_though_nothing_hit_it() -> None:
    none = Hits(row=np.zeros(0, np.int64), block=np.zeros(0, np.int64), reason=())
    assert judge_hits(masks(), ~NOBODY, none, REASONS).reason.tolist() == [0, 0, 0, 0]
    assert judge_hits(masks(), NOBODY, none, REASONS).reason.tolist() == [KEPT, KEPT, KEPT, 3]


def test_hits_of_some_rows_count_from_the_first_of_them() -> None:
    found = hits((0, 1, "a"), (2, WHOLE, "b"), (2, 1, "c"), (3, 0, "d"))
    part = found.between(2, 1)
    assert (part.row.tolist(), part.block.tolist(), list(part.reason)) == ([0, 0], [WHOLE, 1], ["b", "c"])
    assert found.between(4, 10).row.tolist() == []

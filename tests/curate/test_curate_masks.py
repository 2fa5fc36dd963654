"""What is kept, as arrays: nothing comes back, first reasons stay, and what is written is what is read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carnac.core.errors import InputError
from carnac.core.schema import MASKS
from carnac.curate.masks import KEPT, Masks, Reasons, check_same_rows

REASONS = Reasons(("failed", "small", "large", "emptied"))
LENGTHS = st.lists(st.integers(0, 4), min_size=1, max_size=6)
Drops = list[tuple[str, int, list[bool]]]  # "documents", "blocks", "emptied": the reason's code, which


def masks_of(lengths: list[int]) -> Masks:
    ids = pa.chunked_array([[str(number) for number in range(len(lengths))]], pa.string())
    return Masks.keeping_all(ids, np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))


@st.composite
def crawls(draw: st.DrawFn) -> tuple[list[int], Drops]:
    lengths = draw(LENGTHS)
    flags = {"documents": len(lengths), "blocks": sum(lengths), "emptied": 0}
    kinds = st.sampled_from(sorted(flags)).flatmap(
        lambda kind: st.tuples(
            st.just(kind),
            st.integers(0, 3),
            st.lists(st.booleans(), min_size=flags[kind], max_size=flags[kind]),
        )
    )
    return lengths, draw(st.lists(kinds, max_size=5))


def dropped(masks: Masks, kind: str, code: int, which: list[bool]) -> Masks:
    if kind == "documents":
        return masks.drop_documents(np.array(which, np.bool_), code)
    return masks.drop_emptied(code) if kind == "emptied" else masks.drop_blocks(np.array(which, np.bool_), code)


@given(crawls())
def test_what_is_dropped_stays_dropped_with_its_first_reason(crawl: tuple[list[int], Drops]) -> None:
    lengths, drops = crawl
    last = masks_of(lengths)
    for kind, code, which in drops:
        now = dropped(last, kind, code, which)
        assert (now.reason[~last.keep] == last.reason[~last.keep]).all()
        assert (now.block_reason[~last.is_alive] == last.block_reason[~last.is_alive]).all()
        newly = (
            now.reason[last.keep & ~now.keep].tolist() + now.block_reason[last.keep_block & ~now.keep_block].tolist()
        )
        assert set(newly) <= {code}
        if kind == "documents":
            assert (now.keep == last.keep & ~np.array(which, np.bool_)).all()
        if kind == "blocks":
            assert (now.is_alive == last.is_alive & ~np.array(which, np.bool_)).all()
        if kind == "emptied":
            left = [kept.any() for kept in np.split(now.keep_block, now.starts[1:-1])]
            assert (now.keep == last.keep & np.array(left, np.bool_)).all()
        last = now


@given(crawls())
def test_what_is_written_is_read_again(crawl: tuple[list[int], Drops]) -> None:
    lengths, drops = crawl
    masks = masks_of(lengths)
    for drop in drops:
        masks = dropped(masks, *drop)
    table = masks.to_table(REASONS)
    assert table.schema.equals(MASKS)
    assert Reasons.from_table(table) == REASONS
    for row, keep_block, block_reason in zip(
        table["keep"].to_pylist(), table["keep_block"].to_pylist(), table["block_reason"].to_pylist(), strict=True
    ):
        assert row in (True, False)
        assert keep_block == [code is None for code in block_reason]
    again = Masks.from_table(table.select(["id", "reason", "block_reason"]))
    assert again.ids.to_pylist() == masks.ids.to_pylist()
    for name in ("starts", "reason", "block_reason"):
        assert getattr(again, name).tolist() == getattr(masks, name).tolist()


def test_a_slice_of_a_table_holds_its_own_rows() -> None:
    masks = masks_of([2, 1, 3]).drop_blocks(np.array([0, 1, 0, 0, 0, 1], np.bool_), 1)
    rest = Masks.from_table(masks.to_table(REASONS).slice(1))
    assert rest.starts.tolist() == [0, 1, 4]
    assert rest.block_reason.tolist() == [KEPT, KEPT, KEPT, 1]


def test_blocks_dropped_by_code_are_those_dropped_one_reason_after_the_other() -> None:
    start = masks_of([2, 3]).drop_documents(np.array([True, False]), 0)
    codes = np.array([1, KEPT, 2, KEPT, 1], np.int16)
    one_by_one = start.drop_blocks(codes == 1, 1).drop_blocks(codes == 2, 2)
    assert start.drop_coded_blocks(codes).block_reason.tolist() == one_by_one.block_reason.tolist()
    assert one_by_one.block_reason.tolist() == [KEPT, KEPT, 2, KEPT, 1]  # of a dropped document nothing is dropped


def test_parts_of_other_documents_are_refused() -> None:
    first = pa.table({"id": ["a", "b"]})
    check_same_rows(first, pa.table({"id": pa.chunked_array([["a"], ["b"]])}))
    with pytest.raises(InputError, match=r"from row 1 on \(2 and 1 rows\)"):
        check_same_rows(first, first.slice(0, 1))
    with pytest.raises(InputError, match="from row 0 on"):
        check_same_rows(first, first.take([1, 0]))


def test_a_part_without_reasons_is_refused() -> None:
    with pytest.raises(InputError, match=r"lacks the metadata carnac\.reasons"):
        Reasons.from_table(MASKS.empty_table())

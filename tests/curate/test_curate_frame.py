"""Stored columns as flat arrays: sums and largest values over what is kept, whatever is null or empty."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from carnac.core.document import KINDS
from carnac.curate.signals.frame import Frame, ratio, starts_of

Blocks = list[tuple[int | None, bool, bool]]  # a value, whether the block is kept, whether it is an image
DOCUMENTS = st.lists(
    st.lists(st.tuples(st.none() | st.integers(-5, 9), st.booleans(), st.booleans()), max_size=5), max_size=6
)


def frame(documents: list[Blocks]) -> Frame:
    kinds = [[KINDS.index("image" if is_image else "paragraph") for *_, is_image in blocks] for blocks in documents]
    table = pa.table(
        {
            "block_kind": pa.array(kinds, pa.list_(pa.int8())),
            "block_value": pa.array([[value for value, *_ in blocks] for blocks in documents], pa.list_(pa.int32())),
        }
    )
    keep = np.array([kept for blocks in documents for _, kept, _ in blocks], np.bool_)
    return Frame.of(table, keep_block=keep)


@given(DOCUMENTS)
def test_sums_and_largest_values_are_those_of_the_kept_blocks(documents: list[Blocks]) -> None:
    made = frame(documents)
    kept = [[value for value, is_kept, _ in blocks if is_kept] for blocks in documents]
    assert made.num_documents == len(documents)
    assert made.total("block_value").tolist() == [sum(value or 0 for value in values) for values in kept]
    images = [sum(is_image and is_kept for _, is_kept, is_image in blocks) for blocks in documents]
    assert made.sum(made.is_image).tolist() == images
    known = [[value for value in values if value is not None] for values in kept]
    largest = made.largest(made.block("block_value"))
    assert [None if np.isnan(value) else value for value in largest] == [max(values, default=None) for values in known]


@given(DOCUMENTS)
def test_what_is_read_in_pieces_is_what_is_read_at_once(documents: list[Blocks]) -> None:
    """Arrow hands slices and chunks on: a column that begins in the middle of its buffer is read from there."""
    whole = frame(documents)
    pieces = [frame(documents[number : number + 1]) for number in range(len(documents))]
    columns = {
        name: pa.chunked_array([chunk for piece in pieces for chunk in piece.columns[name].chunks], column.type)
        for name, column in whole.columns.items()
    }
    chunked = Frame.of(pa.table(columns), keep_block=whole.keep_block)
    assert chunked.starts.tolist() == whole.starts.tolist()
    assert chunked.total("block_value").tolist() == whole.total("block_value").tolist()
    rest = Frame.of(pa.table(dict(whole.columns)).slice(1))
    assert rest.sum(rest.is_image).tolist() == [sum(image for *_, image in blocks) for blocks in documents[1:]]


def test_null_is_not_known_as_a_number_and_not_true_as_a_flag() -> None:
    column = pa.table(
        {
            "block_kind": pa.array([[0, 7], [0]], pa.list_(pa.int8())),
            "block_width": pa.array([[None, 30], [None]], pa.list_(pa.int32())),
            "block_has_image": pa.array([[None, True], [None]], pa.list_(pa.bool_())),
            "score": pa.array([None, 0.5]),
        }
    )
    made = Frame.of(column)
    assert np.isnan(made.block("block_width")).tolist() == [True, False, True]
    assert made.flags("block_has_image").tolist() == [False, True, False]
    assert np.isnan(made.document("score")).tolist() == [True, False]


def test_a_later_table_replaces_the_columns_of_an_earlier_one() -> None:
    first = pa.table({"block_kind": pa.array([[0]], pa.list_(pa.int8())), "score": [0.5]})
    assert Frame.of(first, pa.table({"score": [0.25]})).document("score").tolist() == [0.25]


def test_a_ratio_of_nothing_is_0() -> None:
    assert ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0])).tolist() == [0.5, 0.0]


def test_starts_count_the_entries_of_lists_also_of_empty_ones() -> None:
    assert starts_of(pa.chunked_array([[[1, 2], []], [[3]]])).tolist() == [0, 2, 2, 3]

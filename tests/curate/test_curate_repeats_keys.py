"""Keys: which documents and blocks compete, and which of them are equal."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carnac.core.document import KINDS
from carnac.curate.masks import Masks
from carnac.curate.repeats.keys import (
    BLOCK_KEYS,
    COLUMNS_OF,
    COLUMNS_OF_KEEP,
    DOCUMENT_KEYS,
    block_keys,
    document_keys,
    keys_of,
)
from carnac.curate.repeats.settings import Keep
from carnac.curate.repeats.within import find_in_documents
from carnac.curate.signals.frame import Frame

TEXT, IMAGE = KINDS.index("paragraph"), KINDS.index("image")
TYPES = {
    "block_image_digest": pa.list_(pa.uint64()),
    "block_text_digest": pa.list_(pa.uint64()),
    "block_sha256": pa.list_(pa.string()),
    "block_num_words": pa.list_(pa.int32()),
    "url_digest": pa.uint64(),
    "text_digest": pa.uint64(),
}


def frame_of(kinds: Sequence[Sequence[int]], **columns: Sequence[Any]) -> Frame:
    table = {name: pa.array(values, TYPES.get(name, pa.string())) for name, values in columns.items()}
    ids = [f"d{row}" for row in range(len(kinds))]
    return Frame.of(pa.table({"id": ids, "block_kind": pa.array(kinds, pa.list_(pa.int8())), **table}))


def kept(frame: Frame, documents: Sequence[int] = (), blocks: Sequence[int] = ()) -> tuple[Frame, Masks]:
    """Return the frame and masks without some documents, and without some entries of the flat blocks."""
    masks = Masks.keeping_all(frame.columns["id"], frame.starts)
    gone, dropped = np.zeros(frame.num_documents, np.bool_), np.zeros(len(frame.kinds), np.bool_)
    gone[list(documents)], dropped[list(blocks)] = True, True
    masks = masks.drop_blocks(dropped, 0).drop_documents(gone, 0)
    return frame.with_kept(masks.is_alive), masks


def keys_by_row(table: pa.Table) -> dict[int, int]:
    return dict(zip(table["row"].to_pylist(), table["key"].to_pylist(), strict=True))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_documents_compete_that_are_kept_and_have_a_key() -> None:
    frame, masks = kept(frame_of([[TEXT]] * 4, url_digest=[5, 5, None, 6]), documents=[3])
    table = document_keys(frame, masks, "url", "first", 100)
    wanted = pa.schema([field for field in DOCUMENT_KEYS if field.name != "bucket"])
    assert table.cast(wanted).to_pylist() == [
        {"key": 5, "id": "d0", "row": 100, "preference": 0},
        {"key": 5, "id": "d1", "row": 101, "preference": 0},
    ]


@given(st.lists(st.none() | st.text(max_size=3)), st.integers(0, 3))
def test_a_digest_in_words_is_the_number_of_its_first_digits(texts: list[str | None], start: int) -> None:
    digests = pa.array([None if text is None else sha256(text) for text in texts], pa.string()).slice(start)
    keys, known = keys_of(digests)
    assert known.tolist() == [text is not None for text in texts[start:]]
    assert keys[known].tolist() == [int(sha256(text)[:16], 16) for text in texts[start:] if text is not None]


def test_numbers_are_keys_as_they_are() -> None:
    keys, known = keys_of(pa.chunked_array([pa.array([2**64 - 1, None], pa.uint64()), pa.array([0], pa.uint64())]))
    assert known.tolist() == [True, False, True]
    assert keys[known].tolist() == [2**64 - 1, 0]
    with pytest.raises(AssertionError, match="fewer than 16"):
        keys_of(pa.array(["abc"]))


def test_a_set_of_images_is_that_of_its_kept_blocks_in_any_order_each_once() -> None:
    images: list[list[int | None]] = [[1, 2], [2, None, 1, 2], [1, 2, 3], [], [None], [1], [7]]
    frame = frame_of([[TEXT if each is None else IMAGE for each in row] for row in images], block_image_digest=images)
    keys = keys_by_row(document_keys(*kept(frame, blocks=[8]), "image_set", "first", 0))  # the 3 of document 2
    assert sorted(keys) == [0, 1, 2, 5, 6]
    assert keys[0] == keys[1] == keys[2]
    assert len(set(keys.values())) == 3
    assert sorted(keys_by_row(document_keys(*kept(frame, documents=[6]), "image_set", "first", 0))) == [0, 1, 2, 5]


def test_sums_and_repetitions_of_digests_are_no_equal_sets() -> None:
    images = [[1, 4], [2, 3], [5], [0], [0, 5], [1, 1, 4], [2**64 - 1, 6]]
    frame = frame_of([[IMAGE] * len(row) for row in images], block_image_digest=images)
    keys = keys_by_row(document_keys(*kept(frame), "image_set", "first", 0))
    assert len(set(keys.values())) == 6
    assert keys[0] == keys[5]


@pytest.mark.parametrize(
    ("url", "equal"),
    [
        ("http://a.example/", "https://A.Example:8443/x?y#z"),
        ("http://a.example/", "http://user:word@a.example./"),
        ("http://b\xfccher.example/", "http://xn--bcher-kva.example"),
        ("http://[::1]:80/", "http://[::1]/x"),
    ],
)
def test_a_paragraph_is_that_of_its_host(url: str, equal: str) -> None:
    urls = [url, equal, "http://sub.a.example/", "http://c.example/?http://a.example/"]
    frame = frame_of([[TEXT]] * 4, block_text_digest=[[9]] * 4, url=urls)
    keys = keys_by_row(block_keys(*kept(frame), "paragraph", 0))
    assert keys[0] == keys[1]
    assert len(set(keys.values())) == 3


def test_paragraphs_of_no_host_are_not_counted_nor_are_images() -> None:
    urls: list[str | None] = ["no address", "file:///a", None, "http://a.example/"]
    frame = frame_of([[TEXT, IMAGE]] * 4, block_text_digest=[[9, None]] * 4, url=urls)
    (row,) = block_keys(*kept(frame), "paragraph", 40).to_pylist()
    assert (row["id"], row["row"], row["block"]) == ("d3", 43, 0)


def test_blocks_count_that_are_kept_of_documents_that_are() -> None:
    kinds = [[IMAGE, TEXT, IMAGE], [], [IMAGE], [IMAGE]]
    frame = frame_of(
        kinds,
        block_image_digest=[[5, None, 6], [], [5], [5]],
        block_sha256=[[None, None, sha256("x")], [], [sha256("x")], [None]],
    )
    wanted = pa.schema([field for field in BLOCK_KEYS if field.name != "bucket"])
    table = block_keys(*kept(frame, documents=[3], blocks=[0]), "image_url", 10).cast(wanted)
    assert [tuple(row.values()) for row in table.to_pylist()] == [(6, "d0", 10, 2), (5, "d2", 12, 0)]
    by_content = block_keys(*kept(frame), "image_sha256", 0)
    assert by_content["key"].to_pylist() == [int(sha256("x")[:16], 16)] * 2
    assert list(zip(by_content["row"].to_pylist(), by_content["block"].to_pylist(), strict=True)) == [(0, 2), (2, 0)]


@pytest.mark.parametrize(
    ("keep", "best_first"),
    [("latest", [3, 2, 1, 0, 4]), ("longest", [4, 0, 1, 3, 2]), ("first", [])],
)
def test_the_preferred_document_has_the_smallest_number(keep: Keep, best_first: list[int]) -> None:
    times = [
        "1999-12-31T23:59:59Z",
        "2000-01-01T00:00:00Z",
        "2000-01-01T00:00:00.25Z",
        "2000-01-01T02:00:00+01:00",
        None,
    ]
    words: list[list[int | None]] = [[3], [2, None], [1, 9], [1, 1, 0], [4]]
    kinds = [[TEXT] * len(row) for row in words]
    frame = frame_of(kinds, url_digest=[1] * 5, fetched_at=times, block_num_words=words)
    masked = kept(frame, blocks=[4, 6])  # the 9 of document 2, and a 1 of document 3
    preferences = document_keys(*masked, "url", keep, 0)["preference"].to_numpy()
    if keep == "first":
        assert not preferences.any()
    else:
        ranks = preferences[best_first]
        assert (np.diff(ranks) >= 0).all()
        assert len(set(ranks.tolist())) == (5 if keep == "latest" else 4)
    assert preferences.min() >= 0


def test_times_that_cannot_be_read_are_those_of_no_time() -> None:
    times = [None, "yesterday", "2023-13-45T00:00:00Z", "", "2023-01-01T00:00:00Z", "1900-01-01T00:00:00Z"]
    frame = frame_of([[TEXT]] * 6, url_digest=[1] * 6, fetched_at=times)
    preferences = document_keys(*kept(frame), "url", "latest", 0)["preference"].to_pylist()
    assert len({preferences[row] for row in (0, 1, 2, 3, 5)}) == 1
    assert preferences[4] < preferences[0]


def test_every_kind_and_every_way_to_keep_says_what_it_reads() -> None:
    assert set(COLUMNS_OF) == {
        *("url", "text", "image_set", "paragraph", "image_url", "image_sha256", "image_in_document")
    }
    assert set(COLUMNS_OF_KEEP) == {"first", "latest", "longest"}


def again(frame: Frame, masks: Masks) -> list[tuple[int, int]]:
    table = find_in_documents(frame, masks, "a", 10)
    assert set(table["root"].to_pylist()) == set(table["id"].to_pylist())
    assert [f"d{row - 10}" for row in table["row"].to_pylist()] == table["id"].to_pylist()
    return list(zip(table["row"].to_pylist(), table["block"].to_pylist(), strict=True))


WITHIN: Mapping[str, Sequence[Any]] = {
    "block_image_digest": [[1, None, 2, 1, 3], [1, 1], []],
    "block_sha256": [[sha256("x"), None, sha256("y"), sha256("z"), sha256("y")], [None, None], []],
}
KINDS_WITHIN = [[IMAGE, TEXT, IMAGE, IMAGE, IMAGE], [IMAGE, IMAGE], []]


def test_an_image_is_shown_again_by_its_url_or_its_bytes_and_the_first_stays() -> None:
    frame = frame_of(KINDS_WITHIN, **WITHIN)
    assert again(*kept(frame)) == [(10, 3), (10, 4), (11, 1)]
    urls_only = frame_of(KINDS_WITHIN, block_image_digest=WITHIN["block_image_digest"])
    assert again(*kept(urls_only)) == [(10, 3), (11, 1)]


def test_an_image_that_was_dropped_was_not_shown() -> None:
    frame = frame_of(KINDS_WITHIN, **WITHIN)
    assert again(*kept(frame, blocks=[0])) == [(10, 4), (11, 1)]
    assert again(*kept(frame, documents=[0])) == [(11, 1)]
    assert again(*kept(frame, documents=[0, 1, 2])) == []

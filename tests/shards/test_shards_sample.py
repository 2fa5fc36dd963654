from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.core.schema import SAMPLES
from carnac.shards.sample import SEPARATOR, sample_of
from carnac.shards.settings import SplitSettings
from carnac.shards.split import split_of

Block = tuple[str | None, str | None, bool]  # text, image, kept
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=5)
URLS = st.sampled_from(["http://a/1.png", "http://a/2.png", "http://a/gone.png"])
BLOCKS = st.lists(st.tuples(TEXTS, st.none(), st.booleans()) | st.tuples(st.none(), URLS, st.booleans()), max_size=9)


def _document(blocks: list[Block]) -> dict[str, Any]:
    return {
        "id": "0123",
        "url": "http://a/\u00e9",
        "title": "T",
        "language": "en",
        "language_score": 0.5,
        "fetched_at": "2024-01-01T00:00:00Z",
        "warc_file": "w.warc.gz",
        "warc_offset": 7,
        "texts": [text for text, _, _ in blocks],
        "images": [image for _, image, _ in blocks],
    }


def _image_bytes(url: str) -> tuple[bytes, str] | None:
    return None if "gone" in url else (url.encode(), url.rpartition("/")[2])


def _of_block(document: dict[str, Any]) -> Callable[[int], tuple[bytes, str] | None]:
    return lambda block: _image_bytes(document["images"][block])


def _sample(blocks: list[Block]) -> dict[str, Any] | None:
    document = _document(blocks)
    return sample_of(document, [keep for _, _, keep in blocks], _of_block(document), "web")


@settings(deadline=None)
@given(BLOCKS)
def test_what_is_kept_stays_in_order_and_adjacent_texts_are_merged(blocks: list[Block]) -> None:
    kept = [
        (text, image)
        for text, image, keep in blocks
        if keep and (text is not None or _image_bytes(str(image)) is not None)
    ]
    sample = _sample(blocks)
    if sample is None:
        assert kept == []
        return
    urls = json.loads(sample["metadata"])["image_urls"]
    found: list[tuple[str | None, str | None]] = []
    for text, image, url, role in zip(sample["texts"], sample["images"], urls, sample["roles"], strict=True):
        assert (text is None) != (image is None)
        assert (image is None) == (url is None)
        assert role is None
        if text is None:
            assert (image["bytes"], image["path"]) == _image_bytes(url)
            found.append((None, url))
        else:
            found += [(piece, None) for piece in text.split(SEPARATOR)]
    assert found == kept
    texts = sample["texts"]
    assert not any(one is not None and other is not None for one, other in pairwise(texts))
    assert pa.Table.from_pylist([sample], SAMPLES).to_pylist() == [sample]


def test_an_image_without_bytes_leaves_no_trace() -> None:
    sample = _sample([("one", None, True), (None, "http://a/gone.png", True), ("two", None, True)])
    assert sample is not None
    assert sample["texts"] == ["one\n\ntwo"]
    assert sample["images"] == [None]


@pytest.mark.parametrize("blocks", [[], [("one", None, False)], [(None, "http://a/gone.png", True)]])
def test_a_document_of_which_nothing_is_left_is_no_sample(blocks: list[Block]) -> None:
    assert _sample(blocks) is None


def test_metadata_tells_where_a_sample_is_from() -> None:
    sample = _sample([("one", None, True), (None, "http://a/1.png", True)])
    assert sample is not None
    assert (sample["id"], sample["source"]) == ("0123", "web")
    assert json.loads(sample["metadata"]) == {
        "url": "http://a/\u00e9",
        "title": "T",
        "language": "en",
        "fetched_at": "2024-01-01T00:00:00Z",
        "warc_file": "w.warc.gz",
        "warc_offset": 7,
        "image_urls": [None, "http://a/1.png"],
    }


def test_a_mask_of_another_document_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="shorter"):
        sample_of(_document([("one", None, True), ("two", None, True)]), [True], lambda _: None, "web")


def test_the_held_out_share_is_what_was_asked_for() -> None:
    roots = [f"{number:032x}" for number in range(4000)]
    held = sum(split_of(root, 0.05, 0) == "heldout" for root in roots)
    # 200 expected with a standard deviation of 14.
    assert abs(held - 200) < 6 * 14
    assert all(split_of(root, 0.0, 0) == "train" for root in roots)


@settings(deadline=None)
@given(st.text(), st.floats(0, 0.999), st.floats(0, 0.999), st.integers(0, 9))
def test_a_larger_share_only_adds_to_the_held_out(root: str, one: float, other: float, seed: int) -> None:
    smaller, larger = sorted((one, other))
    assert split_of(root, smaller, seed) == split_of(root, smaller, seed)
    if split_of(root, smaller, seed) == "heldout":
        assert split_of(root, larger, seed) == "heldout"


def test_another_seed_gives_another_split() -> None:
    roots = [f"{number:032x}" for number in range(400)]
    splits = [[split_of(root, 0.5, seed) for root in roots] for seed in (0, 1)]
    assert splits[0] != splits[1]


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan"), "half"])
def test_a_share_outside_its_range_is_refused(share: Any) -> None:
    with pytest.raises(ValueError, match="held_out"):
        SplitSettings(held_out=share)

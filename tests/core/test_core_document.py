from __future__ import annotations

import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.core.batch import IGNORED, Batch, Piece
from carnac.core.document import KINDS, Document, ImageNode, document_id
from carnac.core.schema import DOCUMENTS, IMAGE_NODE, document_from_row, document_to_row

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
MAYBE_TEXT = st.none() | TEXT
SIZES = st.none() | st.integers(0, 2**31 - 1)
NODES = st.builds(
    ImageNode, alt=MAYBE_TEXT, caption=MAYBE_TEXT, declared_width=SIZES, declared_height=SIZES, source_attribute=TEXT
)
BLOCKS = st.lists(
    st.tuples(TEXT, st.none(), st.sampled_from(KINDS[:-1]), st.none())
    | st.tuples(st.none(), TEXT, st.just(KINDS[-1]), NODES),
    max_size=6,
)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    blocks = draw(BLOCKS)
    texts, images, kinds, nodes = zip(*blocks, strict=True) if blocks else ((), (), (), ())
    return Document(
        id=draw(TEXT),
        url=draw(TEXT),
        warc_file=draw(TEXT),
        warc_offset=draw(st.integers(0, 2**62)),
        fetched_at=draw(MAYBE_TEXT),
        title=draw(MAYBE_TEXT),
        canonical_url=draw(MAYBE_TEXT),
        published_at=draw(MAYBE_TEXT),
        author=draw(MAYBE_TEXT),
        site=draw(MAYBE_TEXT),
        licence=draw(MAYBE_TEXT),
        licence_url=draw(MAYBE_TEXT),
        reservations=tuple(draw(st.lists(TEXT, max_size=2))),
        language=draw(MAYBE_TEXT),
        language_score=draw(st.none() | st.floats(0, 1, width=32)),
        texts=texts,
        images=images,
        kinds=kinds,
        image_nodes=nodes,
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(documents(), max_size=3))
def test_documents_survive_their_way_to_disk(pages: list[Document]) -> None:
    table = pa.Table.from_pylist([document_to_row(page) for page in pages], DOCUMENTS)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    assert [document_from_row(row) for row in pq.read_table(sink).to_pylist()] == pages


def test_columns_are_the_fields() -> None:
    assert DOCUMENTS.names == list(Document.__slots__)
    assert [field.name for field in IMAGE_NODE] == list(ImageNode.__slots__)


def test_an_id_is_of_url_and_payload() -> None:
    expected = hashlib.sha256(b"http://a/" + hashlib.sha256(b"page").digest()).hexdigest()[:32]
    assert document_id("http://a/", b"page") == expected
    assert len({document_id("u", b"p"), document_id("up", b""), document_id("u", b""), document_id("", b"up")}) == 4


def _document(texts: tuple[str | None, ...], images: tuple[str | None, ...]) -> Document:
    return Document(
        id="i",
        url="http://a/",
        warc_file="w",
        warc_offset=0,
        fetched_at=None,
        title=None,
        language=None,
        language_score=None,
        texts=texts,
        images=images,
        kinds=tuple("paragraph" for _ in texts),
        image_nodes=(None,) * len(texts),
    )


@pytest.mark.parametrize(
    ("texts", "images"), [(("a",), ()), (("a",), ("b",)), ((None,), (None,)), (("a", None), ("b", None))]
)
def test_a_block_is_a_text_or_an_image(texts: tuple[str | None, ...], images: tuple[str | None, ...]) -> None:
    with pytest.raises(AssertionError, match="http://a/"):
        _document(texts, images)


def test_documents_are_never_rewritten() -> None:
    page = _document(("a",), (None,))
    with pytest.raises(AttributeError):
        page.texts = ()  # type: ignore[misc] # what is tested


def test_a_piece_and_a_batch_count_their_tokens() -> None:
    piece = Piece(source="web", shard="s", row=0, start=3, stop=10, images=1)
    assert piece.tokens == 7
    grid = np.zeros((2, 4), np.int64)
    labels = np.array([[1, 2, IGNORED, IGNORED], [IGNORED, 0, IGNORED, IGNORED]])
    batch = Batch(
        input_ids=grid,
        labels=labels,
        positions=grid,
        segment=grid,
        image_slots=np.zeros((0, 3), np.int64),
        image_of_token=grid,
        pixels=np.zeros((0, 3, 2, 2), np.float32),
        provenance=(piece,),
    )
    assert batch.label_tokens == 3

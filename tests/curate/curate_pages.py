"""Documents for the tests of curate: built by hand, or read from the sample of real pages."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import urljoin

import pyarrow as pa
from fastwarc.warc import ArchiveIterator, WarcRecordType
from PIL import Image
from pydantic import TypeAdapter
from selectolax.lexbor import LexborHTMLParser

from carnac.core.document import Document, ImageNode, Kind, document_id
from carnac.core.schema import DOCUMENTS, document_to_row
from carnac.curate.settings import Passes, RepeatsPass, RulesPass
from carnac.curate.signals import SIGNALS, ImageMeasure, measure_document

SAMPLE = Path(__file__).parents[2] / "recipes/tiny/data"
KIND_OF_TAG: dict[str, Kind] = {"p": "paragraph", "li": "list", "pre": "code", "h1": "heading", "h2": "heading"}

Block = str | tuple[Kind, str]
PASSES: TypeAdapter[tuple[RulesPass | RepeatsPass, ...]] = TypeAdapter(Passes)


def page(*blocks: Block, url: str = "http://stones.example/") -> Document:
    """Build a document: a string is a paragraph, a pair is a kind with its text, or "image" with its URL."""
    pairs: list[tuple[Kind, str]] = [("paragraph", block) if isinstance(block, str) else block for block in blocks]
    return Document(
        id=document_id(url, repr(blocks).encode()),
        url=url,
        warc_file="a.warc.gz",
        warc_offset=0,
        fetched_at=None,
        title=None,
        language=None,
        language_score=None,
        texts=tuple(None if kind == "image" else value for kind, value in pairs),
        images=tuple(value if kind == "image" else None for kind, value in pairs),
        kinds=tuple(kind for kind, _ in pairs),
        image_nodes=tuple(ImageNode() if kind == "image" else None for kind, _ in pairs),
    )


def documents_table(documents: Sequence[Document]) -> pa.Table:
    return pa.Table.from_pylist([document_to_row(document) for document in documents], schema=DOCUMENTS)


def signals_table(documents: Sequence[Document], images: Mapping[str, ImageMeasure] | None = None) -> pa.Table:
    rows = [measure_document(document, images or {}) for document in documents]
    return pa.Table.from_pylist(rows, schema=SIGNALS)


@cache
def sample_pages(count: int = 60) -> tuple[tuple[Document, ...], dict[str, ImageMeasure]]:
    """Read the first pages and all images of the sample: blocks are its p, li, pre, h1, h2 and img elements."""
    documents: list[Document] = []
    images: dict[str, ImageMeasure] = {}
    for path in sorted(SAMPLE.glob("*.warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
                url, payload = record.headers["WARC-Target-URI"], record.reader.read()
                media_type = record.http_content_type or ""
                if media_type.startswith("image/"):
                    images[url] = _measure_image(payload)
                elif "html" in media_type and len(documents) < count:
                    documents.append(page(*_blocks(url, payload), url=url))
    return tuple(documents), images


def _measure_image(payload: bytes) -> ImageMeasure:
    try:
        with Image.open(io.BytesIO(payload)) as picture:
            return ImageMeasure(width=picture.width, height=picture.height, kept=True)
    except OSError:
        return ImageMeasure(width=None, height=None, kept=False)


def _blocks(url: str, payload: bytes) -> list[Block]:
    blocks: list[Block] = []
    for node in LexborHTMLParser(payload.decode()).css("p, li, pre, h1, h2, img"):
        source, text = node.attributes.get("src"), " ".join(node.text().split())
        if node.tag == "img" and source:
            blocks.append(("image", urljoin(url, source)))
        elif node.tag in KIND_OF_TAG and text:
            blocks.append((KIND_OF_TAG[node.tag], text))
    return blocks

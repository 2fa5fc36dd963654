"""Documents for the tests of curate: built by hand, or read from the sample of real pages."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pyarrow as pa
from fastwarc.warc import ArchiveIterator, WarcRecordType
from PIL import Image
from pydantic import TypeAdapter
from selectolax.lexbor import LexborHTMLParser

from carnac.core.document import Document, ImageNode, Kind, document_id
from carnac.core.schema import DOCUMENTS, document_to_row
from carnac.curate.signals.catalogue import COLUMNS
from carnac.curate.signals.frame import Frame
from carnac.curate.signals.measure import SIGNALS, measure_document
from carnac.jobs.curate_passes import AnyPass, Passes

SAMPLE = Path(__file__).parents[2] / "recipes/tiny/data"
KIND_OF_TAG: dict[str, Kind] = {"p": "paragraph", "li": "list", "pre": "code", "h1": "heading", "h2": "heading"}

Block = str | tuple[Kind, str]
Files = Mapping[str, Mapping[str, Any]]  # of kept images by URL: columns of FOUND
PASSES: TypeAdapter[tuple[AnyPass, ...]] = TypeAdapter(Passes)


def page(
    *blocks: Block,
    url: str = "http://stones.example/",
    nodes: Mapping[str, ImageNode] | None = None,
    language: str | None = None,
    fetched_at: str | None = None,
) -> Document:
    """Build a document: a string is a paragraph, a pair is a kind with its text, or "image" with its URL.

    `nodes` tells of images by URL what the page says of them.
    """
    pairs: list[tuple[Kind, str]] = [("paragraph", block) if isinstance(block, str) else block for block in blocks]
    told = nodes or {}
    return Document(
        id=document_id(url, repr(blocks).encode()),
        url=url,
        warc_file="a.warc.gz",
        warc_offset=0,
        fetched_at=fetched_at,
        title=None,
        language=language,
        language_score=None,
        texts=tuple(None if kind == "image" else value for kind, value in pairs),
        images=tuple(value if kind == "image" else None for kind, value in pairs),
        kinds=tuple(kind for kind, _ in pairs),
        image_nodes=tuple(told.get(value, ImageNode()) if kind == "image" else None for kind, value in pairs),
    )


def image_file(width: int, height: int, media_type: str = "image/png", length: int = 5_000) -> dict[str, Any]:
    """Return what is known of a kept image's file."""
    return {"width": width, "height": height, "media_type": media_type, "length": length}


def documents_table(documents: Sequence[Document]) -> pa.Table:
    """Return rows of `documents/`."""
    return pa.Table.from_pylist([document_to_row(document) for document in documents], schema=DOCUMENTS)


def signals_table(documents: Sequence[Document]) -> pa.Table:
    """Return rows of `signals/`."""
    return pa.Table.from_pylist([measure_document(document) for document in documents], schema=SIGNALS)


def image_signals_table(documents: Sequence[Document], files: Files) -> pa.Table:
    """Return rows of `image_signals/` for images of which `files` holds those that are kept."""
    columns: dict[str, list[Any]] = {"id": [document.id for document in documents]}
    stored = [column for column in COLUMNS if column.table == "image_signals"]
    for column in stored:
        fact = column.name.removeprefix("block_")
        columns[column.name] = [
            [None if url is None else files.get(url, {}).get(fact) for url in document.images] for document in documents
        ]
    columns["block_has_image"] = [
        [None if url is None else url in files for url in document.images] for document in documents
    ]
    schema = pa.schema([("id", pa.string()), *(column.field for column in stored)])
    return pa.table(columns, schema=schema)


def frame_of(*documents: Document, files: Files | None = None) -> Frame:
    """Return the stored signals of documents."""
    return Frame.of(signals_table(documents), image_signals_table(documents, files or {}))


@cache
def sample_pages(count: int = 60) -> tuple[tuple[Document, ...], Files]:
    """Read the first pages and all images of the sample: blocks are its p, li, pre, h1, h2 and img elements."""
    documents: list[Document] = []
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(SAMPLE.glob("*.warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
                url, payload = record.headers["WARC-Target-URI"], record.reader.read()
                media_type = record.http_content_type or ""
                if media_type.startswith("image/"):
                    files |= _measure_image(url, payload, media_type)
                elif "html" in media_type and len(documents) < count:
                    documents.append(_document(url, payload))
    return tuple(documents), files


def _measure_image(url: str, payload: bytes, media_type: str) -> dict[str, dict[str, Any]]:
    try:
        with Image.open(io.BytesIO(payload)) as picture:
            return {url: image_file(picture.width, picture.height, media_type, len(payload))}
    except OSError:
        return {}


def _document(url: str, payload: bytes) -> Document:
    blocks: list[Block] = []
    nodes: dict[str, ImageNode] = {}
    for node in LexborHTMLParser(payload.decode()).css("p, li, pre, h1, h2, img"):
        source, text = node.attributes.get("src"), " ".join(node.text().split())
        if node.tag == "img" and source:
            blocks.append(("image", urljoin(url, source)))
            nodes[urljoin(url, source)] = ImageNode(alt=node.attributes.get("alt"))
        elif node.tag in KIND_OF_TAG and text:
            blocks.append((KIND_OF_TAG[node.tag], text))
    return page(*blocks, url=url, nodes=nodes)

"""Rows of other people's sets -> documents: the OBELICS format, image-text pairs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from carnac.archive.pairs import Pair
from carnac.core.document import Document, ImageNode, Kind, document_id
from carnac.core.errors import RecordError
from carnac.web.language import identify

_PARAGRAPHS = re.compile(r"\n[ \t\r]*\n\s*")
LANGUAGE_CHARACTERS = 2000  # as of a page
_Block = tuple[str | None, str | None, Kind, ImageNode | None]


def obelics_document(row: Mapping[str, Any], file: str, number: int) -> Document:
    """Return the document of row `number` of a file in the OBELICS format (arXiv 2306.16527).

    Its merged texts are split into paragraphs again, at blank lines. Raises RecordError `bad_row`, `no_content`.
    """
    facts = _parsed(row.get("general_metadata"), "general_metadata", dict)
    url = row.get("url") or facts.get("url")
    if not isinstance(url, str) or not url:
        raise RecordError("bad_row", "no url, neither in general_metadata nor beside it")
    texts, images = row.get("texts"), row.get("images")
    if not isinstance(texts, list) or not isinstance(images, list) or len(texts) != len(images):
        raise RecordError("bad_row", "texts and images are not two lists of one length")
    nodes = _parsed(row.get("metadata"), "metadata", list) or [None] * len(texts)
    if len(nodes) != len(texts):
        raise RecordError("bad_row", f"metadata has {len(nodes)} entries, texts {len(texts)}")
    blocks: list[_Block] = []
    for place, (text, image, node) in enumerate(zip(texts, images, nodes, strict=True)):
        if (text is None) == (image is None):
            raise RecordError("bad_row", f"place {place} is not a text or an image")
        if image is not None:
            blocks.append((None, image, "image", _image_node(node)))
        else:
            blocks += [(part.strip(), None, "paragraph", None) for part in _PARAGRAPHS.split(text) if part.strip()]
    file_told, offset = facts.get("warc_filename"), facts.get("warc_record_offset")
    is_told = isinstance(file_told, str) and isinstance(offset, int)
    return _document(
        blocks,
        url=url,
        payload=json.dumps([texts, images]).encode(),
        warc_file=str(file_told).rpartition("/")[2] if is_told else file,
        warc_offset=int(offset) if is_told and offset is not None else number,
    )


def pair_document(pair: Pair, file: str) -> Document:
    """Return the document of an image-text pair: the image, then its caption."""
    blocks: list[_Block] = [(None, pair.url, "image", ImageNode()), (pair.caption, None, "caption", None)]
    url = pair.page_url or pair.url
    return _document(
        blocks, url=url, payload=pair.image + pair.caption.encode(), warc_file=file, warc_offset=pair.offset
    )


def _document(blocks: list[_Block], *, url: str, payload: bytes, warc_file: str, warc_offset: int) -> Document:
    if not blocks:
        raise RecordError("no_content", "neither a text nor an image")
    prose = "\n".join(text for text, *_ in blocks if text is not None)
    language, score = identify(prose, LANGUAGE_CHARACTERS)
    texts, images, kinds, nodes = zip(*blocks, strict=True)
    return Document(
        id=document_id(url, payload),
        url=url,
        warc_file=warc_file,
        warc_offset=warc_offset,
        fetched_at=None,
        title=None,
        language=language,
        language_score=score,
        texts=texts,
        images=images,
        kinds=kinds,
        image_nodes=nodes,
    )


def _parsed(text: Any, name: str, kind: type) -> Any:
    """Return what a column of JSON holds; an empty one where it is null."""
    if text is None:
        return kind()
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError) as error:
        raise RecordError("bad_row", f"{name}: {error}") from None
    if not isinstance(value, kind):
        raise RecordError("bad_row", f"{name} holds no {'table' if kind is dict else 'list'}")
    return value


def _image_node(node: Any) -> ImageNode:
    alt = node.get("alt_text") if isinstance(node, dict) else None
    return ImageNode(alt=alt.strip() or None if isinstance(alt, str) else None)

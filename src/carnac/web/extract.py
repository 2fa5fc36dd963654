"""An HTTP response that holds a page -> a document. Pure: no disk, no network, no engine."""

from __future__ import annotations

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

from carnac.archive.records import Response
from carnac.core.document import Document, document_id
from carnac.core.errors import RecordError
from carnac.web.blocks import Block
from carnac.web.charset import decode_page
from carnac.web.language import identify
from carnac.web.nesting import check_nesting
from carnac.web.settings import ExtractSettings
from carnac.web.sources import describe_image, resolve
from carnac.web.walk import Walk

_PAGE_TYPES = frozenset(("text/html", "application/xhtml+xml"))
_UNKNOWN_TYPES = frozenset(("", "*/*", "application/octet-stream", "application/unknown", "unknown/unknown"))
_PAGE_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--.{0,1000}?-->\s*)?<(?:!doctype\s+html|html|head|body)[\s>]",
    re.IGNORECASE | re.DOTALL,
)
_SNIFFED_BYTES = 2048


def is_page(response: Response) -> bool:
    """Say whether `response` is a success that holds HTML, by its media type or, without one, by how it begins."""
    if not 200 <= response.status < 300:
        return False
    if response.media_type in _UNKNOWN_TYPES:
        return _PAGE_START.match(response.payload[:_SNIFFED_BYTES]) is not None
    return response.media_type in _PAGE_TYPES


def extract_document(response: Response, warc_file: str, settings: ExtractSettings) -> Document:
    """Return the document of a page.

    Raises RecordError: `page_too_large`, `too_deep`, `no_content`.
    """
    num_bytes = len(response.payload)
    if num_bytes > settings.max_page_bytes:
        raise RecordError("page_too_large", f"{num_bytes:,} bytes, at most {settings.max_page_bytes:,} are parsed")
    html, _ = decode_page(response.payload, response.charset)
    check_nesting(html)
    parser = LexborHTMLParser(html)
    blocks = _read_blocks(parser, _base_url(parser, response.url))
    if not blocks:
        raise RecordError("no_content", "neither text nor an image outside navigation, scripts and hidden elements")
    language, score = identify(_prose(blocks, settings.language_characters), settings.language_characters)
    return Document(
        id=document_id(response.url, response.payload),
        url=response.url,
        warc_file=warc_file,
        warc_offset=response.offset,
        fetched_at=response.fetched_at,
        title=_title(parser),
        language=language,
        language_score=score,
        texts=tuple(block.text for block in blocks),
        images=tuple(block.url for block in blocks),
        kinds=tuple(block.kind for block in blocks),
        image_nodes=tuple(
            None if block.url is None else describe_image(block.attributes, block.source_attribute, block.caption)
            for block in blocks
        ),
    )


def _read_blocks(parser: LexborHTMLParser, base: str) -> list[Block]:
    """Read the main content; the whole body if the page marks none, or one without any text."""
    body = parser.body
    if body is None:
        return []
    root = _main_content(parser)
    if root is not None:
        blocks = Walk(root, base).blocks()
        if any(block.text is not None for block in blocks):
            return blocks
    return Walk(body, base).blocks()


def _main_content(parser: LexborHTMLParser) -> LexborNode | None:
    """Return the page's only <main> or role=main, else its only <article>."""
    for query in ("main, [role=main]", "article"):
        found = parser.css(query)
        if len(found) == 1:
            return found[0]
    return None


def _base_url(parser: LexborHTMLParser, url: str) -> str:
    for node in parser.tags("base"):
        base = resolve(url, node.attributes.get("href") or "")
        if base is not None:
            return base
    return url


def _title(parser: LexborHTMLParser) -> str | None:
    """Return the text of the page's <title>, else of its first <h1>."""
    head = parser.head
    title = None if head is None else next((node for node in head.iter() if node.tag == "title"), None)
    text = " ".join(title.text().split()) if title is not None else ""
    if not text and (headings := parser.tags("h1")):
        text = " ".join(headings[0].text().replace("\u00b6", "").split())
    return text or None


def _prose(blocks: list[Block], max_characters: int) -> str:
    """Return enough text to tell the language from: all but code, unless there is nothing else."""
    texts: list[str] = []
    num_characters = 0
    for block in blocks:
        if block.text is not None and block.kind != "code" and num_characters < max_characters:
            texts.append(block.text)
            num_characters += len(block.text) + 1
    return "\n".join(texts) or next((block.text for block in blocks if block.text is not None), "")

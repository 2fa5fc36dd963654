"""An HTTP response that holds a page -> a document. Pure: no disk, no network, no engine."""

from __future__ import annotations

import gc
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser, SelectolaxError

from carnac.archive.records import Response
from carnac.core.document import Document, document_id
from carnac.core.errors import RecordError
from carnac.web import obelics
from carnac.web.article import Reading, read_article
from carnac.web.blocks import Block
from carnac.web.charset import as_utf_8, mend
from carnac.web.language import identify
from carnac.web.metadata import read_metadata
from carnac.web.nesting import check_nesting
from carnac.web.settings import ExtractSettings
from carnac.web.sources import describe_image

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """A document, and how many blocks of its main content were dropped one by one, by reason."""

    document: Document
    dropped: Mapping[str, int]


def extract_document(response: Response, warc_file: str, settings: ExtractSettings) -> Document:
    """Return the document of a page. Raises as `extract_page`."""
    return extract_page(response, warc_file, settings).document


def extract_page(response: Response, warc_file: str, settings: ExtractSettings) -> Extracted:
    """Return the document of a page.

    Raises RecordError: `page_too_large`, `too_deep`, `no_content`.
    """
    parser = parse_page(response.payload, response.charset, settings)
    reading = read_tree(parser, response.url, settings)
    blocks = reading.blocks
    if not blocks:
        raise RecordError("no_content", "neither text nor an image outside navigation, scripts and hidden elements")
    facts = read_metadata(parser, response.url, response.headers, response.payload)
    language, score = identify(_prose(blocks, settings.language_characters), settings.language_characters)
    document = Document(
        id=document_id(response.url, response.payload),
        url=response.url,
        warc_file=warc_file,
        warc_offset=response.offset,
        fetched_at=response.fetched_at,
        title=facts.title,
        canonical_url=facts.canonical_url,
        published_at=facts.published_at,
        author=facts.author,
        site=facts.site,
        licence=facts.licence,
        licence_url=facts.licence_url,
        reservations=facts.reservations,
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
    return Extracted(document=document, dropped=Counter(reason for reason, _ in reading.dropped))


def read_page(payload: bytes, url: str, charset: str | None, settings: ExtractSettings) -> Sequence[Block]:
    """Return the blocks of a page's bytes. Raises RecordError: `page_too_large`, `too_deep`."""
    return read_tree(parse_page(payload, charset, settings), url, settings).blocks


def parse_page(payload: bytes, charset: str | None, settings: ExtractSettings) -> LexborHTMLParser:
    """Return the tree of a page. Raises RecordError: `page_too_large`, `too_deep`, `unparseable`."""
    if len(payload) > settings.max_page_bytes:
        raise RecordError("page_too_large", f"{len(payload):,} bytes, at most {settings.max_page_bytes:,} are parsed")
    html = as_utf_8(payload, charset)
    check_nesting(html)
    try:
        # Without events: with them, <option> after <option> is quadratic (16,000 take 0.7 s, else 5 ms).
        return LexborHTMLParser(html, options=LexborDocumentOptions.WO_EVENTS)
    except SelectolaxError as error:
        raise RecordError("unparseable", f"the parser gave up: {error}") from None


def read_tree(parser: LexborHTMLParser, url: str, settings: ExtractSettings) -> Reading:
    """Read a page that is parsed."""
    with _collector_paused():
        if settings.scope == "page":
            reading = Reading(blocks=obelics.read_page(parser, url))
        else:
            reading = read_article(parser, url, settings)
    if settings.mend_text:
        for block in reading.blocks:
            block.text, block.caption = mend(block.text), mend(block.caption)
    return reading


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep Python's collector of cycles from looking at a page's elements again and again while they are made.

    None of them is garbage before the end, and none needs it then: it took 40 % of the time of a page of 300,000
    paragraphs, 5 % of an ordinary one.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _prose(blocks: Sequence[Block], max_characters: int) -> str:
    """Return enough text to tell the language from: all but code, unless there is nothing else."""
    texts: list[str] = []
    num_characters = 0
    for block in blocks:
        if block.text is not None and block.kind != "code" and num_characters < max_characters:
            texts.append(block.text)
            num_characters += len(block.text) + 1
    return "\n".join(texts) or next((block.text for block in blocks if block.text is not None), "")

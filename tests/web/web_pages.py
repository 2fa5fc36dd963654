"""Pages for the tests of `web`: made here, or real ones of the shipped sample."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser

from carnac.archive.records import Response, read_responses
from carnac.core.document import Document
from carnac.web.extract import extract_document, is_page
from carnac.web.outline import PageFacts, build_blocks
from carnac.web.settings import ExtractSettings
from carnac.web.walk import Walk

DATA = Path(__file__).parents[2] / "recipes/tiny/data"
URL = "http://a.example/docs/page.html"


def response(
    payload: bytes | str,
    *,
    url: str = URL,
    media_type: str = "text/html",
    charset: str | None = None,
    status: int = 200,
) -> Response:
    return Response(
        url=url,
        offset=7,
        fetched_at="2026-01-02T03:04:05Z",
        status=status,
        media_type=media_type,
        charset=charset,
        payload=payload.encode() if isinstance(payload, str) else payload,
    )


def document(html: bytes | str, *, charset: str | None = None, url: str = URL) -> Document:
    return extract_document(response(html, charset=charset, url=url), "x.warc.gz", ExtractSettings())


def blocks(html: str) -> list[tuple[str, str]]:
    """Each block of all that a page holds, whether it is an article or not, as (kind, text or URL)."""
    body = LexborHTMLParser(html.encode()).body
    assert body is not None
    outline = Walk(body, PageFacts(base=URL), strict=False).outline()
    return [(block.kind, block.text or block.url or "") for block in build_blocks(outline, outline.elements[:1])]


@cache
def sample_pages() -> dict[str, Response]:
    """The 198 pages of the sample by URL."""
    return {
        record.url: record
        for path in sorted(DATA.glob("*.warc.gz"))
        for record in read_responses(path, max_payload_bytes=10_000_000)
        if isinstance(record, Response) and is_page(record)
    }

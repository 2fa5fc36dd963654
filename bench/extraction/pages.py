"""The pages that are measured: those of archives, or of a folder in which the main content of each is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from carnac.archive.records import Response, read_responses
from carnac.web.charset import decode_page
from carnac.web.extract import is_page

MAX_PAYLOAD_BYTES = 64_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page as stored, and as text: the floor is given text. `expected` is the HTML of its main content, if known."""

    name: str
    payload: bytes
    text: str
    url: str
    charset: str | None = None
    expected: bytes | None = None

    @property
    def response(self) -> Response:
        """The page as an archive would hand it out."""
        return Response(
            url=self.url,
            offset=0,
            fetched_at=None,
            status=200,
            media_type="text/html",
            charset=self.charset,
            payload=self.payload,
        )


def page_of(name: str, payload: bytes, url: str, charset: str | None = None, expected: bytes | None = None) -> Page:
    """Return a page, decoded."""
    text = decode_page(payload, charset)[0]
    return Page(name=name, payload=payload, text=text, url=url, charset=charset, expected=expected)


def pages_of_archives(archives: Iterable[Path]) -> list[Page]:
    """Return the pages of WARC files, in file order."""
    return [
        page_of(f"{path.name}@{record.place}", record.payload, record.url, record.charset)
        for path in archives
        for record in read_responses(path, max_payload_bytes=MAX_PAYLOAD_BYTES)
        if isinstance(record, Response) and is_page(record)
    ]


def pages_of_folder(folder: Path, url: str) -> list[Page]:
    """Return the pages NAME/source.html of a folder, with NAME/expected.html where there is one, by name."""
    pages = []
    for source in sorted(folder.glob("*/source.html")):
        known = source.with_name("expected.html")
        expected = known.read_bytes() if known.exists() else None
        pages.append(page_of(source.parent.name, source.read_bytes(), url, expected=expected))
    return pages

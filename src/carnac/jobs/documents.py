"""Documents of any source -> rows of `documents/`, with the counts that every source shares."""

from __future__ import annotations

from collections.abc import Mapping

from carnac.core.document import Document
from carnac.core.schema import document_to_row
from carnac.engine.part import Part

# A crawl holds films and disk images: beyond this a record is not read at all. Well above any page, so that a page that
# is too large says so (`page_too_large`) and a large download is no loss.
MAX_PAYLOAD_BYTES = 64_000_000


def write_document(part: Part, document: Document, dropped: Mapping[str, int] | None = None) -> None:
    """Write a document, and count what is in it, and what of its main content is not, by reason."""
    for reason, number in (dropped or {}).items():
        part.count(f"dropped.{reason}", number)
    part.count("documents")
    part.count("text_blocks", sum(text is not None for text in document.texts))
    part.count("images", sum(image is not None for image in document.images))
    part.write(document_to_row(document))

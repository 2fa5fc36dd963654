"""Documents of any source -> rows of `documents/`, with the counts that every source shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

from carnac.core.document import Document
from carnac.core.schema import document_to_row
from carnac.core.taken_down import NOTHING, TakenDown
from carnac.engine.part import Part

# A crawl holds films and disk images: beyond this a record is not read at all. Well above any page, so that a page that
# is too large says so (`page_too_large`) and a large download is no loss.
MAX_PAYLOAD_BYTES = 64_000_000
T = TypeVar("T")


def write_document(
    part: Part, document: Document, dropped: Mapping[str, int] | None = None, taken_down: TakenDown = NOTHING
) -> None:
    """Write a document, and count what is in it, and what of its main content is not, by reason.

    What was taken down is not written: a page is counted as `taken_down`, its images as dropped.
    """
    if taken_down:
        left = without_taken_down(document, taken_down)
        if left is None:
            part.count("taken_down")
            return
        num_gone = len(document.images) - len(left.images)
        document, dropped = left, {**(dropped or {}), **({"taken_down": num_gone} if num_gone else {})}
    for reason, number in (dropped or {}).items():
        part.count(f"dropped.{reason}", number)
    part.count("documents")
    part.count("text_blocks", sum(text is not None for text in document.texts))
    part.count("images", sum(image is not None for image in document.images))
    part.write(document_to_row(document))


def without_taken_down(document: Document, taken_down: TakenDown) -> Document | None:
    """Return a document without the images that were taken down; None for a page that was, or holds nothing else."""
    if taken_down.has_url(document.url) or taken_down.has_url(document.canonical_url):
        return None
    kept = [not taken_down.has_url(url) for url in document.images]
    if not any(kept):
        return None

    def scrubbed(text: str | None) -> str | None:
        return None if text is None else taken_down.scrubbed(text)

    def left(values: Sequence[T]) -> tuple[T, ...]:
        return tuple(value for value, is_kept in zip(values, kept, strict=True) if is_kept)

    nodes = (
        None if node is None else dataclasses.replace(node, alt=scrubbed(node.alt), caption=scrubbed(node.caption))
        for node in left(document.image_nodes)
    )
    return dataclasses.replace(
        document,
        texts=tuple(scrubbed(text) for text in left(document.texts)),
        images=left(document.images),
        kinds=left(document.kinds),
        image_nodes=tuple(nodes),
        title=scrubbed(document.title),
        author=scrubbed(document.author),
        site=scrubbed(document.site),
        licence_url=scrubbed(document.licence_url),
    )

"""A web page as carnac knows it: text blocks and images in reading order.

The form is that of OBELICS (Laurencon et al. 2023, arXiv 2306.16527): two parallel lists, exactly one of the two set
at each place. Unlike there, a block is one paragraph, heading, list, table, code listing or quote, and adjacent text
blocks are normal; only samples (`shards/`) merge them. Documents are never rewritten: later steps add masks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["paragraph", "heading", "list", "table", "code", "quote", "caption", "image"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageNode:
    """What the page says about an image. Widths and heights are CSS pixels as declared, not those of the file."""

    alt: str | None = None
    caption: str | None = None
    declared_width: int | None = None
    declared_height: int | None = None
    source_attribute: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A page.

    `id` is `document_id(url, payload)`; it is not unique until duplicates are dropped. `warc_offset` is the byte offset
    of the page's record in `warc_file` as stored (compressed). `fetched_at` is the record's WARC-Date (ISO 8601).

    What the page says of itself, None where it is silent: `title` is the article's, without the site's name;
    `canonical_url` is absolute; `published_at` is ISO 8601, as exact as given; several names in `author` are joined by
    "; "; `licence` is the Creative Commons licence of the whole page (`CC-BY-SA-4.0`), `licence_url` what it points to;
    `reservations` are the uses that page and server object to (`noai`, `tdm-reservation`), sorted.

    `texts`, `images`, `kinds`, `image_nodes` have one entry per block; `images` holds absolute URLs.
    """

    id: str
    url: str
    warc_file: str
    warc_offset: int
    fetched_at: str | None
    title: str | None
    canonical_url: str | None = None
    published_at: str | None = None
    author: str | None = None
    site: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    reservations: tuple[str, ...] = ()
    language: str | None
    language_score: float | None
    texts: tuple[str | None, ...]
    images: tuple[str | None, ...]
    kinds: tuple[Kind, ...]
    image_nodes: tuple[ImageNode | None, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.texts), len(self.images), len(self.kinds), len(self.image_nodes)}
        assert len(lengths) == 1, f"{self.url}: block lists of different lengths {lengths}"
        for place, (text, image) in enumerate(zip(self.texts, self.images, strict=True)):
            assert (text is None) != (image is None), f"{self.url}: block {place} must be a text or an image"


def document_id(url: str, payload: bytes) -> str:
    """Return the first 128 bits, in hex, of sha256(url || sha256(payload))."""
    return hashlib.sha256(url.encode() + hashlib.sha256(payload).digest()).hexdigest()[:32]

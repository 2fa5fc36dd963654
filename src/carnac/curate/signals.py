"""Measure a document once: a row of numbers from which any threshold can be judged later without opening the text.

In: a document and what is known of its images. Out: a row of `SIGNALS`. What adds up (words, characters, stop words) is
stored as a count per block, so that sums and ratios can be taken over the blocks that are still kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from carnac.core.document import Document
from carnac.curate.stop_words import STOP_WORDS
from carnac.curate.text import (
    count_special_characters,
    digest_text,
    digest_url,
    measure_character_repetition,
    measure_word_repetition,
    split_words,
)

# Same parts, rows and order as `documents/`. A list has an entry per block, null where the column says nothing about
# that block: text columns on image blocks, `block_width` where no file was kept, everything in a failed row.
SIGNALS = pa.schema(
    [
        ("id", pa.string()),
        ("failed", pa.string()),
        ("num_characters", pa.int64()),
        ("character_repetition", pa.float64()),
        ("word_repetition", pa.float64()),
        ("text_digest", pa.string()),
        ("url_digest", pa.string()),
        ("block_num_words", pa.list_(pa.int32())),
        ("block_num_characters", pa.list_(pa.int32())),
        ("block_num_special_characters", pa.list_(pa.int32())),
        ("block_num_stop_words", pa.list_(pa.int32())),
        ("block_character_repetition", pa.list_(pa.float64())),
        ("block_word_repetition", pa.list_(pa.float64())),
        ("block_width", pa.list_(pa.int32())),
        ("block_height", pa.list_(pa.int32())),
        ("block_has_image", pa.list_(pa.bool_())),
    ]
)
Value = TypeVar("Value")
Result = TypeVar("Result")

_BLOCK_COLUMNS = tuple(name for name in SIGNALS.names if name.startswith("block_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMeasure:
    """What is known of an image file: its size in pixels, and whether its bytes were kept."""

    width: int | None
    height: int | None
    kept: bool


def measure_document(document: Document, images: Mapping[str, ImageMeasure]) -> dict[str, Any]:
    """Return the row of `SIGNALS` of `document`; `images` maps image URLs to what is known of them.

    A URL that `images` lacks counts as an image that was not kept. `text_digest` is that of the texts of all
    blocks, wherever they are cut; it is null for a page without text, which therefore repeats no other.
    """
    words = [None if text is None else split_words(text) for text in document.texts]
    page = "\n\n".join(text for text in document.texts if text is not None)
    return {
        "id": document.id,
        "failed": None,
        "num_characters": sum(len(text) for text in document.texts if text is not None),
        "character_repetition": measure_character_repetition(page),
        "word_repetition": measure_word_repetition([word for block in words if block is not None for word in block]),
        "text_digest": digest_text(page),
        "url_digest": digest_url(document.url),
        "block_num_words": _each(len, words),
        "block_num_characters": _each(len, document.texts),
        "block_num_special_characters": _each(count_special_characters, document.texts),
        "block_num_stop_words": _each(lambda block: sum(word in STOP_WORDS for word in block), words),
        "block_character_repetition": _each(measure_character_repetition, document.texts),
        "block_word_repetition": _each(measure_word_repetition, words),
        **_measure_images(document, images),
    }


def failed_row(document: Document, reason: str) -> dict[str, Any]:
    """Return the row of `SIGNALS` of a document that could not be measured: nulls, lists as long as its blocks."""
    empty = dict.fromkeys(SIGNALS.names) | {name: [None] * len(document.texts) for name in _BLOCK_COLUMNS}
    return empty | {"id": document.id, "failed": reason}


def _each(measure: Callable[[Value], Result], blocks: Iterable[Value | None]) -> list[Result | None]:
    """Measure every block that has a value."""
    return [None if block is None else measure(block) for block in blocks]


def _measure_images(document: Document, images: Mapping[str, ImageMeasure]) -> dict[str, list[Any]]:
    """Return the three columns about images."""
    kept: list[ImageMeasure | None] = []
    for url in document.images:
        measure = None if url is None else images.get(url)
        kept.append(measure if measure is not None and measure.kept else None)
    return {
        "block_width": [None if measure is None else measure.width for measure in kept],
        "block_height": [None if measure is None else measure.height for measure in kept],
        "block_has_image": [
            None if url is None else measure is not None for url, measure in zip(document.images, kept, strict=True)
        ],
    }

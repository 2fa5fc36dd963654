"""Signals of images that their page tells, without the file: alternative text, caption, place, address, declared size.

What an image's page says nothing of is not known (null); a page that was extracted and gives no alternative text says
that there is none (0).
"""

from __future__ import annotations

from bisect import bisect
from typing import Any

import numpy as np
import pyarrow as pa

from carnac.core.document import Document
from carnac.curate.signals.frame import Array, Frame
from carnac.curate.signals.signal import Column, Signal
from carnac.curate.texts.split import split_words

_OBELICS = "OBELICS (arXiv 2306.16527), table 2"
_ALT = "DataComp (arXiv 2304.14108), basic filtering"
# OBELICS's own (build_obelics, step 04), looked for anywhere in the address.
BANNED_URL_WORDS = ("logo", "button", "icon", "plugin", "widget", "porn", "xxx", "sex")

PAGE_COLUMNS = (
    Column(name="block_declared_width", type=pa.int32()),
    Column(name="block_declared_height", type=pa.int32()),
    Column(name="block_alt_characters", type=pa.int32()),
    Column(name="block_alt_words", type=pa.int32()),
    Column(name="block_caption_words", type=pa.int32()),
    Column(name="block_caption_overlap", type=pa.float64()),
    Column(name="block_banned_url_words", type=pa.int16()),
)


def _stored(name: str, unit: str, description: str, source: str) -> Signal:
    """Return a signal that is a stored column."""
    column = f"block_{name}"
    return Signal(
        name=name,
        level="image",
        unit=unit,
        description=description,
        source=source,
        columns=(column,),
        value=lambda frame: frame.block(column),
        scale="linear" if unit == "ratio" else "log",
    )


def _position(frame: Frame) -> Array:
    lengths = np.diff(frame.starts)
    places = np.arange(frame.starts[-1], dtype=np.float64) - np.repeat(frame.starts[:-1], lengths)
    position: Array = places / np.repeat(np.maximum(lengths - 1, 1), lengths)
    return position


PAGE_SIGNALS = (
    _stored("declared_width", "CSS px", "width as the page declares it", _OBELICS),
    _stored("declared_height", "CSS px", "height as the page declares it", _OBELICS),
    _stored("alt_characters", "characters", "characters of the alternative text, 0 without one", _ALT),
    _stored("alt_words", "words", "words of the alternative text, 0 without one", _ALT),
    _stored("caption_words", "words", "words of the caption of its figure, 0 without one", "ours"),
    _stored(
        "caption_overlap",
        "ratio",
        "share of the distinct words of alternative text and caption that stand in the nearest text block before it "
        "or after it (captions left out); not known without such words",
        "ours",
    ),
    Signal(
        name="position",
        level="image",
        unit="ratio",
        description="place among the blocks of the page: 0 the first, 1 the last",
        source="ours",
        columns=(),
        value=_position,
    ),
    _stored(
        "banned_url_words",
        "words",
        f"of {', '.join(BANNED_URL_WORDS)}, those that stand anywhere in its address",
        "OBELICS (arXiv 2306.16527), appendix A.1",
    ),
)


def measure_images_of_page(document: Document) -> dict[str, list[Any]]:
    """Return the values of `PAGE_COLUMNS` of a document: a list per column, an entry per block.

    Linear in the length of the page: a text beside a thousand images is split once.
    """
    texts = _Texts(document)
    rows = [_measure(document, texts, place) for place in range(len(document.kinds))]
    return {column.name: [row.get(column.name) for row in rows] for column in PAGE_COLUMNS}


def _measure(document: Document, texts: _Texts, place: int) -> dict[str, Any]:
    """Return what a page tells of the image at `place`; nothing where there is a text."""
    url, node = document.images[place], document.image_nodes[place]
    if url is None:
        return {}
    lower = url.lower()
    found: dict[str, Any] = {"block_banned_url_words": sum(word in lower for word in BANNED_URL_WORDS)}
    if node is None:
        return found
    alt, caption = split_words(node.alt or ""), split_words(node.caption or "")
    return found | {
        "block_declared_width": node.declared_width,
        "block_declared_height": node.declared_height,
        "block_alt_characters": len((node.alt or "").strip()),
        "block_alt_words": len(alt),
        "block_caption_words": len(caption),
        "block_caption_overlap": texts.share_near(place, {*alt, *caption}),
    }


class _Texts:
    """The words of a page's text blocks, without captions: a figure's is a block of its own beside its picture."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._places = [
            place
            for place, (text, kind) in enumerate(zip(document.texts, document.kinds, strict=True))
            if text is not None and kind != "caption"
        ]
        self._words: dict[int, frozenset[str]] = {}

    def share_near(self, place: int, words: set[str]) -> float | None:
        """Return the share of `words` that the nearest texts before and after `place` hold; None of no words."""
        if not words:
            return None
        after = bisect(self._places, place)
        near = [self._words_of(text) for text in self._places[max(after - 1, 0) : after + 1]]
        return sum(any(word in block for block in near) for word in words) / len(words)

    def _words_of(self, place: int) -> frozenset[str]:
        if place not in self._words:
            self._words[place] = frozenset(split_words(self._document.texts[place] or ""))
        return self._words[place]

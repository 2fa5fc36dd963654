"""The signals that rules may name: each a small function of a row of `SIGNALS`, with its unit.

Adding a signal is adding an entry here: recipes may name it at once, and a misspelt one is answered with this list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["text", "image", "document"]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSignal:
    """A number of one block: `value(row, place)`. None for an image without a file."""

    unit: str
    description: str
    value: Callable[[Row, int], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSignal:
    """A number of a document: `value(row, places)`, where `places` are those of the blocks that are kept.

    `over` tells what it is taken over: "kept" sums over the kept blocks, "page" was measured on the whole page.
    """

    unit: str
    description: str
    over: Literal["page", "kept"]
    value: Callable[[Row, Sequence[int]], float]


def _column(name: str) -> Callable[[Row, int], float | None]:
    return lambda row, place: row[name][place]


def _block_ratio(part: str, whole: str) -> Callable[[Row, int], float | None]:
    return lambda row, place: row[part][place] / row[whole][place] if row[whole][place] else 0.0


def _total(row: Row, column: str, places: Sequence[int]) -> int:
    values = row[column]
    return sum(values[place] or 0 for place in places)


def _sum(column: str) -> Callable[[Row, Sequence[int]], float]:
    return lambda row, places: _total(row, column, places)


def _ratio(part: str, whole: str) -> Callable[[Row, Sequence[int]], float]:
    def ratio(row: Row, places: Sequence[int]) -> float:
        total = _total(row, whole, places)
        return _total(row, part, places) / total if total else 0.0

    return ratio


def _aspect(row: Row, place: int) -> float | None:
    width, height = row["block_width"][place], row["block_height"][place]
    return max(width, height) / min(width, height) if width and height else None


def _num_images(row: Row, places: Sequence[int]) -> int:
    return sum(row["block_has_image"][place] is not None for place in places)


_SPECIAL = ("block_num_special_characters", "block_num_characters")
_STOP = ("block_num_stop_words", "block_num_words")

TEXT_SIGNALS: Mapping[str, BlockSignal] = {
    "num_words": BlockSignal(unit="words", description="words", value=_column("block_num_words")),
    "num_characters": BlockSignal(unit="characters", description="characters", value=_column("block_num_characters")),
    "special_character_ratio": BlockSignal(
        unit="ratio", description="characters that are no letters, white space included", value=_block_ratio(*_SPECIAL)
    ),
    "stop_word_ratio": BlockSignal(
        unit="ratio", description="words that are English function words", value=_block_ratio(*_STOP)
    ),
    "character_repetition": BlockSignal(
        unit="ratio", description="share of the commonest 10-grams", value=_column("block_character_repetition")
    ),
    "word_repetition": BlockSignal(
        unit="ratio", description="share of word 5-grams that occur again", value=_column("block_word_repetition")
    ),
}

IMAGE_SIGNALS: Mapping[str, BlockSignal] = {
    "width": BlockSignal(unit="px", description="width of the file", value=_column("block_width")),
    "height": BlockSignal(unit="px", description="height of the file", value=_column("block_height")),
    "aspect": BlockSignal(unit="ratio", description="longer side of the file over the shorter", value=_aspect),
}

DOCUMENT_SIGNALS: Mapping[str, DocumentSignal] = {
    "num_words": DocumentSignal(unit="words", description="words", over="kept", value=_sum("block_num_words")),
    "num_characters": DocumentSignal(
        unit="characters", description="characters", over="kept", value=_sum("block_num_characters")
    ),
    "num_images": DocumentSignal(unit="images", description="image blocks", over="kept", value=_num_images),
    "special_character_ratio": DocumentSignal(
        unit="ratio", description="characters that are no letters", over="kept", value=_ratio(*_SPECIAL)
    ),
    "stop_word_ratio": DocumentSignal(
        unit="ratio", description="words that are English function words", over="kept", value=_ratio(*_STOP)
    ),
    "character_repetition": DocumentSignal(
        unit="ratio",
        description="share of the commonest 10-grams",
        over="page",
        value=lambda row, _: row["character_repetition"],
    ),
    "word_repetition": DocumentSignal(
        unit="ratio",
        description="share of word 5-grams that occur again",
        over="page",
        value=lambda row, _: row["word_repetition"],
    ),
}

NAMES: Mapping[Level, tuple[str, ...]] = {
    "text": tuple(TEXT_SIGNALS),
    "image": tuple(IMAGE_SIGNALS),
    "document": tuple(DOCUMENT_SIGNALS),
}

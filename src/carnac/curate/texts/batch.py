"""The texts of one document, tokenised once, and all numbers that signals of texts are made of.

In: texts, and words and models to hold them against. Out: counts and shares per block, shares per page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from carnac.curate.texts.characters import character_classes
from carnac.curate.texts.counts import CHARACTER_COUNTS, count_blocks
from carnac.curate.texts.repetition import (
    LINE_REPEATS,
    WORD_REPEATS,
    repeat_characters,
    repeat_lines,
    repeat_words,
    repeat_words_of_blocks,
)
from carnac.curate.texts.words import WORD_COUNTS, codes_of, count_common, count_listed, hash_words

if TYPE_CHECKING:
    from carnac.curate.texts.lexicon import Lexicon

BETWEEN = "\n\n"  # between blocks, in the page's whole text
# C4 (arXiv 1910.10683, section 2.2) drops lines and pages with these.
BOILERPLATE = (
    "lorem ipsum",
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)

Counts = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Flat:
    """The code points of texts one after the other, `BETWEEN` between them; text t is `codes[begins[t]:ends[t]]`."""

    codes: npt.NDArray[np.uint32]
    begins: Places
    ends: Places

    @classmethod
    def of(cls, texts: Sequence[str]) -> Flat:
        """Return the texts flat."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        ends = np.cumsum(lengths + len(BETWEEN)) - len(BETWEEN)
        return cls(codes_of(BETWEEN.join(texts)), ends - lengths, ends)


@dataclass(frozen=True, slots=True)
class TextBatch:
    """t texts of one document: their characters, the same in lower case, and their words as hashes.

    `lowered` are the texts in lower case. Words of text t are `words[word_starts[t]:word_starts[t + 1]]`.
    """

    lowered: tuple[str, ...]
    flat: Flat
    words: npt.NDArray[np.uint64]
    word_lengths: Places
    word_starts: Places

    @classmethod
    def of(cls, texts: Sequence[str]) -> TextBatch:
        """Tokenise texts."""
        lowered = tuple(text.lower() for text in texts)
        low = Flat.of(lowered)
        room = len(low.codes) // 2 + len(texts) + 1
        words, lengths = np.empty(room, np.uint64), np.empty(room, np.int64)
        starts = np.zeros(len(texts) + 1, np.int64)
        number = hash_words(low.codes, low.begins, low.ends, character_classes(), words, lengths, starts)
        return cls(lowered, Flat.of(texts), words[:number], lengths[:number], starts)

    def character_counts(self) -> Counts:
        """Count characters, lines and sentences: int32[t, columns of `CHARACTER_COUNTS`]."""
        counts = np.zeros((len(self.lowered), len(CHARACTER_COUNTS)), np.int32)
        count_blocks(self.flat.codes, self.flat.begins, self.flat.ends, character_classes(), counts)
        return counts

    def word_counts(self, lexicon: Lexicon, language: str | None) -> tuple[Counts, npt.NDArray[np.uint8]]:
        """Count words and those on lists (int32[t, columns of `WORD_COUNTS`]); and the bits of required words."""
        counts = np.zeros((len(self.lowered), len(WORD_COUNTS)), np.int32)
        required = np.zeros(len(self.lowered), np.uint8)
        table = lexicon.words_of(language)
        count_listed(self.words, self.word_lengths, self.word_starts, table.keys, table.bits, counts, required)
        return counts, required

    def common_counts(self, lexicon: Lexicon) -> Counts | None:
        """Count common words: int32[t]; None where the lexicon has no list of them."""
        if lexicon.common is None:
            return None
        counts = np.zeros(len(self.lowered), np.int32)
        count_common(self.words, self.word_starts, lexicon.common.keys, lexicon.common.bits, counts)
        return counts

    def boilerplate_counts(self) -> Counts:
        """Count phrases of `BOILERPLATE`: int32[t]."""
        page = BETWEEN.join(self.lowered)
        met = [phrase for phrase in BOILERPLATE if phrase in page]
        return np.array(
            [sum(map(text.count, met)) for text in self.lowered] if met else [0] * len(self.lowered), np.int32
        )

    def repetition_of_blocks(self) -> tuple[Shares, Shares, float]:
        """Return character repetition and word repetition of each block (float64[t]), and the page's of characters."""
        characters, words = np.zeros(len(self.lowered)), np.zeros(len(self.lowered))
        repeat_words_of_blocks(self.words, self.word_starts, words)
        page = repeat_characters(self.flat.codes, self.flat.begins, self.flat.ends, characters)
        return characters, words, page

    def repetition_of_page(self) -> dict[str, float]:
        """Return the shares of a whole page: those of `WORD_REPEATS` and `LINE_REPEATS`."""
        words, lines = np.zeros(len(WORD_REPEATS)), np.zeros(len(LINE_REPEATS))
        repeat_words(self.words, self.word_lengths, words)
        repeat_lines(self.flat.codes, self.flat.begins, self.flat.ends, character_classes(), lines)
        return dict(zip((*WORD_REPEATS, *LINE_REPEATS), (*words.tolist(), *lines.tolist()), strict=True))

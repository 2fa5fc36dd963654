"""Counts of characters, lines and sentences of text blocks: one pass over flat code points, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from carnac.curate.texts.characters import (
    BULLETS,
    CLOSING,
    DASHES,
    DIGIT,
    EDGE,
    FULL_STOPS,
    LETTER,
    LETTER_OR_MARK,
    LINE_ENDS,
    PUNCTUATION,
    SIGN,
    SPACE,
    TERMINALS,
    UPPERCASE,
    WORD,
)
from carnac.curate.texts.compiled import compiled

# The columns of what is counted, in order. A run is a stretch without white space; a piece is a stretch of letters,
# digits, underscores and straight apostrophes, the words of OBELICS's punctuation ratio.
CHARACTER_COUNTS = (
    "num_characters",
    "num_special_characters",
    "num_letters",
    "num_uppercase",
    "num_digits",
    "num_punctuation",
    "num_pieces",
    "num_runs",
    "num_symbols",
    "num_curly_brackets",
    "num_sentences",
    "num_lines",
    "num_bullet_lines",
    "num_ellipsis_lines",
    "num_terminal_lines",
    "num_short_lines",
)
SHORT_LINE = 30  # characters, of FineWeb (arXiv 2406.17557, section 3.6)

# Compiled functions take module constants for constants, not strings: signs are told by their numbers.
_PUNCTUATION = tuple(map(ord, PUNCTUATION))
_TERMINALS = tuple(map(ord, TERMINALS))
_FULL_STOPS = tuple(map(ord, FULL_STOPS))
_CLOSING = tuple(map(ord, CLOSING))
_LINE_ENDS = tuple(map(ord, LINE_ENDS))
_BULLETS = tuple(map(ord, BULLETS))
_DASHES = tuple(map(ord, DASHES))
_SYMBOLS, _BRACKETS = (ord("#"), ord("\u2026")), (ord("{"), ord("}"))
_NEWLINE, _APOSTROPHE, _FULL_STOP, _ELLIPSIS = ord("\n"), ord("'"), ord("."), ord("\u2026")

Codes = npt.NDArray[np.uint32]
Classes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]


@compiled("void(uint32[::1], int64, int64, uint8[::1], int32[::1])")
def _count_characters(codes: Codes, begin: int, end: int, classes: Classes, counts: npt.NDArray[Any]) -> None:
    """Count what single characters and their neighbours tell (the first ten columns)."""
    special = letters = uppercase = digits = punctuation = pieces = runs = symbols = brackets = 0
    in_run = in_piece = False
    num_dots = 0  # of the stretch of full stops that ends here
    for place in range(begin, end):
        code = codes[place]
        bits = classes[code]
        is_space = (bits & SPACE) != 0
        runs += not is_space and not in_run
        in_run = not is_space
        special += (bits & LETTER_OR_MARK) == 0
        letters += (bits & LETTER) != 0
        uppercase += (bits & UPPERCASE) != 0
        digits += (bits & DIGIT) != 0
        is_piece = (bits & WORD) != 0 or code == _APOSTROPHE
        pieces += is_piece and not in_piece
        in_piece = is_piece
        num_dots = num_dots + 1 if code == _FULL_STOP else 0
        if (bits & SIGN) != 0:
            punctuation += code in _PUNCTUATION
            symbols += code in _SYMBOLS or num_dots == 3
            brackets += code in _BRACKETS
    counts[0], counts[1], counts[2], counts[3], counts[4] = end - begin, special, letters, uppercase, digits
    counts[5], counts[6], counts[7], counts[8], counts[9] = punctuation, pieces, runs, symbols, brackets


@compiled("int64(uint32[::1], int64, int64, uint8[::1])")
def _count_sentences(codes: Codes, begin: int, end: int, classes: Classes) -> int:
    """Count sentences: stretches with a letter up to a terminal before white space, a full stop, or the line's end."""
    sentences = 0
    has_letter = is_ending = False
    for place in range(begin, end):
        code = codes[place]
        bits = classes[code]
        if (bits & EDGE) != 0:
            has_letter, is_ending = True, False
        elif (bits & SPACE) != 0:
            if has_letter and (is_ending or code == _NEWLINE):
                sentences += 1
                has_letter = False
            is_ending = False
        elif (bits & SIGN) != 0 and code in _FULL_STOPS:
            sentences += has_letter
            has_letter = False
        elif (bits & SIGN) != 0 and code in _TERMINALS:
            is_ending = True
        elif (bits & SIGN) == 0 or code not in _CLOSING:
            is_ending = False
    return sentences + has_letter


@compiled("void(uint32[::1], int64, int64, uint8[::1], int32[::1])")
def _count_line(codes: Codes, first: int, last: int, classes: Classes, counts: npt.NDArray[Any]) -> None:
    """Add a line, from its first to its last character that is no white space, to the last five columns."""
    counts[11] += 1
    is_dash = codes[first] in _DASHES and first < last and (classes[codes[first + 1]] & SPACE) != 0
    counts[12] += is_dash or codes[first] in _BULLETS
    is_dotted = last - first >= 2 and codes[last] == codes[last - 1] == codes[last - 2] == _FULL_STOP
    counts[13] += is_dotted or codes[last] == _ELLIPSIS
    counts[14] += codes[last] in _LINE_ENDS
    counts[15] += last - first < SHORT_LINE


@compiled("void(uint32[::1], int64[::1], int64[::1], uint8[::1], int32[:,::1])")
def count_blocks(codes: Codes, begins: Places, ends: Places, classes: Classes, counts: npt.NDArray[Any]) -> None:
    """Fill `counts` (int32[blocks, columns of `CHARACTER_COUNTS` at least]) for blocks `codes[begins:ends]`."""
    for block in range(len(begins)):
        begin, end, row = begins[block], ends[block], counts[block]
        _count_characters(codes, begin, end, classes, row)
        row[10] = _count_sentences(codes, begin, end, classes)
        first = last = -1
        for place in range(begin, end + 1):
            if place == end or codes[place] == _NEWLINE:
                if first >= 0:
                    _count_line(codes, first, last, classes, row)
                first = -1
            elif (classes[codes[place]] & SPACE) == 0:
                first = place if first < 0 else first
                last = place

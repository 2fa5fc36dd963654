"""What each Unicode character is, as bits: a table of 1.1 MB, made in 50 ms from Python's own tables."""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

SPACE = 1
EDGE = 2  # a word begins and ends with one: letters and numerals, but no decimal digit and no underscore
LETTER_OR_MARK = 4
LETTER = 8
UPPERCASE = 16
DIGIT = 32
WORD = 64  # `\w` of a regular expression
SIGN = 128  # one of those below

PUNCTUATION = ",;:?!."  # of OBELICS's ratio
TERMINALS = ".!?\u2026"  # end a sentence before white space
FULL_STOPS = "\u3002\uff01\uff1f\u0964"  # end one wherever they stand
CLOSING = "\"')]}\u2019\u201d\u00bb"  # may follow the end of a sentence
LINE_ENDS = (
    '.!?\u2026"\u201d\u00bb\u3002\uff01\uff1f\u0964\u061f'  # a full line ends with one (C4, with other scripts')
)
BULLETS = "\u2022\u2023\u25b6\u25c0\u25ba\u25e6\u25a0\u25a1\u25aa\u25ab\u25cf\u25cb\u2043\u00b7"
DASHES = "-*+\u2013"  # bullets too, where white space follows
SIGNS = frozenset(PUNCTUATION + TERMINALS + FULL_STOPS + CLOSING + LINE_ENDS + BULLETS + DASHES + "#{}'\n")

NUM_CODES = 0x110000
# Planes without marks are not asked, one by one, for their categories; a test holds this to Python's tables.
_PLANES_OF_MARKS = (range(0x20000), range(0xE0000, 0xE0200))


@cache
def character_classes() -> npt.NDArray[np.uint8]:
    """Return the bits of every code point: uint8[0x110000]."""
    characters = np.arange(NUM_CODES, dtype=np.uint32).view("<U1")
    letters = np.strings.isalpha(characters)
    digits = np.strings.isdecimal(characters)
    underscore = characters == "_"
    word = np.strings.isalnum(characters) | underscore
    classes: npt.NDArray[np.uint8] = (
        SPACE * np.strings.isspace(characters)
        | EDGE * (word & ~digits & ~underscore)
        | LETTER_OR_MARK * (letters | _marks())
        | LETTER * letters
        | UPPERCASE * (np.strings.isupper(characters) & letters)
        | DIGIT * digits
        | WORD * word
        | SIGN * np.isin(characters, list(SIGNS))
    ).astype(np.uint8)
    return classes


def _marks() -> npt.NDArray[np.bool_]:
    marks = np.zeros(NUM_CODES, np.bool_)
    for codes in _PLANES_OF_MARKS:
        marks[codes.start : codes.stop] = [unicodedata.category(chr(code))[0] == "M" for code in codes]
    return marks

"""A text as the language model of perplexity sees it: sentences of tokens, the same when it is trained and queried.

As CCNet prepares texts for KenLM (Wenzek et al. 2020, arXiv 1911.00359, section 4): lower case, every digit 0. Tokens
are words, and single punctuation marks, symbols, and characters of scripts that leave no space between words; so a
model needs no sentencepiece model beside it.
"""

from __future__ import annotations

import re

_DIGIT = re.compile(r"\d")
# Kana, ideographs and their compatibility forms, one by one; Hangul has spaces.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# The zero byte is white space to KenLM, and to Python it is not.
_TOKEN = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+|[^\w\s\x00]")


def split_sentences(text: str) -> list[str]:
    """Return the lines of `text` that hold anything, as tokens joined by spaces."""
    simple = _DIGIT.sub("0", text.lower().replace("\u2019", "'"))
    lines = (" ".join(_TOKEN.findall(line)) for line in simple.split("\n"))
    return [line for line in lines if line]

"""Documents measured by carnac and by the plain restatement of `bench/signals_plain.py`, value by value."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from signals_plain import Lists, measure_page

from carnac.core.document import Document
from carnac.curate.signals.measure import measure
from carnac.curate.texts.lexicon import Lexicon
from carnac.curate.texts.word_lists import languages_with, read_words
from carnac.curate.texts.words import WordTable

COMMON = ("the", "and", "stones", "of", "is", "image", "a", "to")
LEXICON = Lexicon(language="en", common=WordTable.of(dict.fromkeys(COMMON, 1)))


@cache
def lists_of(language: str) -> Lists:
    """Return the lists of a language, and the English ones that it lacks."""
    stop, flagged, spam = (
        frozenset(read_words(kind, language if language in languages_with(kind) else "en"))
        for kind in ("stop", "flagged", "spam")
    )
    return Lists(stop=stop, flagged=flagged, spam=spam, common=frozenset(COMMON))


def differences(document: Document) -> list[tuple[str, Any, Any]]:
    """Return (column, value, value of the restatement) wherever they differ by more than 1e-6."""
    texts = [text for text in document.texts if text is not None]
    measured = measure(document, LEXICON)
    blocks, page = measure_page(texts, lists_of(document.language or "en"))
    pairs: list[tuple[str, Any, Any]] = [(name, measured.plain[name], value) for name, value in page.items()]
    for name in blocks[0] if blocks else ():
        values: Sequence[Any] = measured.blocks[f"block_{name}"].tolist()
        pairs += [(name, value, block[name]) for value, block in zip(values, blocks, strict=True)]
    return [pair for pair in pairs if abs(pair[1] - pair[2]) > 1e-6]

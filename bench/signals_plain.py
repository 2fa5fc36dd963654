"""All signals of texts in plain Python: `bench/signals.py` holds carnac's speed against it, tests its values.

Each text is split into words once. Definitions are those of docs/03-signals.md, written for reading, with regular
expressions and `collections.Counter`; pinned: speed that is gained here is not to be had by changing it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

WORD = re.compile(r"[^\W\d_](?:\S*[^\W\d_])?")
PIECE = re.compile(r"[\w']+")
LETTER = re.compile(r"[^\W\d_]")
SENTENCE = re.compile(r"[\u3002\uff01\uff1f\u0964]|[.!?\u2026][.!?\u2026\"')\]}\u2019\u201d\u00bb]*(?=\s|$)|\n")
DASH = re.compile(r"[-*+\u2013]\s")
BULLETS = tuple("\u2022\u2023\u25b6\u25c0\u25ba\u25e6\u25a0\u25a1\u25aa\u25ab\u25cf\u25cb\u2043\u00b7")
LINE_ENDS = tuple('.!?\u2026"\u201d\u00bb\u3002\uff01\uff1f\u0964\u061f')
PUNCTUATION = frozenset(",;:?!.")
REQUIRED = ("the", "be", "to", "of", "and", "that", "have", "with")
PHRASES = (
    "lorem ipsum",
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Words that are counted; `common` is None where there is no list."""

    stop: Collection[str]
    flagged: Collection[str]
    spam: Collection[str]
    common: Collection[str] | None = None


def measure_page(texts: Sequence[str], lists: Lists) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return the columns of every text block, without `block_`, and those of the page."""
    words = [split_words(text) for text in texts]
    blocks = [measure_block(text, each, lists) for text, each in zip(texts, words, strict=True)]
    whole = [word for block in words for word in block]
    lines = [line.strip() for text in texts for line in text.split("\n") if line.strip()]
    paragraphs = [text.strip() for text in texts if text.strip()]
    page: dict[str, float] = {
        "character_repetition": character_repetition("\n\n".join(texts)),
        "word_repetition": word_repetition(whole),
        "unique_word_ratio": ratio(len(set(whole)), len(whole)),
    }
    for name, stretches in (("line", lines), ("paragraph", paragraphs)):
        page[f"duplicate_{name}_ratio"], page[f"duplicate_{name}_character_ratio"] = duplicates(stretches)
    for length in (2, 3, 4):
        page[f"top_{length}gram_character_ratio"] = top_ngram(whole, length)
    for length in (5, 6, 7, 8, 9, 10):
        page[f"duplicate_{length}gram_character_ratio"] = duplicate_ngrams(whole, length)
    return blocks, page


def split_words(text: str) -> list[str]:
    """Return the words of a text."""
    return WORD.findall(text.lower().replace("\u2019", "'"))


def measure_block(text: str, words: Sequence[str], lists: Lists) -> dict[str, Any]:
    """Return the columns of one text block."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    lower = text.lower()
    return {
        "num_words": len(words),
        "num_characters": len(text),
        "num_special_characters": sum(not c.isalpha() and unicodedata.category(c)[0] != "M" for c in text),
        "num_stop_words": sum(word in lists.stop for word in words),
        "num_flagged_words": sum(word in lists.flagged for word in words),
        "num_spam_words": sum(word in lists.spam for word in words),
        "num_common_words": None if lists.common is None else sum(word in lists.common for word in words),
        "num_word_characters": sum(map(len, words)),
        "num_letters": sum(c.isalpha() for c in text),
        "num_uppercase": sum(c.isupper() and c.isalpha() for c in text),
        "num_digits": sum(c.isdecimal() for c in text),
        "num_punctuation": sum(c in PUNCTUATION for c in text),
        "num_pieces": len(PIECE.findall(text)),
        "num_runs": len(text.split()),
        "num_symbols": text.count("#") + text.count("\u2026") + len(re.findall(r"\.{3,}", text)),
        "num_curly_brackets": text.count("{") + text.count("}"),
        "num_sentences": sum(LETTER.search(part) is not None for part in SENTENCE.split(text)),
        "num_lines": len(lines),
        "num_bullet_lines": sum(line.startswith(BULLETS) or DASH.match(line) is not None for line in lines),
        "num_ellipsis_lines": sum(line.endswith(("...", "\u2026")) for line in lines),
        "num_terminal_lines": sum(line.endswith(LINE_ENDS) for line in lines),
        "num_short_lines": sum(len(line) <= 30 for line in lines),
        "num_boilerplate_phrases": sum(lower.count(phrase) for phrase in PHRASES),
        "required_words": sum(1 << place for place, word in enumerate(REQUIRED) if word in words),
        "character_repetition": character_repetition(text),
        "word_repetition": word_repetition(words),
    }


def ratio(part: float, whole: float) -> float:
    """Return part / whole, 0 of nothing."""
    return part / whole if whole else 0.0


def character_repetition(text: str) -> float:
    """Return the share of the sqrt(n) commonest of n distinct character 10-grams, those that occur once excluded."""
    counts = Counter(text[start : start + 10] for start in range(len(text) - 9))
    top = min(math.isqrt(len(counts)), sum(count > 1 for count in counts.values()))
    return ratio(sum(sorted(counts.values(), reverse=True)[:top]), counts.total())


def ngrams(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    """Return the n-grams of words, in order."""
    return list(zip(*(words[offset:] for offset in range(length)), strict=False))


def word_repetition(words: Sequence[str]) -> float:
    """Return the share of word 5-grams that occur more than once."""
    counts = Counter(ngrams(words, 5))
    return ratio(sum(count for count in counts.values() if count > 1), counts.total())


def duplicates(stretches: Sequence[str]) -> tuple[float, float]:
    """Return the share of stretches that were there before, by number and by characters."""
    seen: set[str] = set()
    again = [stretch for stretch in stretches if stretch in seen or seen.add(stretch)]  # type: ignore[func-returns-value]
    return ratio(len(again), len(stretches)), ratio(sum(map(len, again)), sum(map(len, stretches)))


def top_ngram(words: Sequence[str], length: int) -> float:
    """Return the share of characters in the commonest n-gram; of equally common ones in the longest, then the first."""
    grams = ngrams(words, length)
    counts = Counter(grams)
    best = max(counts, key=lambda gram: (counts[gram], sum(map(len, gram))), default=())
    return covered(words, [start for start, gram in enumerate(grams) if gram == best and counts[gram] > 1], length)


def duplicate_ngrams(words: Sequence[str], length: int) -> float:
    """Return the share of characters in n-grams that occur more than once."""
    grams = ngrams(words, length)
    counts = Counter(grams)
    return covered(words, [start for start, gram in enumerate(grams) if counts[gram] > 1], length)


def covered(words: Sequence[str], starts: Sequence[int], length: int) -> float:
    """Return the share of the words' characters that lie in n-grams at `starts`, each counted once."""
    inside = {place for start in starts for place in range(start, start + length)}
    return ratio(sum(len(words[place]) for place in inside), sum(map(len, words)))

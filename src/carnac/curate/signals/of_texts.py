"""Signals of texts: of single blocks and of whole documents.

What adds up over blocks is stored as a count per block and summed over the kept ones; what does not is stored per page
and measured again over what is kept (`remeasured`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from carnac.curate.signals.frame import ratio
from carnac.curate.signals.signal import Column, Signal

if TYPE_CHECKING:
    from carnac.curate.signals.frame import Frame

Numbers = Callable[[str], Any]  # gives a stored column, of blocks or summed
_OBELICS = "OBELICS (arXiv 2306.16527), table 3"
_OBELICS_SPAM = "OBELICS (arXiv 2306.16527), build_obelics/13_final_processing.py"
_GOPHER = "Gopher (arXiv 2112.11446), table A1"
_GOPHER_QUALITY = "Gopher (arXiv 2112.11446), appendix A.1.1"
_C4 = "C4 (arXiv 1910.10683), section 2.2"
_FINEWEB = "FineWeb (arXiv 2406.17557), section 3.6"
_REDPAJAMA = "RedPajama-V2 (arXiv 2411.12372), quality signals"
_CCNET = "CCNet (arXiv 1911.00359)"
_OWN = "ours"

# Counts per block, in the order of the columns on disk; `measure.py` fills them from what `texts/batch.py` counts.
BLOCK_COUNTS = (
    "num_words",
    "num_characters",
    "num_special_characters",
    "num_stop_words",
    "num_flagged_words",
    "num_spam_words",
    "num_common_words",
    "num_word_characters",
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
    "num_boilerplate_phrases",
)
# Shares of a whole page, and what is told of each.
_REPEATED = {
    "character_repetition": ("share of the sqrt(n) commonest of n distinct character 10-grams", _OBELICS),
    "word_repetition": ("share of word 5-grams that occur more than once", _OBELICS),
    "unique_word_ratio": ("distinct words, as a share of all", _REDPAJAMA),
    "duplicate_line_ratio": ("share of lines that were there before", _GOPHER),
    "duplicate_line_character_ratio": ("share of characters in lines that were there before", _GOPHER),
    "duplicate_paragraph_ratio": ("share of text blocks that were there before", _GOPHER),
    "duplicate_paragraph_character_ratio": ("share of characters in text blocks that were there before", _GOPHER),
    **{
        f"top_{length}gram_character_ratio": (f"share of the words' characters in the commonest {length}-gram", _GOPHER)
        for length in (2, 3, 4)
    },
    **{
        f"duplicate_{length}gram_character_ratio": (
            f"share of the words' characters in word {length}-grams that occur more than once",
            _GOPHER,
        )
        for length in (5, 6, 7, 8, 9, 10)
    },
}

TEXT_COLUMNS = (
    Column(name="language", type=pa.string()),
    Column(name="language_score", type=pa.float32()),
    Column(name="num_characters", type=pa.int64()),
    *(Column(name=name, type=pa.float64(), remeasured=True) for name in _REPEATED),
    Column(name="text_digest", type=pa.uint64()),
    Column(name="url_digest", type=pa.uint64()),
    *(Column(name=f"block_{name}", type=pa.int32()) for name in BLOCK_COUNTS),
    Column(name="block_required_words", type=pa.uint8()),
    Column(name="block_character_repetition", type=pa.float64()),
    Column(name="block_word_repetition", type=pa.float64()),
    Column(name="block_log10_probability", type=pa.float64()),
    Column(name="block_num_scored_tokens", type=pa.int32()),
    Column(name="block_text_digest", type=pa.uint64()),
    Column(name="block_image_digest", type=pa.uint64()),
)
REMEASURED = tuple(_REPEATED)
_OPTIONAL = ("block_num_common_words", "block_log10_probability", "block_num_scored_tokens")


def _total(frame: Frame, column: str) -> Any:
    """Return the sums of a column over kept blocks; NaN where a kept text was measured without what it takes."""
    if column not in _OPTIONAL:
        return frame.total(column)
    unknown = frame.sum(frame.labels(column).is_null().to_numpy(zero_copy_only=False) & ~frame.is_image)
    return np.where(unknown > 0, np.nan, frame.total(column))


def _known_ratio(part: Any, whole: Any) -> Any:
    """Return part / whole: 0 where the whole is nothing, NaN where the part is not known."""
    return np.where(np.isnan(part), np.nan, ratio(part, whole))


def _on_both(text: Signal, value: Callable[[Frame], Any]) -> tuple[Signal, Signal]:
    """Return a signal of text blocks, and that of documents with its own value over kept blocks."""
    return text, replace(text, level="document", over="kept", value=value)


def _counted(name: str, unit: str, description: str, source: str) -> tuple[Signal, ...]:
    column = f"block_{name}"
    text = Signal(
        name=name,
        level="text",
        unit=unit,
        description=description,
        source=source,
        columns=(column,),
        value=lambda frame: frame.block(column),
        scale="log",
    )
    return _on_both(text, lambda frame: frame.total(column))


def _computed(
    name: str,
    unit: str,
    description: str,
    source: str,
    columns: tuple[str, ...],
    value: Callable[[Numbers], Any],
) -> tuple[Signal, ...]:
    """Return a signal that is computed alike from numbers of a block and from their sums over kept blocks."""
    text = Signal(
        name=name,
        level="text",
        unit=unit,
        description=description,
        source=source,
        columns=columns,
        value=lambda frame: value(frame.block),
        scale="linear" if unit == "ratio" else "log",
    )
    return _on_both(text, lambda frame: value(lambda column: _total(frame, column)))


def _share(name: str, part: str, whole: str, description: str, source: str, unit: str = "ratio") -> tuple[Signal, ...]:
    part, whole = f"block_{part}", f"block_{whole}"
    return _computed(
        name, unit, description, source, (part, whole), lambda numbers: _known_ratio(numbers(part), numbers(whole))
    )


def _punctuation_ratio(numbers: Numbers) -> Any:
    marks = numbers("block_num_punctuation")
    return ratio(marks, marks + numbers("block_num_pieces"))


def _num_tokens(numbers: Numbers) -> Any:
    return numbers("block_num_punctuation") + numbers("block_num_pieces")


def _perplexity(numbers: Numbers) -> Any:
    tokens = numbers("block_num_scored_tokens")
    mean = ratio(numbers("block_log10_probability"), tokens)
    return np.where(tokens > 0, np.power(10.0, np.minimum(-mean, 300)), np.nan)


def _num_required_words(frame: Frame) -> Any:
    met = np.nan_to_num(frame.block("block_required_words")).astype(np.uint8)
    return sum(frame.sum((met >> bit) & 1) > 0 for bit in range(8)) + np.zeros(frame.num_documents)


def _repetition(name: str) -> tuple[Signal, ...]:
    description, source = _REPEATED[name]
    column = f"block_{name}"
    text = Signal(
        name=name,
        level="text",
        unit="ratio",
        description=description,
        source=source,
        columns=(column,),
        value=lambda frame: frame.block(column),
    )
    page = replace(text, level="document", over="kept", columns=(name,), value=lambda frame: frame.document(name))
    return (text, page) if name in ("character_repetition", "word_repetition") else (page,)


_PUNCTUATION_COLUMNS = ("block_num_punctuation", "block_num_pieces")
TEXT_SIGNALS = (
    *_counted("num_words", "words", "runs without white space that hold a letter", _OBELICS),
    *_counted("num_characters", "characters", "characters, white space included", _OWN),
    *_share(
        "special_character_ratio",
        "num_special_characters",
        "num_characters",
        "share of characters that are neither letters nor marks; white space counts",
        _OBELICS,
    ),
    *_share("stop_word_ratio", "num_stop_words", "num_words", "share of words that are function words", _OBELICS),
    *_share("flagged_word_ratio", "num_flagged_words", "num_words", "share of words of pornographic pages", _OBELICS),
    *_share(
        "spam_word_ratio", "num_spam_words", "num_words", "share of words of prompts around an article", _OBELICS_SPAM
    ),
    *_share(
        "common_word_ratio",
        "num_common_words",
        "num_words",
        "share of words on the list `measure.common_words`; not known without one",
        _OBELICS,
    ),
    *_computed(
        "punctuation_ratio",
        "ratio",
        "share of , ; : ? ! . among these marks and stretches of letters, digits, _ and '",
        _OBELICS,
        _PUNCTUATION_COLUMNS,
        _punctuation_ratio,
    ),
    *_computed(
        "num_words_and_marks",
        "words and marks",
        "what `punctuation_ratio` is a share of",
        _OBELICS,
        _PUNCTUATION_COLUMNS,
        _num_tokens,
    ),
    *(signal for name in _REPEATED for signal in _repetition(name)),
    *_computed(
        "perplexity",
        "perplexity",
        "10 ** (-log10 p / tokens) by `measure.perplexity_model`; not known without one",
        _CCNET,
        ("block_log10_probability", "block_num_scored_tokens"),
        _perplexity,
    ),
    *_share(
        "mean_word_length", "num_word_characters", "num_words", "characters per word", _GOPHER_QUALITY, "characters"
    ),
    *_share("symbol_to_word_ratio", "num_symbols", "num_words", "hash signs and ellipses per word", _GOPHER_QUALITY),
    *_share(
        "alphabetic_word_ratio",
        "num_words",
        "num_runs",
        "share of runs without white space that hold a letter",
        _GOPHER_QUALITY,
    ),
    *_share("uppercase_ratio", "num_uppercase", "num_letters", "share of letters that are capitals", _REDPAJAMA),
    *_share("digit_ratio", "num_digits", "num_characters", "share of characters that are decimal digits", _REDPAJAMA),
    *_counted("num_sentences", "sentences", "sentences: to a full stop or its like, or to the line's end", _C4),
    *_counted("num_lines", "lines", "lines that are not empty", _C4),
    *_share(
        "bullet_line_ratio", "num_bullet_lines", "num_lines", "share of lines that begin with a bullet", _GOPHER_QUALITY
    ),
    *_share(
        "ellipsis_line_ratio",
        "num_ellipsis_lines",
        "num_lines",
        "share of lines that end with an ellipsis",
        _GOPHER_QUALITY,
    ),
    *_share(
        "terminal_punctuation_line_ratio",
        "num_terminal_lines",
        "num_lines",
        "share of lines that end with a full stop, a question or exclamation mark, an ellipsis or a closing quote",
        _FINEWEB,
    ),
    *_share("short_line_ratio", "num_short_lines", "num_lines", "share of lines of at most 30 characters", _FINEWEB),
    *_counted("num_curly_brackets", "brackets", "curly brackets", _C4),
    *_counted("num_boilerplate_phrases", "phrases", "lorem ipsum, javascript, and phrases of cookie notices", _C4),
    Signal(
        name="num_required_words",
        level="document",
        over="kept",
        unit="words",
        description="how many of: the, be, to, of, and, that, have, with",
        source=_GOPHER_QUALITY,
        columns=("block_required_words",),
        value=_num_required_words,
    ),
    Signal(
        name="num_text_blocks",
        level="document",
        over="kept",
        unit="blocks",
        description="text blocks",
        source=_OWN,
        columns=(),
        value=lambda frame: frame.sum(~frame.is_image),
        scale="log",
    ),
    Signal(
        name="language",
        level="document",
        over="page",
        unit="ISO 639",
        description="language of the page's text",
        source="fastText's lid.176, as the crawl measured it",
        columns=("language",),
        value=lambda frame: frame.labels("language"),
        is_label=True,
    ),
    Signal(
        name="language_score",
        level="document",
        over="page",
        unit="probability",
        description="how sure the language is",
        source=_OBELICS,
        columns=("language_score",),
        value=lambda frame: frame.document("language_score"),
    ),
)

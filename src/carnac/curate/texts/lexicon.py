"""Words and models that signals are taken with: lists by language, common words, a language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from carnac.core.errors import InputError
from carnac.curate.signals.settings import MeasureSettings
from carnac.curate.texts.split import split_words
from carnac.curate.texts.word_lists import REQUIRED_WORDS, languages_with, read_words
from carnac.curate.texts.words import FLAGGED, REQUIRED_SHIFT, SPAM, STOP, WordTable

if TYPE_CHECKING:
    from carnac.curate.perplexity.model import PerplexityModel

_BITS = MappingProxyType({"stop": STOP, "flagged": FLAGGED, "spam": SPAM})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """What texts are held against. `common` and `model` are None where none was given."""

    language: str = "en"
    common: WordTable | None = None
    model: PerplexityModel | None = None

    def words_of(self, language: str | None) -> WordTable:
        """Return the lists of a page's language; those of `self.language` where it is unknown or has no list."""
        return table_of_language(language or self.language, self.language)


@cache
def load_lexicon(settings: MeasureSettings) -> Lexicon:
    """Read what the settings name, once per process. Raises InputError when it cannot be read."""
    common = None if settings.common_words is None else read_common_words(settings.common_words)
    model = None
    if settings.perplexity_model is not None:
        from carnac.curate.perplexity.model import PerplexityModel

        model = PerplexityModel.load(settings.perplexity_model)
    return Lexicon(language=settings.language, common=common, model=model)


@cache
def table_of_language(language: str, otherwise: str) -> WordTable:
    """Return the words of the lists of a language with their bits; each list it lacks is that of `otherwise`."""
    bits = {word: 1 << (REQUIRED_SHIFT + number) for number, word in enumerate(REQUIRED_WORDS)}
    for kind, bit in _BITS.items():
        for word in read_words(kind, language if language in languages_with(kind) else otherwise):
            bits[word] = bits.get(word, 0) | bit
    return WordTable.of(bits)


def read_common_words(path: Path) -> WordTable:
    """Return the words of a file, one a line. Raises InputError when it cannot be read or holds none."""
    try:
        words: Mapping[str, int] = dict.fromkeys(
            (word for line in path.read_text("utf-8").splitlines() for word in split_words(line)), 1
        )
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(
            f"{path}: common words cannot be read ({reason}). Wanted a text file, one word a line."
        ) from None
    if not words:
        raise InputError(f"{path}: no word in it. Wanted a text file of common words, one a line.")
    return WordTable.of(words)

"""Settings of measuring: word lists and models that signals are taken with."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from carnac.curate.texts.word_lists import languages_with
from carnac.recipe.settings import Settings


class MeasureSettings(Settings):
    """Which words and models signals are taken with."""

    language: str = Field(
        default="en", description="Language of the word lists for pages whose language is unknown or has no list."
    )
    common_words: Path | None = Field(
        default=None, description="File of common words, one a line; without it `common_word_ratio` is not known."
    )
    perplexity_model: Path | None = Field(
        default=None, description="Language model in ARPA or KenLM form; without it `perplexity` is not known."
    )

    @field_validator("language")
    @classmethod
    def _has_lists(cls, language: str) -> str:
        if language not in languages_with("stop"):
            raise ValueError(f"no list of stop words for {language!r}: known are {', '.join(languages_with('stop'))}")
        return language

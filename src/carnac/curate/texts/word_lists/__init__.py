"""Lists of words by language, as files: `stop/de.txt`, `flagged/de.txt`, `spam/de.txt`. Each file names its source.

One word a line, as `carnac.curate.text.split_words` gives words; lines that begin with # are notes.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

Kind = Literal["stop", "flagged", "spam"]
# Gopher (arXiv 2112.11446), appendix A.1.1: a page of English prose has at least two of them.
REQUIRED_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


@cache
def languages_with(kind: Kind) -> tuple[str, ...]:
    """Return the languages (as ISO 639 names them) that have a list of a kind, sorted."""
    folder = files(__name__) / kind
    return tuple(sorted(file.name.removesuffix(".txt") for file in folder.iterdir() if file.name.endswith(".txt")))


@cache
def read_words(kind: Kind, language: str) -> tuple[str, ...]:
    """Return the words of a list; none where the language has no list of that kind."""
    if language not in languages_with(kind):
        return ()
    lines = (files(__name__) / kind / f"{language}.txt").read_text("utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))

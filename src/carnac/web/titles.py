"""What a page's <title>, metadata and headings call it -> the title of the article, without the site's name.

`Haar-like features - Examples - skimage docs` loses its end where there is evidence: a heading that says the same
without it, a site that names itself so, or an address that does. Without any, only marks that never stand inside a
title (`|`, `::`, a guillemet) may end one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_MAX_TITLES = 8
_MAX_CHARACTERS = 500  # longer ones are pages whose <title> was never closed
# Marks between a title and a site's name. A colon needs a space behind it only: "Site: Title".
_SEPARATOR = re.compile(
    r" (?:[|\u00a6\u2502\u00bb\u203a\u00ab\u2039\u2022\u00b7\u2013\u2014\\/><~-]|::|--+) | ?\| ?|: "
)
_SURE = re.compile(r"[|\u00a6\u2502\u00bb\u203a\u00ab\u2039\u2022]|::")
_MIN_WORDS = 2  # a rest of one word is more often the site's name than the title
_MARKS = re.compile(r"[\W_]+")
_PERMALINK = "\u00b6#\u00a7\U0001f517\u2693 "
_CUT = ("...", "\u2026")


@dataclass(frozen=True, slots=True, kw_only=True)
class TitleSources:
    """Where titles stand, each with white space collapsed; `site` is the name the site gives itself."""

    title: str | None = None
    metadata: Sequence[str] = ()  # the best first
    headings: Sequence[str] = ()  # h1, in order
    site: str | None = None


def choose_title(sources: TitleSources, url: str) -> str | None:
    """Return the title of the article: of metadata, else <title>, else the first heading."""
    host = _letters(url.partition("://")[2].partition("/")[0])
    headings = [heading.strip(_PERMALINK) for heading in sources.headings]
    stated = [
        text for text in (*sources.metadata[:_MAX_TITLES], sources.title) if text and len(text) <= _MAX_CHARACTERS
    ]
    whole = [text for text in stated if not text.endswith(_CUT)] or stated
    known = {letters for text in headings if (letters := _letters(text)) and not _is_site(letters, sources.site, host)}
    for text in whole:
        found = _matching_part(text, known)
        if found is not None:
            return found
    for text in whole:
        found = _without_site(text, sources.site, host)
        if not _is_site(_letters(found), sources.site, host):
            return found
    return next((text for text in (*whole, *headings) if text and len(text) <= _MAX_CHARACTERS), None)


def _matching_part(text: str, headings: set[str]) -> str | None:
    """Return the whole `text`, or its longest run of parts, that says what a heading says."""
    bounds = _bounds(text)
    runs = ((start, stop) for start, _ in bounds for _, stop in bounds if start < stop)
    for start, stop in sorted(runs, key=lambda run: run[0] - run[1]):
        if _letters(text[start:stop]) in headings:
            return text[start:stop]
    return None


def _bounds(text: str) -> list[tuple[int, int]]:
    """Return start and stop of each part of `text` between separators; of a text of many parts only the outer ones."""
    marks = [match.span() for match in _SEPARATOR.finditer(text)]
    if len(marks) > 8:  # runs of parts are quadratic in their number
        marks = [*marks[:4], *marks[-4:]]
    starts, stops = [0, *(stop for _, stop in marks)], [*(start for start, _ in marks), len(text)]
    return list(zip(starts, stops, strict=True))


def _without_site(text: str, site: str | None, host: str) -> str:
    """Take from the end, or the beginning, of `text` the parts that are the site's name."""
    while len(bounds := _bounds(text)) > 1:
        (_, first), (last, _) = bounds[0], bounds[-1]
        head, tail = text[: bounds[-2][1]], text[bounds[1][0] :]
        is_sure = _SURE.search(text[bounds[-2][1] : last]) is not None
        if _is_site(_letters(text[last:]), site, host):
            text = head
        elif _is_site(_letters(text[:first]), site, "" if text[first] == ":" else host):
            text = tail
        elif is_sure and len(head.split()) >= max(_MIN_WORDS, len(text[last:].split())):
            text = head
        else:
            break
    return text


def _is_site(letters: str, site: str | None, host: str) -> bool:
    """Say whether letters are those of the site's name, or of its address without what every address has."""
    if not letters:
        return False
    if site is not None and letters == _letters(site):
        return True
    return len(letters) >= 4 and letters in host


def _letters(text: str) -> str:
    """Return what is said without case, marks and white space."""
    return _MARKS.sub("", text.casefold())

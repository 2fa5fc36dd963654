"""What the class, id and role of an element say about it, before any look at its text.

The words are those that page templates share; Arc90's readability collected the first of them in 2009, and every
extractor since has kept such lists. A word in a name is a hint, not a proof: `main_content` weighs it against the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

UNLIKELY, LIKELY, GOOD, BAD, BYLINE, SHARE, COMMENTS, HID = (1 << bit for bit in range(8))
_LISTS = {
    UNLIKELY: "-ad- ad-break agegate ai2html banner breadcrumb combx comment community cookie cover-wrap disqus extra"
    " footer gdpr header legends menu newsletter pager pagination popup related remark replies rss shoutbox sidebar"
    " skyscraper social sponsor subscri supplemental yom-remote",
    LIKELY: "and article body column content main mathjax shadow",
    GOOD: "article blog body content entry main page post story text",
    BAD: "-ad- banner combx com- comment contact foot gdpr hidden masthead media meta outbrain promo related scroll"
    " share shopping shoutbox sidebar skyscraper sponsor tags tool widget",
    BYLINE: "author byline dateline writtenby",
    SHARE: "share",
    COMMENTS: "comment disqus replies",
    HID: "hid",
}
_MAX_NAME = 1000  # characters: more than any template writes
NAME_WEIGHT = 25  # of a class, and of an id: as much as two long paragraphs
_SHARE_WORD = re.compile(r"(?:\b|_)share(?:daddy)?(?:\b|_)")
_HID_WORD = re.compile(r"\bhid\b")


class Names(NamedTuple):
    """Hints of an element's class and id. `weight` is the sum of 25 for each that is good, -25 for each that is bad."""

    classes: str
    weight: int
    is_unlikely: bool
    is_byline: bool
    is_share: bool
    is_comments: bool


NO_NAMES = Names("", 0, is_unlikely=False, is_byline=False, is_share=False, is_comments=False)


@lru_cache(maxsize=8192)  # names repeat: a page of 1,000 elements has some 100
def read_names(classes: str | None, identity: str | None) -> Names:
    """Return what a class and an id say."""
    one, other = _hints(classes), _hints(identity)
    both = one | other
    if not both:
        return Names(classes or "", 0, is_unlikely=False, is_byline=False, is_share=False, is_comments=False)
    is_unlikely = both & (UNLIKELY | LIKELY) == UNLIKELY
    return Names(
        classes=classes or "",
        weight=NAME_WEIGHT * (_is(one, GOOD) - _is(one, BAD) + _is(other, GOOD) - _is(other, BAD)),
        is_unlikely=is_unlikely,
        is_byline=_is(both, BYLINE),
        is_share=_is(both, SHARE) and _SHARE_WORD.search(f"{classes} {identity}".lower()) is not None,
        is_comments=is_unlikely and _is(both, COMMENTS),
    )


def _is(hints: int, hint: int) -> bool:
    return hints & hint != 0


def _hints(name: str | None) -> int:
    if not name:
        return 0
    name = name[:_MAX_NAME].lower()
    hints = 0
    for found in _WORD.finditer(name):
        hints |= _WORDS[found[0]]
    if hints & HID and _HID_WORD.search(name):
        hints |= BAD
    if "footnote" in name and "foot" not in name.replace("footnote", ""):
        return _hints(name.replace("footnote", ""))
    return hints


def _words() -> dict[str, int]:
    hints: dict[str, int] = {}
    for hint, words in _LISTS.items():
        for word in words.split():
            hints[word] = hints.get(word, 0) | hint
    # A word that begins with another one stands for both: only the longest is found at a place.
    return {
        word: sum(bit for bit in _LISTS if any(word.startswith(one) and hints[one] & bit for one in hints))
        for word in hints
    }


def _tree(words: Iterable[str]) -> str:
    """Return a pattern of any of `words`, the longest first, in which common beginnings are tried once."""
    heads: dict[str, list[str]] = {}
    for word in words:
        heads.setdefault(word[:1], []).append(word[1:])
    branches = [re.escape(head) + _tree(rest) for head, rest in heads.items() if head]
    if not branches:
        return ""
    pattern = f"(?:{'|'.join(branches)})" if len(branches) > 1 or "" in heads else branches[0]
    return f"{pattern}?" if "" in heads else pattern


_WORDS = _words()
_WORD = re.compile(_tree(sorted(_WORDS)))

"""How well the texts and pictures that a method found agree with a page's known main content.

text F1: of the multisets of lower-case words. image F1: of the sets of image URLs, over pages that have any, wanted or
found. placed: of the wanted images that were found, over all pages, the share that stands where it should: the share
of the page's words before it differs by at most 0.05.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from extraction.methods import Item, Method, items_of_html
from extraction.pages import Page

MAX_SHIFT = 0.05  # of the page's words
_WORD = re.compile(r"\w+")
_SCHEME = re.compile(r"^https?://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Scores of a method over `num_pages` pages; None where it gives no images, or none of the wanted."""

    num_pages: int
    text_f1: float
    image_f1: float | None
    placed: float | None


@dataclass(frozen=True, slots=True)
class _Profile:
    words: Counter[str]
    places: dict[str, float]  # image URL: share of the words before it


def score(method: Method, pages: Sequence[Page]) -> Quality | None:
    """Return the scores of a method on those of `pages` whose main content is known."""
    known = [page for page in pages if page.expected is not None]
    if method.items_of is None or not known:
        return None
    text_f1s, image_f1s, shifts = [], [], []
    for page in known:
        wanted = _profile(items_of_html(page.expected or b"", page.url))
        got = _profile(_items(method, page))
        text_f1s.append(_f1((wanted.words & got.words).total(), got.words.total(), wanted.words.total()))
        found = wanted.places.keys() & got.places.keys()
        if wanted.places or got.places:
            image_f1s.append(_f1(len(found), len(got.places), len(wanted.places)))
        shifts += [abs(wanted.places[url] - got.places[url]) for url in found]
    return Quality(
        num_pages=len(known),
        text_f1=_mean(text_f1s),
        image_f1=_mean(image_f1s) if method.gives_images and image_f1s else None,
        placed=_mean([shift <= MAX_SHIFT for shift in shifts]) if method.gives_images and shifts else None,
    )


def _items(method: Method, page: Page) -> list[Item]:
    assert method.items_of is not None
    try:
        return method.items_of(method.run(page), page)
    except Exception:  # noqa: BLE001 -- whatever a library raises: it found nothing
        return []


def _profile(items: Iterable[Item]) -> _Profile:
    words: list[str] = []
    before: dict[str, int] = {}
    for kind, value in items:
        if kind == "text":
            words += _WORD.findall(value.lower())
        else:
            before.setdefault(_SCHEME.sub("", value).partition("#")[0], len(words))
    return _Profile(Counter(words), {url: number / max(1, len(words)) for url, number in before.items()})


def _f1(num_right: int, num_found: int, num_wanted: int) -> float:
    return 2 * num_right / (num_found + num_wanted) if num_found + num_wanted else 1.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

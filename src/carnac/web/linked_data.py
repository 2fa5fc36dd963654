"""The JSON-LD of a page (schema.org) -> what it says of the page itself, not of its comments, pictures, neighbours."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

_MAX_CHARACTERS = 1_000_000  # of all scripts of a page together
_MAX_OBJECTS = 1000
_MAX_NAMES = 50
_DECODER = json.JSONDecoder(strict=False)  # line breaks inside strings are common
# Endings of the types that a page can be: NewsArticle, BlogPosting; else Recipe, Report; else WebPage.
_ARTICLES = ("article", "posting")
_WORKS = ("report", "recipe", "howto", "review", "creativework", "guide", "resource", "question", "book", "dataset")
_PAGE = "page"
# What holds the page's own object, one level down.
_HOLDERS = ("@graph", "mainEntity", "mainEntityOfPage")

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedData:
    """What JSON-LD says of the page: texts as they stand, none of them checked."""

    headline: str | None = None
    published: tuple[str, ...] = ()
    authors: tuple[str, ...] = ()
    site: str | None = None
    publisher: str | None = None
    licences: tuple[str, ...] = ()


def read_linked_data(scripts: Sequence[str], addresses: Collection[str] = ()) -> LinkedData:
    """Read the texts of `<script type="application/ld+json">` elements; whatever is no JSON is passed over.

    The page's object is its only article, or the one that is at one of the page's `addresses`; else its WebPage.
    """
    objects = list(islice(_objects(scripts), _MAX_OBJECTS)) if scripts else []
    if not objects:
        return LinkedData()
    named = {item["@id"]: item for item in objects if isinstance(item.get("@id"), str) and len(item) > 1}
    article = _article(objects, addresses)
    page = next((item for item in objects if _is_a(item, _PAGE)), None)
    site = next((item for item in objects if _is_a(item, "website")), None)
    found = [item for item in (article, page) if item is not None]
    authors = (tuple(_names(item.get("author") or item.get("creator"), named)) for item in found)
    return LinkedData(
        headline=None if article is None else next(_texts(article.get("headline") or article.get("name")), None),
        published=tuple(text for item in found for text in _texts(item.get("datePublished"))),
        authors=next((names for names in authors if names), ()),
        site=None if site is None else next(_texts(site.get("name")), None),
        publisher=next((name for item in found for name in _names(item.get("publisher"), named)), None),
        licences=next((urls for item in found if (urls := tuple(_urls(item.get("license"))))), ()),
    )


def _objects(scripts: Sequence[str]) -> Iterator[Object]:
    """Yield the objects at the top of the scripts, in `@graph`, and those a page names as its main one."""
    num_characters = 0
    for script in scripts:
        num_characters += len(script)
        if num_characters > _MAX_CHARACTERS:
            return
        waiting = [_decode(script)]
        while waiting:
            item = waiting.pop()
            if isinstance(item, list):
                waiting += reversed(item)
            elif isinstance(item, dict):
                yield item
                waiting += [item[name] for name in reversed(_HOLDERS) if name in item]


def _decode(script: str) -> Any:
    """Return the first JSON value of a script, behind whatever comment or CDATA mark stands before it."""
    script = script.replace("<![CDATA[", "")
    starts = [place for place in (script.find("{"), script.find("[")) if place >= 0]
    try:
        return _DECODER.raw_decode(script, min(starts))[0] if starts else None
    except (ValueError, RecursionError):  # nested deeper than the interpreter's stack: no page of a person
        return None


def is_article(kind: str) -> bool:
    """Say whether a type of schema.org, with or without its address, is that of an article."""
    return kind.strip().lower().endswith(_ARTICLES)


def is_page(kind: str) -> bool:
    """Say whether a type of schema.org is that of another kind of page."""
    return kind.strip().lower().endswith((*_WORKS, _PAGE))


def _is_a(item: Object, endings: str | tuple[str, ...]) -> bool:
    return any(name.lower().endswith(endings) for name in _texts(item.get("@type")))


def _article(objects: list[Object], addresses: Collection[str]) -> Object | None:
    """Return the article that the page is; None if there are several and no address tells."""
    articles = [item for item in objects if _is_a(item, _ARTICLES)] or [item for item in objects if _is_a(item, _WORKS)]
    if len(articles) <= 1:
        return articles[0] if articles else None
    for item in articles:
        places = (item.get("@id"), item.get("url"), item.get("mainEntityOfPage"))
        if any(url.partition("#")[0] in addresses for place in places for url in _urls(place)):
            return item
    headlines = {text for item in articles for text in islice(_texts(item.get("headline")), 1)}
    return articles[0] if len(headlines) == 1 else None


def _texts(value: Any) -> Iterator[str]:
    """Yield a string, or those of a list of strings."""
    for item in islice(value, _MAX_NAMES) if isinstance(value, list) else (value,):
        text = item.get("@value") if isinstance(item, dict) else item
        if isinstance(text, str) and text.strip():
            yield text


def _names(value: Any, named: Mapping[str, Object]) -> Iterator[str]:
    """Yield the names of persons or organisations: strings, objects with a name, or references to such."""
    for item in islice(value, _MAX_NAMES) if isinstance(value, list) else (value,):
        if isinstance(item, dict):
            reference = item.get("@id")
            known = named.get(reference, item) if isinstance(reference, str) else item
            yield from _texts(item.get("name") or known.get("name"))
        else:
            yield from _texts(item)


def _urls(value: Any) -> Iterator[str]:
    """Yield a URL: a string, or the address of an object."""
    for item in islice(value, _MAX_NAMES) if isinstance(value, list) else (value,):
        if isinstance(item, dict):
            yield from _texts(item.get("@id") or item.get("url"))
        else:
            yield from _texts(item)

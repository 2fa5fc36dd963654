"""The elements of a page with `itemprop` -> what its one article says of itself (schema.org in HTML microdata)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from selectolax.lexbor import LexborNode

from carnac.web.linked_data import is_article, is_page
from carnac.web.sources import Attributes

_NAMES = frozenset(("datepublished", "author", "creator", "license", "headline", "name"))
_MAX_PROPERTIES = 300
_MAX_LEVELS = 25  # from a property up to its item: no real page needs 20, and a bound keeps it linear
_MAX_NODES = 50  # of a property's text: a name is one or two, an element that was never closed is the whole page


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Properties of the page's own item: texts as they stand."""

    headline: str | None = None
    published: tuple[str, ...] = ()
    authors: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()


def nearest(node: LexborNode, is_it: Callable[[LexborNode], bool]) -> LexborNode | None:
    """Return the nearest element above `node` for which `is_it` holds, at most `_MAX_LEVELS` up."""
    above = node.parent
    for _ in range(_MAX_LEVELS):
        if above is None or is_it(above):
            return above
        above = above.parent
    return None


def page_item(properties: Iterable[tuple[LexborNode, Attributes]]) -> Item:
    """Return what the page's only article says, or its only WebPage; nothing if there are several: a list of articles.

    Properties of what lies inside it (a comment, a picture, a publisher) are not its own.
    """
    items: dict[int, tuple[str, dict[str, list[str]]]] = {}
    num_properties = 0
    for node, attributes in properties:
        for name in (attributes.get("itemprop") or "").lower().split():
            if name not in _NAMES or num_properties >= _MAX_PROPERTIES:
                continue
            num_properties += 1
            owner = nearest(node, _is_item)
            if owner is not None:
                _, values = items.setdefault(owner.mem_id, (owner.attributes.get("itemtype") or "", {}))
                values.setdefault(name, []).append(_value(node, attributes))
    for is_wanted in (is_article, is_page):
        found = [values for kind, values in items.values() if is_wanted(kind)]
        if found:
            return _item(found[0]) if len(found) == 1 else Item()
    return Item()


def _is_item(node: LexborNode) -> bool:
    return "itemscope" in node.attributes


def _item(values: dict[str, list[str]]) -> Item:
    return Item(
        headline=next(iter(values.get("headline", ())), None),
        published=tuple(values.get("datepublished", ())),
        authors=tuple(values.get("author") or values.get("creator") or ()),
        licences=tuple(values.get("license", ())),
    )


def _value(node: LexborNode, attributes: Attributes) -> str:
    """Return the value of a property; of a person inside it the name."""
    if "itemscope" in attributes:
        for below in islice(node.traverse(), 1, _MAX_NODES):
            if "name" in (below.attributes.get("itemprop") or "").split():
                node, attributes = below, below.attributes
                break
    for key in ("content", "datetime", "href"):
        if value := attributes.get(key):
            return value
    texts = islice(node.traverse(include_text=True), _MAX_NODES)
    return "".join(text.text_content or "" for text in texts if text.is_text_node)

"""An outline -> the elements that hold the article, and in them what is dropped.

After Arc90's readability, as Mozilla's Readability.js has refined it: paragraphs credit the elements around them, the
best element and its like siblings are the article, and what in it has the shape of a list of links, a form or a banner
is dropped. Where too little is left, it is tried again with less strictness.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from heapq import nlargest

from carnac.web.blocks import LINE_BREAK
from carnac.web.outline import (
    COMMAS,
    FIGURES,
    HEADINGS,
    INPUTS,
    ITEMS,
    LINKED,
    PARAGRAPHS,
    PICTURES,
    TEXT,
    VIDEOS,
    Element,
    Outline,
)

MIN_CAPTION = 25  # characters
NUM_CANDIDATES = 5
MIN_ALTERNATIVES = 3
_TAG_POINTS = {
    "div": 5,
    **dict.fromkeys(("pre", "td", "blockquote"), 3),
    **dict.fromkeys(("address", "ol", "ul", "dl", "dd", "dt", "li", "form"), -3),
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6", "th"), -5),
}
_CONDITIONAL = frozenset(("form", "fieldset", "table", "ul", "div"))
_CHECKED = _CONDITIONAL | {"aside", "footer", "h1", "h2"}
_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f\u061f\u06d4\u0964][\"'\u201d\u2019\u00bb)\s]*$")
_MAX_SHARE_TEXT = 500  # characters of an element named after sharing; more is an article about it


def find_article(outline: Outline, *, weigh: bool, clean: bool, comments: bool) -> tuple[list[Element], float]:
    """Return the elements that hold the article of a page, in document order, and how many characters they keep.

    What is none inside them is marked `is_dropped`. `weigh`: names count. `clean`: what has the shape of boilerplate is
    dropped. `comments`: those of readers belong to it.
    """
    root = outline.elements[0]
    outline.is_cut = True
    top = _choose(outline, weigh=weigh)
    chosen = [root] if top is root else list(_with_siblings(outline, top, weigh=weigh))
    for element in chosen:
        _drop_boilerplate(outline, element, weigh=weigh, clean=clean)
    length = sum(element.count(TEXT) for element in chosen)
    if comments:
        chosen = sorted([*chosen, *_comments_outside(outline, chosen)], key=lambda element: element.begin)
    return chosen, length


def clean_all(outline: Outline) -> tuple[list[Element], float]:
    """Return the root, without what has the shape of boilerplate in it, and how many characters it keeps."""
    root = outline.elements[0]
    outline.is_cut = True
    _drop_boilerplate(outline, root, weigh=True, clean=True)
    return [root], root.count(TEXT)


def _comments_outside(outline: Outline, chosen: Sequence[Element]) -> Iterator[Element]:
    """Yield the outermost elements of comments that are in none of `chosen`."""
    ends = 0
    for element in outline.elements[1:]:
        if element.index < ends:
            continue
        if element in chosen:
            ends = element.last
        elif element.names.is_comments and not any(element.begin < one.begin < element.end for one in chosen):
            ends = element.last
            yield element


def _score(element: Element, *, weigh: bool) -> float:
    base = element.points + _TAG_POINTS.get(element.tag, 0) + (element.names.weight if weigh else 0)
    return base * (1.0 - element.link_density)


def _choose(outline: Outline, *, weigh: bool) -> Element:
    """Return the element that holds most of the article."""
    root = outline.elements[0]
    credited = [element for element in outline.elements if element.is_credited]
    scores = {id(element): _score(element, weigh=weigh) for element in credited}
    best = nlargest(NUM_CANDIDATES, credited, key=lambda one: scores[id(one)])
    if not best:
        return root
    top = _shared_ancestor(best, scores)
    top = _climb(top, scores)
    parent = top.parent
    while parent is not None and parent is not root and parent.children == 1:
        top, parent = parent, parent.parent
    return top


def _shared_ancestor(best: Sequence[Element], scores: dict[int, float]) -> Element:
    """Return the best candidate, or what holds it and two more that are almost as good."""
    top = best[0]
    least = 0.75 * scores[id(top)]
    others = [set(map(id, _ancestors(one))) for one in best[1:] if scores[id(one)] >= least]
    if len(others) < MIN_ALTERNATIVES:
        return top
    for ancestor in _ancestors(top):
        if ancestor.parent is None:
            break
        if sum(id(ancestor) in held for held in others) >= MIN_ALTERNATIVES:
            return ancestor
    return top


def _ancestors(element: Element) -> Iterator[Element]:
    at = element.parent
    while at is not None:
        yield at
        at = at.parent


def _climb(top: Element, scores: dict[int, float]) -> Element:
    """Return an ancestor that scores more: the article's paragraphs lie in several elements of it."""
    if id(top) not in scores:
        return top
    last = scores[id(top)]
    least = last / 3
    for ancestor in _ancestors(top):
        if ancestor.parent is None:
            break
        score = scores.get(id(ancestor))
        if score is None:
            continue
        if score < least:
            break
        if score > last:
            return ancestor
        last = score
    return top


def _with_siblings(outline: Outline, top: Element, *, weigh: bool) -> Iterator[Element]:
    """Yield `top` and those of its siblings that look like a part of the same article."""
    parent = top.parent
    assert parent is not None
    top_score = _score(top, weigh=weigh)
    least = max(10.0, 0.2 * top_score)
    at = parent.index + 1
    while at < parent.last:
        sibling = outline.elements[at]
        at = sibling.last
        if sibling is top:
            yield sibling
            continue
        is_like = bool(top.names.classes) and sibling.names.classes == top.names.classes
        bonus = 0.2 * top_score if is_like else 0.0
        if (
            (sibling.is_credited and _score(sibling, weigh=weigh) + bonus >= least)
            or (sibling.is_paragraph and _is_prose(outline, sibling))
            or (sibling.index < top.index and _is_lead(sibling))
        ):
            yield sibling


def _is_lead(element: Element) -> bool:
    """Say whether an element is the picture above an article."""
    return element.tag == "figure" and element.count(PICTURES) > 0 and not element.count(LINKED)


def _is_prose(outline: Outline, element: Element) -> bool:
    length, density = element.count(TEXT), element.link_density
    if length > 80:
        return density < 0.25
    return length > 0 and density == 0 and _SENTENCE_END.search(_text_of(outline, element)) is not None


def _text_of(outline: Outline, element: Element) -> str:
    events = outline.events[element.begin : element.end]
    return " ".join(event.replace(LINE_BREAK, " ") for event in events if isinstance(event, str))


def _drop_boilerplate(outline: Outline, chosen: Element, *, weigh: bool, clean: bool) -> None:
    """Mark what in `chosen` is dropped; the innermost first, since what it leaves decides about what is around it."""
    for element in reversed(outline.elements[chosen.index + 1 : chosen.last]):
        parent = element.parent
        assert parent is not None
        removed = element.removed
        if (element.tag in _CHECKED or element.names.is_share) and _is_boilerplate(element, weigh=weigh, clean=clean):
            element.is_dropped = True
            removed = element.whole()
        if removed is not None:
            known = parent.removed
            parent.removed = removed if known is None else [a + b for a, b in zip(known, removed, strict=True)]


def _is_boilerplate(element: Element, *, weigh: bool, clean: bool) -> bool:
    tag, names = element.tag, element.names
    if tag in ("footer", "aside"):
        return "footnote" not in names.classes
    if names.is_share and element.count(TEXT) < _MAX_SHARE_TEXT:
        return True
    if tag in ("h1", "h2"):
        return weigh and names.weight < 0
    return clean and tag in _CONDITIONAL and not element.is_paragraph and _is_fishy(element, weigh=weigh)


def _is_fishy(element: Element, *, weigh: bool) -> bool:
    """Say whether an element has the shape of something else than an article's text."""
    weight = element.names.weight if weigh else 0
    if weight >= 0 and (element.count(COMMAS) >= 10 or element.count(VIDEOS)):
        return False
    length, density = element.count(TEXT), element.link_density
    paragraphs, pictures = element.count(PARAGRAPHS), element.count(PICTURES)
    figures = element.count(FIGURES)
    # A gallery of figures with captions and without links is content; with links, it leads to other pages.
    is_gallery = not element.count(LINKED) and length >= MIN_CAPTION * figures
    loose = pictures - figures if is_gallery else pictures
    is_list = element.tag == "ul"
    if not (
        weight < 0
        or element.count(INPUTS) > paragraphs // 3
        or (weight >= 25 and density > 0.5)
        or (not pictures and not length)
        or (loose > 1 and paragraphs < 0.5 * loose and not _is_within(element, ("figure",)))
        or (not is_list and _is_no_text(element, weight, length, density))
    ):
        return False
    if is_list and pictures and pictures == element.count(ITEMS):
        return False
    return not (element.is_data_table or _is_within(element, ("table", "pre")))


def _is_no_text(element: Element, weight: float, length: float, density: float) -> bool:
    if weight < 25 and density > 0.2:
        return True
    if element.count(ITEMS) - 100 > element.count(PARAGRAPHS):
        return True
    if length >= 25 or not density or element.count(HEADINGS) >= 0.9 * length:
        return False
    return element.count(PICTURES) not in (1, 2) and not _is_within(element, ("figure",))


def _is_within(element: Element, tags: Sequence[str]) -> bool:
    """Say whether an element lies in a figure, a listing or a table of data."""
    if not element.is_inside:
        return False
    return any(
        ancestor.tag in tags and (ancestor.tag != "table" or ancestor.is_data_table) for ancestor in _ancestors(element)
    )

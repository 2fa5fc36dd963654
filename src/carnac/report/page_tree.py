"""What a page was read from, for the eyes: its outline as lines to draw, each marked with what became of it.

Flow in: the reading of a page and its tree. Flow out: `Line`s in reading order. What the walk passes over is in no
outline: the walk that made it is done again, and asked for it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from selectolax.lexbor import LexborHTMLParser, LexborNode

from carnac.report.layout import flat
from carnac.web.article import Reading, page_facts
from carnac.web.blocks import LINE_BREAK, Block
from carnac.web.elements import is_hidden
from carnac.web.main_content import clean_all, find_article
from carnac.web.names import NO_NAMES, read_names
from carnac.web.outline import (
    COMMAS,
    HEADINGS,
    INPUTS,
    ITEMS,
    PARAGRAPHS,
    PICTURES,
    TEXT,
    VIDEOS,
    Element,
    Outline,
    PageFacts,
    build_blocks,
)
from carnac.web.settings import ExtractSettings
from carnac.web.tags import LEAF, NEVER, WALK_ROLES
from carnac.web.walk import Walk

State = Literal["kept", "around", "not chosen", "dropped", "passed over"]
PassedOver = Sequence[tuple[int, LexborNode]]

MAX_LINES = 8000  # of a page drawn: browsers take a second for so many
MAX_NESTED = 60  # elements in one another that fold; what lies deeper is drawn flat
MAX_TEXT = 160  # characters
_STRICTNESS = {
    (True, True): "Judged by names and by shape.",
    (False, True): "Judged by shape; names did not count.",
    (False, False): "Judged neither by names nor by shape.",
}
_NEVER_NAMED = ("a", "h2", "h3", "h4", "h5", "h6")  # the walk passes over these whatever their names
_PROGRAMS = ("script", "style", "template")  # nobody looks for a lost text there
_OWN_REASONS = {
    **dict.fromkeys(("h1", "h2"), "repeats the title"),
    **dict.fromkeys(("header", "footer"), "the page's, not the article's"),
    "a": "a permalink",
}
_COUNTED = {"commas": COMMAS, "paragraphs": PARAGRAPHS, "pictures": PICTURES, "items": ITEMS, "inputs": INPUTS,
            "characters in headings": HEADINGS, "videos": VIDEOS}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the tree: an element, a text or a picture in it, or the `end` of an element that `folds`.

    `label` is the element's tag and class, `why` the numbers that decided.
    """

    state: State
    label: str = ""
    text: str = ""
    why: str = ""
    folds: bool = False
    is_end: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTree:
    """`how` says in a sentence where the article was looked for, and how strictly; `num_more` lines are not drawn."""

    how: str
    lines: Sequence[Line]
    num_more: int


def page_tree(parser: LexborHTMLParser, url: str, reading: Reading, settings: ExtractSettings) -> PageTree | None:
    """Return the tree of a reading; None where it was taken from no outline."""
    outline = reading.outline
    if outline is None:
        return None
    strictness = _mark_again(outline, reading, settings)
    where, passed_over = _walk_again(parser, url, reading, outline, settings)
    chosen = reading.elements or outline.elements[:1]
    lines = list(_Drawing(outline, chosen, passed_over).lines())
    shown = _closed(lines[:MAX_LINES])
    how = f"{where} {strictness} Its text: {outline.elements[0].whole()[TEXT]:,.0f} characters"
    if reading.length >= 0:
        kept = sum(element.count(TEXT) for element in chosen)
        how += f"; kept: {kept:,.0f}, in {len(chosen)} element{'s' if len(chosen) > 1 else ''}"
    return PageTree(how=f"{how}.", lines=shown, num_more=max(0, len(lines) - MAX_LINES))


def _closed(lines: Sequence[Line]) -> list[Line]:
    """Return lines with an end for each element that folds."""
    num_open = sum(line.folds - line.is_end for line in lines)
    return [*lines, *[Line(state="around", is_end=True)] * num_open]


def _mark_again(outline: Outline, reading: Reading, settings: ExtractSettings) -> str:
    """Mark what was dropped as the reading had it: later tries may have left other marks. Return how strict it was."""
    chosen = list(map(id, reading.elements))
    num_trimmed = sum(block.flaw is None for _, block in reading.dropped)

    def is_it(elements: Sequence[Element]) -> bool:
        num_blocks = len(build_blocks(outline, elements))
        return list(map(id, elements)) == chosen and num_blocks == len(reading.blocks) + num_trimmed

    for (weigh, clean), how in _STRICTNESS.items() if reading.length >= 0 else ():
        outline.restore()
        if is_it(find_article(outline, weigh=weigh, clean=clean, comments=settings.comments)[0]):
            return how
    outline.restore()
    if reading.length >= 0 and is_it(clean_all(outline)[0]):
        return "No article was found in it: all of it is taken that has not the shape of boilerplate."
    outline.restore()
    return "It is too short for an article: all of it is taken."


def _walk_again(
    parser: LexborHTMLParser, url: str, reading: Reading, outline: Outline, settings: ExtractSettings
) -> tuple[str, PassedOver]:
    """Return where the walk began that made `outline`, and what it passed over."""
    facts = page_facts(parser, url, settings)
    roots = [found[0] for query in ("main, [role=main]", "article") if len(found := parser.css(query)) == 1]
    roots += [parser.body] if parser.body is not None else []
    # Of two walks with one outline the one that is tried first: a short page is read leniently.
    for is_strict in (reading.length >= 0, reading.length < 0):
        for root in roots:
            outline_again, passed_over = trace(root, facts, is_strict=is_strict)
            if _shape(outline_again) == _shape(outline):
                names = "without what is named like no content" if is_strict else "whatever the names in it"
                return f"Read below <{root.tag}>, {names}.", passed_over
    return "Read:", ()


def trace(root: LexborNode, facts: PageFacts, *, is_strict: bool) -> tuple[Outline, PassedOver]:
    """Walk, and return with the outline what the walk went by, each with the number of events before it."""
    nodes: list[tuple[int, LexborNode]] = []
    outline = Walk(root, facts, strict=is_strict, passed_over=nodes).outline()
    # Of a leaf it has taken what there is.
    return outline, [(place, node) for place, node in nodes if WALK_ROLES.get(node.tag or "") != LEAF]


def _shape(outline: Outline) -> tuple[int, int, list[tuple[str, int, int]]]:
    elements = [(element.tag, element.begin, element.end) for element in outline.elements]
    return len(outline.events), len(outline.flawed), elements


class _Drawing:
    """One pass over the events of an outline."""

    def __init__(self, outline: Outline, chosen: Sequence[Element], passed_over: PassedOver) -> None:
        self._outline = outline
        self._chosen = {id(element) for element in chosen}
        self._begins = [element.begin for element in chosen if element.parent is not None]  # in document order
        beside: list[tuple[int, LexborNode | Block]] = [*passed_over, *outline.flawed]
        self._beside = sorted(beside, key=lambda pair: pair[0])
        self._next = 0  # of `_beside`
        self._states: list[State] = ["kept" if id(outline.elements[0]) in self._chosen else "around"]
        self._folds: list[bool] = []

    def lines(self) -> Iterator[Line]:
        events = self._outline.events
        at = 0
        while at < len(events):
            yield from self._lines_beside(at)
            event = events[at]
            at += 1
            if event is None:
                self._states.pop()
                if self._folds.pop():
                    yield Line(state=self._states[-1], is_end=True)
            elif isinstance(event, str):
                yield Line(state=self._states[-1], text=_shown(event))
            elif isinstance(event, Block):
                yield replace(_picture(event), state=self._states[-1])
            else:
                line = self._line_of(event)
                only = events[at]
                if isinstance(only, str) and events[at + 1] is None and not self._is_beside(at + 2):
                    yield replace(line, text=_shown(only))  # one line for a paragraph and its text
                    at += 2
                    continue
                folds = event.end - event.begin > 2 and len(self._folds) < MAX_NESTED
                self._states.append(line.state)
                self._folds.append(folds)
                yield replace(line, folds=folds)
        yield from self._lines_beside(at)

    def _is_beside(self, at: int) -> bool:
        return self._next < len(self._beside) and self._beside[self._next][0] < at

    def _lines_beside(self, at: int) -> Iterator[Line]:
        """Yield what lies before event `at` and is none: passed over, or a picture that is none of an article's."""
        while self._is_beside(at + 1):
            found = self._beside[self._next][1]
            self._next += 1
            if isinstance(found, Block):
                yield replace(_picture(found), state="dropped", why=(found.flaw or "").replace("_", " "))
            elif found.tag != "-comment":
                yield _passed_over(found)

    def _line_of(self, element: Element) -> Line:
        state = self._state_of(element)
        why = _numbers(element) if state in ("not chosen", "dropped") and self._states[-1] != state else ""
        if state == "around":
            why = f"points {element.points:.0f}" if element.is_credited else ""
        classes = ".".join(element.names.classes.split())
        return Line(state=state, label=flat(f"{element.tag}.{classes}" if classes else element.tag, 80), why=why)

    def _state_of(self, element: Element) -> State:
        around = self._states[-1]
        if around == "kept":
            return "dropped" if element.is_dropped else "kept"
        if around != "around":
            return around
        if id(element) in self._chosen:
            return "kept"
        at = bisect_right(self._begins, element.begin)
        return "around" if at < len(self._begins) and self._begins[at] < element.end else "not chosen"


def _numbers(element: Element) -> str:
    """Return what an element was measured by, as it was when it was judged: without what was dropped in it before."""
    length = element.count(TEXT)
    told = [f"{length:,.0f} characters, {element.link_density:.0%} of them linked" if length else "no text"]
    told += [f"{name} {number:,.0f}" for name, what in _COUNTED.items() if (number := element.count(what))]
    if element.names.weight:
        told.append(f"names weigh {element.names.weight:+}")
    if element.names.is_share:
        told.append("named after sharing")
    if element.is_credited:
        told.append(f"points {element.points:.0f}")
    if element.is_data_table:
        told.append("a table of data")
    return ", ".join(told)


def _passed_over(node: LexborNode) -> Line:
    tag, attributes = node.tag or "", node.attributes
    classes = ".".join((attributes.get("class") or "").split())
    text = node.text(separator=" ")
    label = flat(f"{tag}.{classes}" if classes else tag, 80)
    why = f"{_reason(node)}, {len(text):,} characters"
    return Line(state="passed over", label=label, text="" if tag in _PROGRAMS else _shown(text), why=why)


def _reason(node: LexborNode) -> str:
    tag, attributes = node.tag or "", node.attributes
    if WALK_ROLES.get(tag) == NEVER:
        return f"<{tag}> holds no content"
    if is_hidden(attributes):
        return "hidden, or no content by its role"
    names = NO_NAMES if tag in _NEVER_NAMED else read_names(attributes.get("class"), attributes.get("id"))
    if names.is_comments:
        return "named after comments"
    if names.is_unlikely or names.is_byline:
        return "named after an author" if names.is_byline else "its names say no content"
    return _OWN_REASONS.get(tag, "the number of a line")


def _picture(block: Block) -> Line:
    alt = block.attributes.get("alt")
    return Line(state="kept", label="picture", text=flat(f"{block.url} {alt or ''}", MAX_TEXT))


def _shown(text: str) -> str:
    # What is cut off need not be looked at: a script may have megabytes.
    return flat(text[: 4 * MAX_TEXT].replace(LINE_BREAK, " \u23ce "), MAX_TEXT)

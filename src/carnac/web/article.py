"""A parsed page -> the blocks of its main content, in reading order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from selectolax.lexbor import LexborHTMLParser, LexborNode

from carnac.web.blocks import Block
from carnac.web.elements import words_of
from carnac.web.main_content import clean_all, find_article
from carnac.web.outline import LINKED, TEXT, Element, Outline, PageFacts, build_blocks
from carnac.web.settings import ExtractSettings
from carnac.web.sources import resolve
from carnac.web.trim import trim
from carnac.web.walk import Walk

MIN_ARTICLE = 500  # characters: less is no article, and is looked for again
MIN_SHARE_OF_MAIN = 2
MIN_GAIN = 1.25  # of less strictness, or it only added labels and what stands between links
MIN_SHARE = 4  # times what was found: so much text without links elsewhere says that it was not the article
# Whether names weigh, and whether what has the shape of boilerplate is dropped.
_STRICT = ((True, True),)
_LENIENT = ((True, True), (False, True), (False, False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read of a page: its blocks, and the blocks that were dropped one by one, each with why.

    `outline` and `elements` are what they were taken from; None and none if by no outline.
    """

    blocks: Sequence[Block] = ()
    dropped: Sequence[tuple[str, Block]] = ()
    outline: Outline | None = None
    elements: Sequence[Element] = ()
    length: float = -1.0  # of a page that was taken whole, as less than an article


def read_article(parser: LexborHTMLParser, url: str, settings: ExtractSettings) -> Reading:
    """Read a page's main content; of a page with less than an article, all that may be content.

    Looked for in what the page declares to be its main content, then in all of it, then with ever less strictness,
    until enough is found; if it never is, the most that was found counts.
    """
    body = parser.body
    if body is None:
        return Reading()
    page = _Page(parser, body, page_facts(parser, url, settings), settings)
    declared = page.only("main, [role=main]")
    best = Reading()
    for root in (declared, body):
        if root is not None and best.length < MIN_ARTICLE:
            outline = page.outline(root, strict=True)
            best = _best(outline, _STRICT, best, settings)
            if root is declared:
                best = _all_of_it(outline, best, MIN_SHARE_OF_MAIN, settings)
    if best.length < MIN_ARTICLE:
        best = _read_leniently(page, declared, best)
    if best.outline is None:
        return best
    trimmed, dropped = trim(best.blocks) if best.length >= 0 else (best.blocks, [])
    return replace(best, blocks=trimmed, dropped=[*_flawed(best.outline, best.elements), *dropped])


@dataclass(frozen=True, slots=True)
class _Page:
    parser: LexborHTMLParser
    body: LexborNode
    facts: PageFacts
    settings: ExtractSettings

    def outline(self, root: LexborNode, *, strict: bool) -> Outline:
        return Walk(root, self.facts, strict=strict).outline()

    def only(self, query: str) -> LexborNode | None:
        found = self.parser.css(query)
        return found[0] if len(found) == 1 else None


def _read_leniently(page: _Page, declared: LexborNode | None, best: Reading) -> Reading:
    """Return all of a page that has less than an article, else the most that can be found."""
    whole = page.outline(page.body, strict=False)
    for root in (declared or page.only("article"), page.body):
        short = whole if root is page.body else page.outline(root, strict=False) if root else None
        if short is not None and short.elements[0].count(TEXT) < MIN_ARTICLE:
            elements = short.elements[:1]
            if blocks := build_blocks(short, elements, plain=page.settings.plain):
                return Reading(blocks=blocks, outline=short, elements=elements)
    best = _best(whole, _LENIENT, best, page.settings)
    return best if best.length >= MIN_ARTICLE else _all_of_it(whole, best, MIN_SHARE, page.settings)


def _best(outline: Outline, attempts: Sequence[tuple[bool, bool]], best: Reading, settings: ExtractSettings) -> Reading:
    """Return the longest article of those found by `attempts`, and `best`; the first that is long enough ends them."""
    for weigh, clean in attempts:
        outline.restore()
        elements, _ = find_article(outline, weigh=weigh, clean=clean, comments=settings.comments)
        # Not of links: a short article must not be lost to a longer list of them.
        length = sum(element.count(TEXT) - element.count(LINKED) for element in elements)
        if length > MIN_GAIN * max(best.length, 0.0):
            blocks = build_blocks(outline, elements, plain=settings.plain)
            best = Reading(blocks=blocks, outline=outline, elements=elements, length=length)
        if best.length >= MIN_ARTICLE:
            break
    return best


def _all_of_it(outline: Outline, best: Reading, least: float, settings: ExtractSettings) -> Reading:
    """Return all that was searched if it holds much more than `best`: lines, none of them a paragraph, as in a poem."""
    root = outline.elements[0]
    unlinked = root.count(TEXT) - root.count(LINKED)
    if unlinked < least * max(best.length, 1.0):
        return best
    outline.restore()
    elements, length = clean_all(outline)
    if length - root.count(LINKED) < least * max(best.length, 1.0):
        return best
    blocks = build_blocks(outline, elements, plain=settings.plain)
    return Reading(blocks=blocks, outline=outline, elements=elements, length=length)


def _flawed(outline: Outline, elements: Sequence[Element]) -> list[tuple[str, Block]]:
    """Return the pictures in `elements` that are none of an article's, each with why."""
    return [
        (block.flaw or "", block)
        for place, block in outline.flawed
        if any(element.begin <= place <= element.end for element in elements)
    ]


def page_facts(parser: LexborHTMLParser, url: str, settings: ExtractSettings) -> PageFacts:
    """Return what a walk must know of a page."""
    return PageFacts(
        base=base_url(parser, url),
        title=frozenset(words_of(title_of(parser) or "")),
        comments=settings.comments,
        max_width=settings.max_source_width_px,
    )


def base_url(parser: LexborHTMLParser, url: str) -> str:
    """Return what the links of a page are relative to."""
    node = parser.head.first_child if parser.head is not None else None
    while node is not None:
        if node.tag == "base" and (base := resolve(url, node.attributes.get("href") or "")) is not None:
            return base
        node = node.next
    return url


def title_of(parser: LexborHTMLParser) -> str | None:
    """Return the text of the page's <title>."""
    node = parser.head.first_child if parser.head is not None else None
    while node is not None:
        if node.tag == "title":
            return node.text() or None
        node = node.next
    return None

"""A parsed page -> its outline, in one iterative walk.

No recursion and no look-ahead: time is linear in the number of nodes, whatever the nesting. Inline elements leave no
trace but their text. What is no content by its very element, attributes or names (scripts, hidden elements, navigation)
is passed over here; what is none by comparison with the rest is for `main_content` to find.
"""

from __future__ import annotations

import re

from selectolax.lexbor import LexborNode

from carnac.web.blocks import LINE_BREAK, PARAGRAPH_BREAK, Block
from carnac.web.elements import (
    KNOWN_TAGS,
    TEXT_NUMBER,
    TableSizes,
    describe,
    first_text,
    host_of,
    is_beacon,
    is_hidden,
    is_line_number,
    is_permalink,
    is_video,
    plain_listing,
    similarity,
    words_of,
)
from carnac.web.names import NO_NAMES, Names, read_names
from carnac.web.outline import (
    BLOCKS,
    COMMAS,
    FIGURES,
    HEADINGS,
    INPUTS,
    ITEMS,
    LINKED,
    NUM_COUNTS,
    PARAGRAPHS,
    PICTURES,
    TEXT,
    VIDEOS,
    Element,
    Event,
    Outline,
    PageFacts,
)
from carnac.web.sources import Attributes, figure_source, image_flaw, image_source, is_named_as_picture, node_source
from carnac.web.tags import BLOCK, INLINE, LEAF, LINK, NEVER, SECTIONS

MIN_PARAGRAPH = 25
_HASH_LINK_SHARE = 0.3
_BLOCKS = frozenset(("blockquote", "dl", "div", "ol", "p", "pre", "table", "ul"))
_HEADS = frozenset(("h1", "h2", "header", "footer"))
_SCORED = frozenset(("section", "h2", "h3", "h4", "h5", "h6", "p", "td", "pre"))
_HIDING = frozenset(("hidden", "aria-hidden", "role", "style"))
_OTHER_COMMAS = re.compile("[\u060c\u3001\ufe10\ufe11\ufe50\uff0c]")
_CLASSIFIER = "classifier"
_TABLE_TAGS = frozenset(("table", "tr", "td", "th", "thead", "tfoot", "caption"))
_INSIDES = frozenset(("figure", "table", "pre"))
_SPECIAL = _TABLE_TAGS | SECTIONS | {"li", "pre", "figure"}
_SPECIAL_ENDS = SECTIONS | {"pre", "table", "figure", "h1", "h2", "h3", "h4", "h5", "h6"}
# A subheader is no header; readability too leaves links alone.
_NEVER_UNLIKELY = frozenset(("a", "h2", "h3", "h4", "h5", "h6"))
_MAX_EMOJI = 8  # characters, with their modifiers
_MAX_BYLINE = 100  # characters
_SOURCES = frozenset(("src", "srcset", "width", "height"))
PassedOver = list[tuple[int, LexborNode]]


class Walk:
    """A walk over `root` and what is below it.

    A heading that says the same as the title is left out, once. With `strict`, so are elements whose names say that
    they are no content, comments unless they are wanted, and the line that names the author. `passed_over` gets the
    elements that the walk goes by, each with the number of events before it.
    """

    def __init__(
        self, root: LexborNode, page: PageFacts, *, strict: bool, passed_over: PassedOver | None = None
    ) -> None:
        self._root, self._base, self._title, self._max_width = root, page.base, page.title, page.max_width
        self._max_heading = 100 + 3 * sum(map(len, page.title))  # characters: what is longer does not say the same
        self._strict, self._comments, self._passed_over = strict, page.comments or not strict, passed_over
        self._events: list[Event] = []
        self._run: list[str] = []
        self._link_share = 0.0  # of the text that counts as linked
        self._linked = 0.0  # characters of the run that are linked
        self._totals: list[float] = [0] * NUM_COUNTS
        self._marks: list[float] = []
        self._is_after_picture = False  # no text and no beginning of a block since
        self._picture: Block | None = None  # the last
        self._copied: str | None = None  # URL of the last picture, if it came from a <noscript>
        self._flawed: list[tuple[int, Block]] = []
        self._has_byline = False
        self._named: dict[int, Block] = {}  # by the index of a figure: the picture that a script would add
        self._code_depth = 0
        self._num_sections = 0
        self._tables = TableSizes()
        root_element = Element("body", None, NO_NAMES, 0, 0, self._marks)
        self._marks += self._totals
        self._top = root_element
        self._elements = [root_element]

    def outline(self) -> Outline:  # noqa: C901, PLR0912 -- one loop: a call for each node doubles the cost
        """Walk, and return the outline."""
        run, known, text_number = self._run, KNOWN_TAGS, TEXT_NUMBER
        opened: list[tuple[LexborNode, int]] = []
        node = self._begin()
        while node is not None or opened:
            if node is None:
                node, role = opened.pop()
                if role == BLOCK:
                    self._leave_block()
                elif role == LINK:
                    self._link_share = 0.0
                node = node.next
                continue
            number = node.tag_id
            if number == text_number:
                if run or not node.is_empty_text_node or self._code_depth:
                    text = node.text_content or ""
                    run.append(text)
                    if self._link_share and not self._code_depth:  # documentation links every name in a listing
                        self._linked += self._link_share * len(text.strip())
                node = node.next
                continue
            tag, role = known.get(number) or describe(node)
            if role == NEVER or (role == LEAF and self._read_leaf(node, tag)):
                node = self._pass_over(node)
                continue
            attributes, names = node.attributes, NO_NAMES
            if role != LINK and ("class" in attributes or "id" in attributes):
                names = read_names(attributes.get("class"), attributes.get("id"))
                if names.classes == _CLASSIFIER and role == INLINE:
                    run.append(" : ")
            if (
                (not _HIDING.isdisjoint(attributes) and is_hidden(attributes))
                or ((names.is_unlikely or names.is_byline) and self._is_left_out(node, tag, names))
                or ((role != INLINE or self._code_depth) and not self._enter(node, tag, role, names, attributes))
            ):
                node = self._pass_over(node)
                continue
            child = node.first_child
            if child is not None:
                opened.append((node, role))
                node = child
            else:
                if role == BLOCK:
                    self._leave_block()
                self._link_share = 0.0 if role == LINK else self._link_share
                node = node.next
        return self._finish()

    def _pass_over(self, node: LexborNode) -> LexborNode | None:
        if self._passed_over is not None:
            self._passed_over.append((len(self._events), node))
        return node.next

    def _begin(self) -> LexborNode | None:
        """Take the root itself in: it may be the article."""
        found = self._root.attributes
        self._enter_block(self._root.tag or "", read_names(found.get("class"), found.get("id")), found)
        return self._root.first_child

    def _finish(self) -> Outline:
        if self._run:
            self._flush()
        self._leave_block()
        root = self._elements[0]
        root.after, root.end, root.last = len(self._marks), len(self._events), len(self._elements)
        self._marks += self._totals
        return Outline(self._elements, self._events, self._flawed)

    # Elements.

    def _enter(self, node: LexborNode, tag: str, role: int, names: Names, attributes: Attributes) -> bool:
        """Take an element in; say whether to walk below it."""
        if role == BLOCK:
            if tag in _HEADS and self._is_left_out_head(node, tag):
                return False
            self._enter_block(tag, names, attributes)
            if tag == "pre" and (text := plain_listing(node)) is not None:
                self._run.append(text)
                self._leave_block()
                return False
        elif role == LINK:
            if is_permalink(node, attributes):
                return False
            self._link_share = _HASH_LINK_SHARE if (attributes.get("href") or "").startswith("#") else 1.0
        elif attributes:
            return not is_line_number(attributes)
        return True

    def _enter_block(self, tag: str, names: Names, attributes: Attributes) -> None:
        if self._run:
            self._flush()
        self._is_after_picture = False
        parent, totals = self._top, self._totals
        parent.children += 1
        element = Element(tag, parent, names, len(self._events), len(self._elements), self._marks)
        self._marks += totals
        self._events.append(element)
        self._elements.append(element)
        self._top = element
        element.is_inside = parent.is_inside or parent.tag in _INSIDES
        if tag in _BLOCKS:
            totals[BLOCKS] += 1
        if tag in _SPECIAL:
            self._enter_special(element, attributes)

    def _enter_special(self, element: Element, attributes: Attributes) -> None:
        tag = element.tag
        if tag == "li":
            self._totals[ITEMS] += 1
        elif tag in _TABLE_TAGS:
            self._tables.enter(tag, attributes)
        elif tag == "pre":
            self._code_depth += 1
        elif tag in SECTIONS:
            self._num_sections += 1
        elif attributes and (source := figure_source(attributes, self._base)) is not None:
            self._named[element.index] = Block(
                kind="image", url=source[0], attributes=attributes, source_attribute=source[1]
            )

    def _leave_block(self) -> None:
        if self._run:
            self._flush()
        element, totals = self._top, self._totals
        tag = element.tag
        if tag in _SPECIAL_ENDS:
            self._leave_special(element)
        marks, before = self._marks, element.before
        element.after = len(marks)
        marks += totals
        self._events.append(None)
        element.end, element.last = len(self._events), len(self._elements)
        self._top = parent = element.parent or element
        if tag in _SCORED or (tag == "div" and totals[BLOCKS] == marks[before + BLOCKS] + 1):
            if tag in ("p", "div"):
                totals[PARAGRAPHS] += 1
            text = totals[TEXT] - marks[before + TEXT]
            if text >= MIN_PARAGRAPH:
                parent.credit += 2 + (totals[COMMAS] - marks[before + COMMAS]) + min(text // 100, 3)
        elif tag == "div" and element.children == 1 and not element.loose and element.credit:
            # A div around one paragraph is that paragraph, and any number of them around one listing that listing.
            only = self._elements[element.index + 1]
            element.is_listing = only.tag == "pre" or only.is_listing
            if element.is_listing or (only.tag == "p" and only.link_density < 0.25):
                parent.credit += element.credit
                element.credit = 0.0
        if element.credit:
            element.give(element.credit)

    def _leave_special(self, element: Element) -> None:
        tag, totals, marks = element.tag, self._totals, self._marks
        if tag == "pre":
            self._code_depth -= 1
        elif tag in SECTIONS:
            self._num_sections -= 1
        elif tag == "table":
            element.is_data_table = self._tables.leave()
        elif tag == "figure":
            totals[FIGURES] += totals[PICTURES] > marks[element.before + PICTURES]
            if element.index in self._named and totals[PICTURES] == marks[element.before + PICTURES]:
                self._events.append(self._named[element.index])
                self._count_picture()
        else:
            totals[HEADINGS] += totals[TEXT] - marks[element.before + TEXT]

    def _flush(self) -> None:
        """End the inline text at the boundary of a block."""
        raw = "".join(self._run)
        self._run.clear()
        totals, top = self._totals, self._top
        if self._code_depth:
            length = len(raw)
            self._events.append(raw)
        else:
            text = " ".join(raw.split())
            if not text:
                return
            length = len(text)
            self._events.append(text)
            commas = text.count(",")
            if not text.isascii():
                commas += len(_OTHER_COMMAS.findall(text))
            totals[COMMAS] += commas
            if top.tag == "div":
                self._credit_loose(text, length, commas)
        totals[TEXT] += length
        if self._linked:
            totals[LINKED] += self._linked
            self._linked = 0.0
        if self._is_after_picture and not raw.isspace():
            self._is_after_picture, self._copied = False, None

    def _credit_loose(self, text: str, length: int, commas: int) -> None:
        """Text directly in a div counts as paragraphs of their own; if the div holds nothing else, it is one itself."""
        top = self._top
        parts = [len(part) for part in PARAGRAPH_BREAK.split(text)] if LINE_BREAK in text else [length]
        if len(parts) > 1:
            self._totals[BLOCKS] += 1
        top.loose += len(parts)
        for part in parts:
            if part >= MIN_PARAGRAPH:
                top.credit += 2 + commas / len(parts) + min(part // 100, 3)

    def _is_left_out(self, node: LexborNode, tag: str, names: Names) -> bool:
        """Say whether an element is left out for its names."""
        if not self._strict:
            return False
        if names.is_byline and not self._has_byline and 0 < len(first_text(node, _MAX_BYLINE)) < _MAX_BYLINE:
            self._has_byline = True
            return True
        if names.is_comments:
            return not self._comments and tag not in _NEVER_UNLIKELY
        return names.is_unlikely and tag not in _NEVER_UNLIKELY and not self._code_depth and not self._top.is_near_table

    def _is_left_out_head(self, node: LexborNode, tag: str) -> bool:
        """Say whether a heading repeats the title, or a header or footer is the page's and not a section's."""
        if tag in ("h1", "h2"):
            return bool(self._title) and self._repeats_title(node)
        return not self._num_sections

    def _repeats_title(self, node: LexborNode) -> bool:
        words = words_of(first_text(node, self._max_heading))
        if similarity(self._title, words) <= 0.75:
            return False
        self._title = frozenset()
        return True

    # Leaves.

    def _read_leaf(self, node: LexborNode, tag: str) -> bool:
        """Take in an element of which nothing below is walked; return True."""
        if tag == "br":
            self._run.append("\n" if self._code_depth else LINE_BREAK)
        elif tag == "noscript":
            self._read_noscript(node)
        elif tag == "input":
            self._totals[INPUTS] += 1
        elif tag in ("img", "amp-img"):
            attributes = node.attributes
            if not is_hidden(attributes) or "fallback-image" in (attributes.get("class") or ""):
                self._add_picture(node, attributes)
        elif is_video(node.attributes):
            self._totals[VIDEOS] += 1
        return True

    def _add_picture(self, node: LexborNode, attributes: Attributes, *, is_copy: bool = False) -> None:
        source = node_source(node, attributes, self._base, self._max_width)
        if source is None or (self._is_after_picture and source[0] == self._copied):
            return
        url, name = source
        flaw = image_flaw(attributes, url)
        block = Block(kind="image", url=url, attributes=attributes, source_attribute=name, flaw=flaw)
        if flaw is not None:  # it splits no sentence
            self._flawed.append((len(self._events), block))
            alt = attributes.get("alt") or ""
            if len(alt) <= _MAX_EMOJI and not alt.isascii():
                self._run.append(alt)
            return
        if self._run:
            self._flush()
        self._events.append(block)
        self._picture = block
        self._count_picture()
        self._is_after_picture, self._copied = True, url if is_copy else None

    def _count_picture(self) -> None:
        self._totals[PICTURES] += 1
        self._totals[BLOCKS] += 1

    def _read_noscript(self, node: LexborNode) -> None:
        """Take the pictures of a <noscript>; the copy of the picture before it says better where that one lies."""
        for image in node.css("img"):
            attributes = image.attributes
            if is_hidden(attributes) or is_beacon(attributes):
                continue
            if self._is_after_picture and self._copied is None:
                self._mend_picture(attributes)
                return
            self._add_picture(image, attributes, is_copy=True)

    def _mend_picture(self, attributes: Attributes) -> None:
        """Give the last picture the URL of its copy for browsers without scripts: a script may show a preview first."""
        picture = self._picture
        assert picture is not None
        source = image_source(attributes, self._base)
        # A counter of visitors is a copy of nothing.
        if source is not None and (is_named_as_picture(source[0]) or host_of(source[0]) == host_of(picture.url or "")):
            picture.url, picture.source_attribute = source
            picture.attributes = {**attributes, **{k: v for k, v in picture.attributes.items() if k not in _SOURCES}}
            self._copied = picture.url

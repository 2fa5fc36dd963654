"""A parsed page -> the blocks that the published tag rules of OBELICS keep, so that its dataset can be rebuilt.

Source: Laurencon et al. 2023, appendix A.1.2 and A.1.3, and the code published with it. Lists, tables, code, forms and
figures are lost with all that is in them; that is what its rules say. The rules are numbered as they are applied there:

    a b  line breaks and spaces collapse           h  32 elements of style are unwrapped
    c    comments vanish                           i  elements not kept vanish with their content (`li`)
    d    `<br>` is a line break                    j  `div` named footer, header, nav, menu, ... vanishes
    f    classes footer and site-info vanish       k  text right inside a `div` whose class contains "date" vanishes
    g    class more-link ends a document           l  empty elements vanish, and media without a usable source
    m    an element whose only content is one of the same name is replaced by it
    n    texts that have become neighbours are one text

There the tree is changed, serialised, parsed again, and walked from the start after each removal. Here one walk that
changes nothing turns the tree into the events of the simplified one (`_Simplifier`), these become blocks (`_Merger`),
both in linear time. What is not repeated: the BeautifulSoup pass before the parse, the loss of pages nested more than a
thousand deep (Python's recursion limit), what the second parse does to misnested elements, and the place of white space
around a `<br>` loose in a table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from selectolax.lexbor import LexborHTMLParser, LexborNode

from carnac.web.blocks import LINE_BREAK, Block
from carnac.web.sources import Attributes

END_OF_DOCUMENT = "END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED"  # as published: stands where another document begins

# What stands between two texts, by strength: that of the strongest element that ends or begins between them.
_SEPARATORS = ("", " ", "\n", "\n\n")
_SPACE, _LINE, _PARAGRAPH = 1, 2, 3

_GROUPS = """
no-break: blink body caption h html title
line: address article aside center dd div dt figcaption hgroup legend main marquee section summary
paragraph: blockquote dl h1 h2 h3 h4 h5 h6 ol p ul
unwrapped: a abbr acronym b bdi bdo big cite code data dfn em font i ins kbd mark q s samp shadow small span strike
unwrapped: strong sub sup time tt u var wbr
media: audio embed figure iframe img object picture source video
"""


def _group(group: str) -> frozenset[str]:
    lines = (line.partition(": ") for line in _GROUPS.splitlines())
    return frozenset(name for title, _, names in lines if title == group for name in names.split())


_STRENGTHS = {
    name: strength
    for group, strength in (("no-break", 0), ("line", _LINE), ("paragraph", _PARAGRAPH))
    for name in _group(group)
}
_UNWRAPPED = _group("unwrapped")
# Kept by rule i. Rule l then asks each of these for a source and knows only those of img, video and audio: the others,
# `figure` and `picture` among them, vanish with the images in them. The extraction after it does not look into them
# either: no image of a figure comes out of the published code.
_MEDIA = _group("media")
_KEPT = _MEDIA | _STRENGTHS.keys() | {"br"}
_NO_DIGITS = str.maketrans("", "", "0123456789")
_REMOVED_CLASSES = frozenset(("footer", "site-info"))
_SPECIAL_NAMES = frozenset(("footer", "header", "navigation", "nav", "navbar", "menu"))
_SOURCE_ATTRIBUTES = (
    "src",
    "data-src",
    "data-src-fg",
    "data-scroll-image",
    "srcset",
    "data-lateloadsrc",
    "data-img-src",
    "data-original",
    "data-gt-lazy-src",
    "data-lazy",
    "data-lazy-src",
    "src2",
)
_WHITE_SPACE = re.compile("[ \n\t]+")
_CLASS_SPACE = re.compile("[ \t\n\f\r]+")
_VALID_URL = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,}\.?(?:/|[/?]\S+)?$", re.IGNORECASE
)


def read_page(parser: LexborHTMLParser, url: str) -> list[Block]:
    """Return the paragraphs and images that OBELICS's rules keep, in document order.

    A published text is the paragraphs between two images, joined by a blank line; a paragraph may hold line breaks.
    Images carry their attributes (alt, and width and height as rendered) and the one that held the URL. `url` is that
    of the page. The tree is not changed.
    """
    root = parser.root
    if root is None:
        return []
    merger = _Merger()
    for event in _Simplifier(root, url).events():
        merger.take(event)
    return merger.finish()


def image_link(attributes: Attributes) -> tuple[str, str] | None:
    """Return an image's link as written, and its attribute: the first of twelve without comma and space."""
    for name in _SOURCE_ATTRIBUTES:
        link = attributes.get(name)
        if link and _is_plain(link):
            return link, name
    return None


def resolve_against_host(host: str, link: str) -> str | None:
    """Return `link` as OBELICS did, or None if that is no http(s) URL of a dotted host.

    This keeps a defect on purpose, to compare with the published dataset: what does not begin with "http" is put right
    below the host (with its port), as https. The path of the page and `<base>` are ignored and every "./" and "../" is
    cut out, so that a link relative to the path of its page names a file that is not there. For right URLs see
    `carnac.web.sources.resolve`.
    """
    if link.startswith("//"):
        link = "http:" + link
    elif not link.startswith("http"):
        if "./" in link:
            link = re.sub(r"\.+/", "", link)
        link = f"https://{host}{'' if link.startswith('/') else '/'}{link}"
    return link if _VALID_URL.match(link) else None


@dataclass(slots=True)
class _Element:
    """An element of the simplified tree, and what is known of its content so far."""

    tag: str
    strength: int = 0
    first_event: int = 0
    drops_text: bool = False  # rule k
    is_filled: bool = False  # holds a text, not blank, or a medium
    has_own_text: bool = False
    num_children: int = 0
    child_tag: str = ""
    is_unnested: bool = False  # rule m: its own text, all blank, is lost


_Event = _Element | Block | str | None  # an element begins, an image, a text, an element ends


class _Simplifier:
    """Rules c to m: one walk over the tree, without recursion, that collects the events of the simplified tree.

    Whether an element is empty is known when it ends: then the events since it began, all blank text, are cut off. So
    an event is added once and removed at most once.
    """

    def __init__(self, root: LexborNode, url: str) -> None:
        self._root = root
        try:
            self._host = urlsplit(url).netloc
        except ValueError:  # brackets that are no IPv6 address
            self._host = ""
        self._events: list[_Event] = []
        self._open = [_Element("html")]  # never removed, whatever its class

    def events(self) -> list[_Event]:
        """Walk, and return the events."""
        entered: list[tuple[LexborNode, bool]] = []  # with whether the element is in the simplified tree
        node = self._root.first_child
        while True:
            if node is None:
                if not entered:
                    return self._events
                node, is_kept = entered.pop()
                if is_kept:
                    self._leave()
            else:
                tag = node.tag or ""
                if tag == "-text":
                    self._add_text(node.text_content or "")
                elif (walks := self._enter(tag, node.attributes)) is not None:
                    entered.append((node, walks))
                    node = node.first_child
                    continue
            node = node.next

    def _enter(self, tag: str, attributes: Attributes) -> bool | None:
        """Take an element in; None: not what is in it, False: only what is in it, True: both."""
        classes = attributes.get("class")
        if classes and ("footer" in classes or "site-info" in classes or "more-link" in classes):
            names = _CLASS_SPACE.split(classes)
            if not _REMOVED_CLASSES.isdisjoint(names):
                return None
            if "more-link" in names:
                # Published as blank lines around the token, which the next step made spaces: the token then sticks
                # to the text beside it, unless a paragraph ends there. Every step after that looks for a paragraph
                # that is the token, so that it is one here.
                self._add_text(LINE_BREAK * 2 + END_OF_DOCUMENT + LINE_BREAK * 2)
                return None
        if tag in _UNWRAPPED:
            return False
        if tag in _MEDIA or tag == "br":
            self._read_leaf(tag, attributes)
            return None
        if (tag not in _STRENGTHS and tag.translate(_NO_DIGITS) not in _KEPT) or _is_special(tag, attributes):
            return None
        element = _Element(
            tag,
            strength=_STRENGTHS.get(tag, 0),
            first_event=len(self._events),
            drops_text=tag == "div" and classes is not None and "date" in classes,
        )
        self._open.append(element)
        self._events.append(element)
        return True

    def _leave(self) -> None:
        element = self._open.pop()
        if not element.is_filled:
            del self._events[element.first_event :]
            return
        self._events.append(None)
        self._add_child(element.tag)
        element.is_unnested = (
            element.num_children == 1 and element.child_tag == element.tag and not element.has_own_text
        )

    def _add_child(self, tag: str) -> None:
        parent = self._open[-1]
        parent.is_filled = True
        parent.num_children += 1
        parent.child_tag = tag

    def _add_text(self, text: str) -> None:
        element = self._open[-1]
        if element.drops_text or not text:
            return
        self._events.append(text)
        if not text.isspace():
            element.is_filled = element.has_own_text = True

    def _read_leaf(self, tag: str, attributes: Attributes) -> None:
        if tag == "br":
            if not attributes:  # one with attributes did not match the published pattern and is an empty element
                self._add_text(LINE_BREAK)
            return
        if tag == "img" and (source := image_link(attributes)) is not None:
            link, name = source
            url = resolve_against_host(self._host, link)
            if url is not None:
                self._events.append(Block(kind="image", url=url, attributes=attributes, source_attribute=name))
            else:
                self._events += (_Element(tag), None)  # stays in the tree, between texts, but is not extracted
        elif tag in ("audio", "video") and _is_plain(attributes.get("src") or " "):
            self._events += (_Element(tag), None)
        else:
            return
        self._add_child(tag)


class _Merger:
    """Rules a, b and n, and the extraction: events -> blocks. Texts up to an image are one, then cut at blank lines.

    `_tail` is the white space at the end of the text so far, by character: a separator is chosen by what ends there.
    """

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._run: list[str] = []  # text since the last beginning or end of an element
        self._text: list[str] = []  # formatted texts since the last image, all but `_tail`
        self._tail: list[str] = []
        self._has_text = False
        self._open: list[_Element] = []
        self._num_shared = 0  # open elements that hold the last text too
        self._left_strength = 0  # of elements that held the last text and have ended

    def take(self, event: _Event) -> None:
        """Take the next event in."""
        if isinstance(event, str):
            if not self._open or not self._open[-1].is_unnested:
                self._run.append(event)
            return
        if self._run:
            self._end_run()
        if event is None:
            self._left_strength = self._leave(self._open.pop())
        elif isinstance(event, _Element):
            self._open.append(event)
        else:
            self._end_text()
            self._blocks.append(event)

    def finish(self) -> list[Block]:
        """Return the blocks."""
        self._end_run()
        self._end_text()
        return self._blocks

    def _leave(self, element: _Element) -> int:
        if len(self._open) >= self._num_shared:
            return self._left_strength
        self._num_shared = len(self._open)
        return max(self._left_strength, element.strength)

    def _end_run(self) -> None:
        """Append the text between two tags to those before it, with the strongest separator between them."""
        text = _format("".join(self._run)) if self._run else ""
        self._run.clear()
        if not text:
            return
        strength = self._left_strength
        for element in self._open[self._num_shared :]:
            strength = max(strength, element.strength)
        self._num_shared, self._left_strength = len(self._open), 0
        if self._has_text:
            text = self._append_separator(text, strength)
        self._has_text = True
        body = text.rstrip("\n ")
        if body:
            self._text += (*self._tail, body)
            self._tail.clear()
        self._tail += text[len(body) :]

    def _append_separator(self, text: str, strength: int) -> str:
        """Take off one separator of each kind at the seam and put the strongest there; return the rest of `text`."""
        candidates = (_PARAGRAPH, _LINE, _SPACE) if self._tail or text[0] in "\n " else ()
        for candidate in candidates:
            separator = _SEPARATORS[candidate]
            if self._tail[-len(separator) :] == [*separator]:
                del self._tail[-len(separator) :]
                strength = max(strength, candidate)
            if text.startswith(separator):
                text = text[len(separator) :]
                strength = max(strength, candidate)
        self._tail += _SEPARATORS[strength]
        return text

    def _end_text(self) -> None:
        for paragraph in "".join((*self._text, *self._tail)).split("\n\n"):
            if paragraph := paragraph.strip():
                self._blocks.append(Block(kind="paragraph", text=paragraph))
        self._text.clear()
        self._tail.clear()
        self._has_text = False


def _format(run: str) -> str:
    """Collapse white space but for one space at either end, and put line breaks in."""
    text = _WHITE_SPACE.sub(" ", run)
    lines = "\n".join(line.strip() for line in text.split(LINE_BREAK))
    return " " * text.startswith(" ") + lines + " " * (len(text) > 1 and text.endswith(" "))


def _is_special(tag: str, attributes: Attributes) -> bool:
    return tag == "div" and any(attributes.get(name) in _SPECIAL_NAMES for name in ("id", "class", "title"))


def _is_plain(link: str) -> bool:
    return "," not in link and " " not in link

"""What one element says of itself: hidden, a permalink, a line number, a video; and the numbers of the tags."""

from __future__ import annotations

import re
from collections.abc import Sequence

from selectolax.lexbor import LexborHTMLParser, LexborNode

from carnac.web.sources import Attributes
from carnac.web.tags import INLINE, LINE_NUMBER_CLASSES, SKIPPED_ROLES, WALK_ROLES

_UNSEEN = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_VIDEO_HOSTS = re.compile(
    r"//(?:[\w-]+\.)?(?:youtube(?:-nocookie)?|vimeo|dailymotion|bilibili|qq|twitch)\.(?:com|tv)/"
    r"|//(?:archive|upload\.wikimedia)\.org/"
)
_PERMALINKS = frozenset(("\u00b6", "#", "\u00a7", "\U0001f517", "\u2693"))
_INLINE_TAGS = (
    "abbr b bdi bdo big cite code data del dfn em font i ins kbd label mark picture q rt ruby s samp small source span"
    " strike strong sub sup time tt u var wbr"
)
_INLINE = tuple(_INLINE_TAGS.split())
_MAX_TAGS = 1 << 16


def first_text(node: LexborNode, max_characters: int) -> str:
    """Return the text of an element, or more of it than asked for: the rest would be read again for each around it."""
    texts: list[str] = []
    length = 0
    for number, at in enumerate(node.traverse(include_text=True)):
        if at.is_text_node:
            texts.append(at.text_content or "")
            length += len(texts[-1].strip())
        if length > max_characters or number > max_characters:
            return " ".join(texts).strip().ljust(max_characters + 1)
    return " ".join(texts).strip()


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return re.findall(r"\w+", text.lower())


def similarity(title: frozenset[str], words: Sequence[str]) -> float:
    """Return the share of the characters of `words` that are words of the title."""
    total = len(" ".join(words))
    if not total:
        return 0.0
    return 1.0 - len(" ".join(word for word in words if word not in title)) / total


def is_hidden(attributes: Attributes) -> bool:
    """Say whether an element is not shown, or is no content by its role."""
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return "fallback-image" not in (attributes.get("class") or "")
    if (attributes.get("role") or "").lower() in SKIPPED_ROLES:
        return True
    style = attributes.get("style")
    return style is not None and _UNSEEN.search(style) is not None


def host_of(url: str) -> str:
    """Return the host of an absolute URL."""
    return url.split("/", 3)[2]


def is_beacon(attributes: Attributes) -> bool:
    """Say whether an image is one pixel or none: what counts visitors without scripts."""
    return any((attributes.get(name) or "").strip() in ("0", "1") for name in ("width", "height"))


def is_permalink(node: LexborNode, attributes: Attributes) -> bool:
    """Say whether a link is the mark that a heading carries to be linked to."""
    child = node.first_child
    if child is None or child.next is not None or "#" not in (attributes.get("href") or ""):
        return False
    return (child.text_content or "").strip() in _PERMALINKS if child.tag == "-text" else False


def is_line_number(attributes: Attributes) -> bool:
    """Say whether an element in a listing is the number of a line."""
    classes = attributes.get("class")
    return classes is not None and not LINE_NUMBER_CLASSES.isdisjoint(classes.split())


def plain_listing(node: LexborNode) -> str | None:
    """Return the text of a listing in which there is nothing but text and inline elements that colour it; else None.

    Half of the elements of documentation are such colours.
    """
    for at in node.traverse():
        number = at.tag_id
        if number != _PRE and (number not in _COLOURS or is_line_number(at.attributes) or is_hidden(at.attributes)):
            return None
    return node.text(deep=True)


def is_video(attributes: Attributes) -> bool:
    """Say whether an embedded element is a film of a known host."""
    return any(value is not None and "//" in value and _VIDEO_HOSTS.search(value) for value in attributes.values())


class TableSizes:
    """Counts the rows and columns of the tables that are open, and tells which hold data rather than the page."""

    def __init__(self) -> None:
        self._open: list[list[int]] = []  # rows, columns, cells of this row; 1 for data, -1 for layout, 0 unknown

    def enter(self, tag: str, attributes: Attributes) -> None:
        """Take in an element of a table, or a table."""
        if tag == "table":
            if self._open:
                self._open[-1][3] = self._open[-1][3] or -1
            is_layout = attributes.get("role") == "presentation" or attributes.get("datatable") == "0"
            self._open.append([0, 0, 0, -1 if is_layout else int(bool(attributes.get("summary")))])
        elif not self._open:
            return
        elif tag == "tr":
            self._open[-1][0] += 1
            self._open[-1][2] = 0
        elif tag == "td":
            table = self._open[-1]
            table[2] += 1
            table[1] = max(table[1], table[2])
        else:  # th, thead, tfoot, caption
            self._open[-1][3] = self._open[-1][3] or 1

    def leave(self) -> bool:
        """End the innermost table; say whether it holds data: by its elements or, failing those, by its size."""
        rows, columns, _, is_data = self._open.pop()
        if is_data:
            return is_data > 0
        return rows > 1 and columns > 1 and (rows >= 10 or columns > 4 or rows * columns > 10)


def describe(node: LexborNode) -> tuple[str, int]:
    """Return the tag of an element and what the walk does with it."""
    tag = node.tag or ""
    return tag, WALK_ROLES.get(tag, INLINE)


def known_tags() -> dict[int, tuple[str, int]]:
    """Return what `describe` says by the parser's number of a tag, which it tells five times as fast as the name."""
    parser = LexborHTMLParser("x")
    nodes = [parser.create_node(tag) for tag in (*WALK_ROLES, *_INLINE) if tag.isalnum()]
    # What is no element of HTML is numbered by each page anew.
    return {node.tag_id: describe(node) for node in nodes if node.tag_id < _MAX_TAGS}


def text_number() -> int:
    """Return the parser's number of text."""
    body = LexborHTMLParser("x").body
    assert body is not None
    assert body.first_child is not None
    return body.first_child.tag_id


KNOWN_TAGS = known_tags()
TEXT_NUMBER = text_number()
_PRE = LexborHTMLParser("").create_node("pre").tag_id
_COLOURS = {number for number, (tag, role) in KNOWN_TAGS.items() if role == INLINE or tag == "a"}

"""A parsed page -> events for the block builder, in one iterative walk: what is skipped, what is inline, what is not.

No recursion and no look-ahead: time is linear in the number of nodes, whatever the nesting.
"""

from __future__ import annotations

import re

from selectolax.lexbor import LexborNode

from carnac.web.blocks import Block, BlockBuilder
from carnac.web.sources import Attributes, image_source
from carnac.web.tags import BANNERS, LINE_NUMBER_CLASSES, SECTIONS, SKIPPED, SKIPPED_ROLES, STRUCTURE

_LEAVES = frozenset(("img", "amp-img", "noscript", "br", "-comment", "-doctype", ""))
_HIDING = frozenset(("hidden", "aria-hidden", "role", "style"))
_CLASSIFIER = "classifier"  # docutils: the type of a term, set off by a style sheet
_PERMALINKS = frozenset(("\u00b6", "#", "\u00a7", "\U0001f517", "\u2693"))
_UNSEEN = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)


class Walk:
    """A walk over the subtree below `root`, which is itself not looked at."""

    def __init__(self, root: LexborNode, base: str) -> None:
        self._root = root
        self._base = base
        self._builder = BlockBuilder()
        self._num_sections = int(root.tag in SECTIONS)
        self._num_code = 0
        self._is_after_picture = False  # no text and no beginning of a block since
        self._copied: str | None = None  # URL of the last picture, if it came from a <noscript>

    def blocks(self) -> list[Block]:
        """Walk, and return the blocks."""
        entered: list[tuple[LexborNode, str]] = []
        node = self._root.first_child
        while True:
            if node is None:
                if not entered:
                    return self._builder.finish()
                node, tag = entered.pop()
                if tag in STRUCTURE:
                    self._leave(tag)
                node = node.next
                continue
            tag = node.tag or ""
            if tag == "-text":
                self._read(node.text_content or "")
                node = node.next
            elif tag not in SKIPPED and self._enter(node, tag):
                entered.append((node, tag))
                node = node.first_child
            else:
                node = node.next

    def _read(self, text: str) -> None:
        self._builder.text(text)
        if self._is_after_picture and not text.isspace():
            self._is_after_picture, self._copied = False, None

    def _enter(self, node: LexborNode, tag: str) -> bool:
        """Take an element in; say whether to walk below it."""
        if tag in _LEAVES:
            self._read_leaf(node, tag)
            return False
        attributes = node.attributes
        if attributes and self._is_left_out(node, tag, attributes):
            return False
        if tag in STRUCTURE:
            if tag in BANNERS and not self._num_sections:
                return False
            self._is_after_picture = False
            self._num_sections += tag in SECTIONS
            self._num_code += tag == "pre"
            self._builder.enter(tag)
        return True

    def _leave(self, tag: str) -> None:
        self._num_sections -= tag in SECTIONS
        self._num_code -= tag == "pre"
        self._builder.leave(tag)

    def _is_left_out(self, node: LexborNode, tag: str, attributes: Attributes) -> bool:
        if not _HIDING.isdisjoint(attributes) and _is_hidden(attributes):
            return True
        if tag == "a":
            return _is_permalink(node, attributes)
        if self._num_code:
            return _is_line_number(attributes)
        if tag == "span" and attributes.get("class") == _CLASSIFIER:
            self._builder.text(" : ")
        return False

    def _read_leaf(self, node: LexborNode, tag: str) -> None:
        if tag == "br":
            self._builder.line_break()
        elif tag == "noscript":
            self._read_noscript(node)
        elif tag in ("img", "amp-img") and not _is_hidden(node.attributes):
            self._add_picture(node.attributes)

    def _add_picture(self, attributes: Attributes, *, is_copy: bool = False) -> None:
        source = image_source(attributes, self._base)
        if source is None or (self._is_after_picture and source[0] == self._copied):
            return
        url, name = source
        block = Block(kind="image", url=url, attributes=attributes, source_attribute=name)
        self._builder.picture(block)
        self._is_after_picture, self._copied = True, url if is_copy else None

    def _read_noscript(self, node: LexborNode) -> None:
        """Take the pictures of a <noscript>, unless it follows the picture that it is the copy of."""
        if self._is_after_picture:
            return
        for image in node.css("img"):
            attributes = image.attributes
            if not _is_hidden(attributes) and not _is_beacon(attributes):
                self._add_picture(attributes, is_copy=True)


def _is_hidden(attributes: Attributes) -> bool:
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return True
    if (attributes.get("role") or "").lower() in SKIPPED_ROLES:
        return True
    style = attributes.get("style")
    return style is not None and _UNSEEN.search(style) is not None


def _is_beacon(attributes: Attributes) -> bool:
    """Say whether an image is one pixel or none: what counts visitors without scripts."""
    return any((attributes.get(name) or "").strip() in ("0", "1") for name in ("width", "height"))


def _is_permalink(node: LexborNode, attributes: Attributes) -> bool:
    """Say whether a link is the mark that a heading carries to be linked to."""
    child = node.first_child
    if child is None or child.next is not None or "#" not in (attributes.get("href") or ""):
        return False
    return (child.text_content or "").strip() in _PERMALINKS if child.tag == "-text" else False


def _is_line_number(attributes: Attributes) -> bool:
    classes = attributes.get("class")
    return classes is not None and not LINE_NUMBER_CLASSES.isdisjoint(classes.split())

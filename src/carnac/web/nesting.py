"""HTML text -> a refusal of the few pages whose parse would not end, before any parse.

Building a tree as HTML prescribes is quadratic in unclosed elements: lexbor takes 0.4 s for 20,000 nested `<div>`,
and for a page of 50 kB with 2,500 unclosed `<font>` followed by 2,500 paragraphs 5 s and 2 GB, since every paragraph
opens them all again. Nearly all pages are cleared by counting `<`; the others are simulated in one pass.
A page made to deceive the simulation can still cost seconds, but not much more: what is cleared by counting is small.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import product
from string import ascii_letters

import numpy as np
import numpy.typing as npt

from carnac.core.errors import RecordError
from carnac.web.tags import ENDS_ITSELF, FORMATTING, SCOPES, TABLE_PARTS, VOID

MAX_OPEN_WORK = 50_000_000  # sum over tags of the elements open at it: 10,000 nested elements
MAX_COPY_WORK = 1_000_000  # sum over tags of the formatting elements to reopen: lexbor's nodes take 360 bytes each
MAX_ATTRIBUTES = 5_000  # of one tag: lexbor compares each with all before it
Positions = npt.NDArray[np.int64]
_CLEAR_TAGS = 2_000  # half of them reopened by the other half: MAX_COPY_WORK
_SUSPECT_TAGS = 50_000
_LONG = 1 << 15  # characters without "<" that make a tag worth a look

_ATTRIBUTES = r"""(?:[^>="']++|=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))?|["'])*+"""
_VALUE = re.compile(r"""=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))""")
_TAG = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|textarea|title|xmp|iframe|noembed|noframes)\b.*?(?:</\1|\Z)"
    rf"|<(/?)([a-z][^\s/>]*+)({_ATTRIBUTES})(?:>|\Z)",
    re.IGNORECASE | re.DOTALL,
)


def _pairs(names: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Return which two characters, as 256 times one plus the other, may begin a tag of one of `names`."""
    found = np.zeros(1 << 16, np.bool_)
    for name in names:
        for second in name[1:2] or " \t\n\r\f/>":
            for one, two in product({name[0], name[0].upper()}, {second, second.upper()}):
                found[ord(one) << 8 | ord(two)] = True
    return found


_FORMATS = _pairs(FORMATTING)
# br, hr, im(g), in(put), me(ta), li(nk) and li: the last, and p, never nest.
_NESTS = np.repeat([chr(code) in ascii_letters for code in range(256)], 256)
_NESTS &= ~_pairs(("br", "hr", "img", "input", "meta", "link", "p"))


def check_nesting(html: bytes) -> None:
    """Raise RecordError `too_deep` for a page (UTF-8) that is too costly to parse."""
    _check_attributes(html)
    is_tag = np.frombuffer(html, np.uint8) == ord("<")
    # To list the tags costs four times what counting them does, and most pages end here.
    num_tags = int(np.count_nonzero(is_tag))
    if num_tags > _CLEAR_TAGS and (num_tags > _SUSPECT_TAGS or _is_suspect(html, np.flatnonzero(is_tag))):
        _Simulation().run(html.decode("utf_8", "replace"))


def _is_suspect(html: bytes, tags: Positions) -> bool:
    """Bound the work by counts: elements open at each tag, as if each that has no end tag stayed open."""
    codes = np.frombuffer(html + b"   ", np.uint8)
    first, second, third = (codes[tags + 1 + place] for place in range(3))
    is_end = first == ord("/")
    pairs = np.where(is_end, second, first).astype(np.uint16) << 8 | np.where(is_end, third, second)
    steps = np.where(is_end, -1, 1)
    return any(
        _area(steps * counted[pairs]) > most for counted, most in ((_NESTS, MAX_OPEN_WORK), (_FORMATS, MAX_COPY_WORK))
    )


def _area(steps: Positions) -> int:
    """Return the sum of a depth that takes `steps` and never falls below zero."""
    depths = np.cumsum(steps)
    return int((depths - np.minimum(np.minimum.accumulate(depths), 0)).sum())


def _check_attributes(html: bytes) -> None:
    """Look at tags that hold no other "<" for a long stretch: inline data, or attributes without end."""
    half = _LONG // 2
    stop = 0
    for at in range(0, len(html) - half + 1, half):
        # A long stretch holds one of these blocks whole.
        if at < stop or html.find(b"<", at, at + half) >= 0:
            continue
        start, stop = html.rfind(b"<", 0, at), html.find(b"<", at + half)
        stop = len(html) if stop < 0 else stop
        if start >= 0 and stop - start > _LONG:
            _check_tag(html[start : min(stop, start + 4 * _LONG)])


def _check_tag(tag: bytes) -> None:
    if tag[1:2].isalpha() and tag.find(b">", 0, _LONG) < 0:
        names = _VALUE.sub("", tag.decode("utf_8", "replace"))
        if len(names.split(None, MAX_ATTRIBUTES)) > MAX_ATTRIBUTES:
            raise RecordError("too_deep", f"a tag with more than {MAX_ATTRIBUTES:,} attributes")


class _Simulation:
    """Which elements are open, about as the HTML standard's tree construction has it, without building a tree."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._scopes: list[Counter[str]] = [Counter()]  # names open since each table, object, ... was opened
        self._formatting: Counter[str] = Counter()  # tags, with attributes, of formatting elements not closed
        self._last_tag: dict[str, list[str]] = {}
        self._num_copies = 0
        self._open_work = self._copy_work = 0

    def run(self, html: str) -> None:
        for tag in _TAG.finditer(html):
            if tag[3] is None:
                continue
            name = tag[3].lower()
            self._open_work += len(self._open)
            self._copy_work += self._num_copies
            if self._open_work > MAX_OPEN_WORK or self._copy_work > MAX_COPY_WORK:
                raise RecordError("too_deep", f"{len(self._open):,} elements open at character {tag.start():,}")
            if name in FORMATTING:
                self._format(name, tag[4], closes=bool(tag[2]))
            if name in TABLE_PARTS:
                self._pop_to_table()
            elif tag[2]:
                self._close(name)
            elif name not in VOID and name not in ENDS_ITSELF and not (tag[4].endswith("/") and self._is_foreign()):
                self._push(name)

    def _is_foreign(self) -> bool:
        return bool(self._scopes[-1]["svg"] or self._scopes[-1]["math"])

    def _push(self, name: str) -> None:
        self._open.append(name)
        if name in SCOPES:
            self._scopes.append(Counter())
        self._scopes[-1][name] += 1

    def _pop(self) -> str:
        name = self._open.pop()
        self._scopes[-1][name] -= 1
        if name in SCOPES:
            self._scopes.pop()
        return name

    def _close(self, name: str) -> None:
        if self._scopes[-1][name]:
            while self._pop() != name:
                pass

    def _pop_to_table(self) -> None:
        if self._scopes[-1]["table"]:
            while self._open[-1] != "table":
                self._pop()

    def _format(self, name: str, attributes: str, *, closes: bool) -> None:
        """Count the formatting elements that a new paragraph would open again: three per equal tag, at most."""
        tags = self._last_tag.setdefault(name, [])
        if not closes:
            if name == "a":  # a link ends the one before it
                self._format(name, "", closes=True)
            tags.append(name + attributes)
            self._formatting[tags[-1]] += 1
            self._num_copies += self._formatting[tags[-1]] <= 3
        elif tags:
            self._num_copies -= self._formatting[tags[-1]] <= 3
            self._formatting[tags.pop()] -= 1

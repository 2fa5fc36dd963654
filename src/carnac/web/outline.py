"""The outline of a page: its block elements with what is in them counted, its texts and pictures in reading order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from carnac.web.blocks import ACTIVE, Block, BlockBuilder
from carnac.web.names import Names

# What is counted: an outline keeps these eleven numbers at both ends of every block element, so that what an element
# holds is a difference, and costs nothing until it is asked for.
TEXT, LINKED, COMMAS, PARAGRAPHS, PICTURES, ITEMS, INPUTS, HEADINGS, VIDEOS, BLOCKS, FIGURES = range(11)
NUM_COUNTS = 11
_SHARES = (1, 2, 6, 9, 12)  # Readability.js's: the farther an element is around a paragraph, the less it is credited


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFacts:
    """What a walk must know of the page: what links are relative to, and the words of the title.

    `comments` are kept, or not; `max_width`: see `sources.node_source`.
    """

    base: str
    title: frozenset[str] = frozenset()
    comments: bool = False
    max_width: int | None = None


class Element:
    """A block element. `begin` and `end` are its events in the outline, `index` and `last` its elements.

    `marks` at `before` and `after` are the counts at its two ends, `removed` what was dropped in between. `points`:
    what the paragraphs in it, and in the elements below it, credit it with.
    """

    end: int = 0
    last: int = 0
    after: int = 0
    points: float = 0.0
    credit: float = 0.0
    is_credited: bool = False
    is_dropped: bool = False
    is_data_table: bool = False
    is_listing: bool = False
    is_inside: bool = False  # of a figure, a table or a listing
    removed: Sequence[float] | None = None
    children: int = 0
    loose: int = 0  # paragraphs of text directly in it

    def __init__(
        self, tag: str, parent: Element | None, names: Names, begin: int, index: int, marks: list[float]
    ) -> None:
        self.tag, self.parent, self.names = tag, parent, names
        self.begin, self.index, self.marks, self.before = begin, index, marks, len(marks)

    @property
    def is_near_table(self) -> bool:
        """Whether it is a table, or one of the three elements around it is."""
        at: Element | None = self
        for _ in range(4):
            if at is None:
                return False
            if at.tag == "table":
                return True
            at = at.parent
        return False

    def count(self, what: int) -> float:
        """Return how much of `what` (TEXT, LINKED, ...) is in the element and was not dropped."""
        number = self.marks[self.after + what] - self.marks[self.before + what]
        return number if self.removed is None else number - self.removed[what]

    @property
    def is_paragraph(self) -> bool:
        """Whether it is a paragraph, or a div that is used as one."""
        return self.tag == "p" or (self.tag == "div" and self._whole(BLOCKS) == 1)

    def whole(self) -> list[float]:
        """Return all counts, of what was dropped too."""
        return [self._whole(what) for what in range(NUM_COUNTS)]

    def _whole(self, what: int) -> float:
        return self.marks[self.after + what] - self.marks[self.before + what]

    @property
    def link_density(self) -> float:
        """Return the share of its text that is linked."""
        text = self.count(TEXT)
        return self.count(LINKED) / text if text else 0.0

    def give(self, credit: float) -> None:
        """Credit the element for its paragraphs, and by less and less the four around it."""
        at: Element | None = self
        for share in _SHARES:
            if at is None or at.parent is None:
                return
            at.points += credit / share
            at.is_credited = True
            at = at.parent


Event = str | Block | Element | None  # None: the end of the innermost element that is open


@dataclass(slots=True)
class Outline:
    """A page: `elements` in document order, the first of which is the root, and `events` in reading order.

    `flawed` are the pictures that are none of an article's, each with the number of events before it.
    """

    elements: list[Element]
    events: list[Event]
    flawed: list[tuple[int, Block]]
    is_cut: bool = False  # elements are marked as dropped

    def restore(self) -> None:
        """Take back what was dropped."""
        if not self.is_cut:
            return
        for element in self.elements:
            element.is_dropped, element.removed = False, None


def build_blocks(outline: Outline, elements: Iterable[Element], *, plain: bool = False) -> list[Block]:
    """Return the blocks of what `elements` of an outline keep, in reading order."""
    builder = BlockBuilder(plain=plain)
    events = outline.events
    for element in elements:
        opened: list[str] = []
        at, end = element.begin, element.end
        if element.parent is None:
            at, end = 0, len(events)
        while at < end:
            event = events[at]
            at += 1
            if event is None:
                if (tag := opened.pop()) in ACTIVE or builder.is_in_code:
                    builder.leave(tag)
            elif isinstance(event, str):
                builder.text(event)
            elif isinstance(event, Block):
                builder.picture(event)
            elif event.is_dropped:
                at = event.end
            else:
                opened.append(event.tag)
                if event.tag in ACTIVE or builder.is_in_code:
                    builder.enter(event.tag)
    return builder.finish()

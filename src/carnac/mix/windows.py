"""Long samples to windows that fit a row. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from carnac.core.errors import InputError
from carnac.mix.settings import Windows
from carnac.sequence.layout import Layout

Slot = tuple[int, int]
Window = tuple[int, int, int]

# Where windows begin at images, so much of a row stands before the first one: what an image belongs to is mostly the
# paragraph before it, of some 60 tokens.
LEAD = 1 / 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The windows (start, stop, images) of a sample, and what is in none: positions, exchanges of a conversation."""

    windows: tuple[Window, ...]
    positions_left_out: int = 0
    exchanges_left_out: int = 0


def cut_layout(layout: Layout, max_tokens: int, max_images: int, windows: Windows = "all") -> Cut:
    """Cut a sample into windows within both budgets; a conversation gives one, a sample that fits whole too.

    Raises InputError when an image alone is over a budget.
    """
    squares = [len(starts) for starts in layout.tiles]
    length = len(layout.ids)
    if layout.turn_ends:
        return first_exchanges(layout.turn_ends, layout.slots, max_tokens, max_images, squares)
    if windows == "all" or (length <= max_tokens and sum(squares) <= max_images):
        return Cut(windows=tuple(cut_windows(length, layout.slots, max_tokens, max_images, squares)))
    found = cut_at_images(length, layout.slots, max_tokens, max_images, squares)
    return Cut(windows=tuple(found), positions_left_out=length - sum(stop - start for start, stop, _ in found))


def cut_windows(
    length: int, slots: Sequence[Slot], max_tokens: int, max_images: int, squares: Sequence[int] | None = None
) -> list[Window]:
    """Cut positions [0, length) into (start, stop, images), each within both budgets, none splitting an image's tokens.

    An image counts as many times as the vision tower is shown a square of it (`squares`, one per slot; None: once).
    Windows are as long as they can be, so that they fill rows; every position is in exactly one. A single position left
    at the end would carry no label, so the window before it gives it company where that splits no image.
    Raises InputError when an image alone is over a budget.
    """
    images = _Images(slots, squares, max_tokens, max_images)
    windows = []
    position = 0
    while position < length:
        stop = images.stop_of(position, length)
        if length - stop == 1 and (earlier := images.unsplit(stop - 1)) > position:
            # Never over a budget unless an image fills a whole window; then the single position stays alone.
            stop = earlier if length - earlier <= max_tokens else stop
        windows.append((position, stop, images.number(position, stop)))
        position = stop
    return windows


def cut_at_images(
    length: int, slots: Sequence[Slot], max_tokens: int, max_images: int, squares: Sequence[int] | None = None
) -> list[Window]:
    """Cut windows as `cut_windows`, but each begins shortly before an image (`LEAD`).

    What no window reaches is left out: a long text with few images gives the stretches around them.
    """
    images = _Images(slots, squares, max_tokens, max_images)
    windows: list[Window] = []
    position = 0
    for start, tokens in slots:
        if start < position:
            continue  # in the window before
        begin = max(position, start - int(max_tokens * LEAD), start + tokens - max_tokens)
        position = images.stop_of(begin, length)
        windows.append((begin, position, images.number(begin, position)))
    return windows


def first_exchanges(
    turn_ends: Sequence[int], slots: Sequence[Slot], max_tokens: int, max_images: int, squares: Sequence[int]
) -> Cut:
    """Keep as many exchanges of a conversation as fit a row, from the first one on.

    What comes later may speak of what came before, an image above all: without it, it would teach to guess.
    """
    images = _Images(slots, squares, max_tokens, max_images)
    fitting = [stop for stop in turn_ends if stop <= max_tokens and images.number(0, stop) <= max_images]
    stop = max(fitting, default=0)
    return Cut(
        windows=((0, stop, images.number(0, stop)),) if stop else (),
        positions_left_out=turn_ends[-1] - stop,
        exchanges_left_out=len(turn_ends) - len(fitting),
    )


class _Images:
    """Where the images of a sample stand, beside what a row holds."""

    def __init__(self, slots: Sequence[Slot], squares: Sequence[int] | None, max_tokens: int, max_images: int) -> None:
        squares = [1] * len(slots) if squares is None else squares
        _check_budgets(slots, squares, max_tokens, max_images)
        self._slots, self._max_tokens, self._max_images = slots, max_tokens, max_images
        self._starts = [start for start, _ in slots]
        self._before = [0, *accumulate(squares)]  # squares before image i

    def number(self, start: int, stop: int) -> int:
        """Return the squares of the images that begin in [start, stop)."""
        return self._before[bisect_left(self._starts, stop)] - self._before[bisect_left(self._starts, start)]

    def stop_of(self, position: int, length: int) -> int:
        """Return how far a window that begins at `position` reaches at most."""
        stop = min(position + self._max_tokens, length)
        first = self._before[bisect_left(self._starts, position)]
        too_many = bisect_right(self._before, first + self._max_images) - 1
        if too_many < len(self._starts):
            stop = min(stop, self._starts[too_many])
        return self.unsplit(stop)

    def unsplit(self, stop: int) -> int:
        """Return `stop`, or the start of the image that a cut there would split."""
        index = bisect_right(self._starts, stop) - 1
        if index >= 0 and self._slots[index][0] < stop < sum(self._slots[index]):
            return self._slots[index][0]
        return stop


def _check_budgets(slots: Sequence[Slot], squares: Sequence[int], max_tokens: int, max_images: int) -> None:
    longest = max((tokens for _, tokens in slots), default=0)
    if longest > max_tokens:
        raise InputError(
            f"an image fills {longest} tokens but a row only holds {max_tokens}. Raise row_tokens, or show the tower "
            "fewer patches (smaller size_px, larger patch_px) or fewer tiles (max_tiles)."
        )
    if slots and max_images < 1:
        raise InputError("row_images is 0 but samples hold images. Raise row_images, or make shards without images.")
    most = max(squares, default=0)
    if most > max_images:
        raise InputError(
            f"an image is shown as {most} squares (its tiles and the whole) but a row only holds {max_images} "
            "(row_images). Raise row_images or lower max_tiles."
        )

"""Long samples to windows that fit a row. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from carnac.core.errors import InputError

Slot = tuple[int, int]


def cut_windows(
    length: int, slots: Sequence[Slot], max_tokens: int, max_images: int, squares: Sequence[int] | None = None
) -> list[tuple[int, int, int]]:
    """Cut positions [0, length) into (start, stop, images), each within both budgets, none splitting an image's tokens.

    An image counts as many times as the vision tower is shown a square of it (`squares`, one per slot; None: once).
    Windows are as long as they can be, so that they fill rows; every position is in exactly one. A single position left
    at the end would carry no label, so the window before it gives it company where that splits no image.
    Raises InputError when an image alone is over a budget.
    """
    squares = [1] * len(slots) if squares is None else squares
    _check_budgets(slots, squares, max_tokens, max_images)
    starts = [start for start, _ in slots]
    before = [0, *accumulate(squares)]  # squares before image i
    windows = []
    position = 0
    while position < length:
        first = bisect_left(starts, position)
        stop = min(position + max_tokens, length)
        too_many = bisect_right(before, before[first] + max_images) - 1
        if too_many < len(starts):
            stop = min(stop, starts[too_many])
        stop = _before_image(stop, slots, starts)
        if length - stop == 1 and (earlier := _before_image(stop - 1, slots, starts)) > position:
            # Never over a budget unless an image fills a whole window; then the single position stays alone.
            stop = earlier if length - earlier <= max_tokens else stop
        windows.append((position, stop, before[bisect_left(starts, stop)] - before[first]))
        position = stop
    return windows


def _before_image(stop: int, slots: Sequence[Slot], starts: Sequence[int]) -> int:
    """Return `stop`, or the start of the image that a cut there would split."""
    index = bisect_right(starts, stop) - 1
    if index >= 0 and slots[index][0] < stop < sum(slots[index]):
        return slots[index][0]
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

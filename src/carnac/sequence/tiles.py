"""How a picture of any size is cut into squares. Pure arithmetic: sizes in, sizes, boxes and counts out.

Two cuts, float rounding included, so that an exported model is shown by transformers' processors what it was trained
on: the grid of Idefics3 (Laurencon et al. 2024, arXiv 2408.12637), and the four quarters of Idefics2 (Laurencon et al.
2024, arXiv 2405.02246), whose pictures may keep their shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from carnac.sequence.settings import PictureSettings

Size = tuple[int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """What becomes of one picture.

    `fitted` is the (width, height) it is resized to first, keeping its aspect; then it is stretched to `rows` x
    `columns` tiles. (0, 0): no tiles, the whole picture alone. The whole picture is one more square, after the tiles.
    `fitted` is None where each square is resized by itself: native pictures, and quarters.
    """

    fitted: Size | None
    rows: int
    columns: int

    @property
    def squares(self) -> int:
        """Number of squares that the vision tower is shown."""
        return self.rows * self.columns + 1


def tiling(size: Size | None, settings: PictureSettings) -> Tiling:
    """Return the tiling of a picture of (width, height) pixels; None is one that cannot be read: one grey square.

    Quarters are five squares whatever the size: of a picture that cannot be read, too.
    """
    side = settings.size_px
    if settings.quartered:
        return Tiling(fitted=None, rows=2, columns=2)
    if settings.aspect == "native":
        return Tiling(fitted=None, rows=0, columns=0)
    if size is None or settings.max_tiles == 1:
        return Tiling(fitted=(side, side), rows=0, columns=0)
    width, height = _fitted(*size, side * settings.max_tiles)
    aspect = width / height
    if width >= height:
        columns = math.ceil(width / side)
        rows = math.ceil(int(columns * side / aspect) / side)
    else:
        rows = math.ceil(height / side)
        columns = math.ceil(int(rows * side * aspect) / side)
    return Tiling(fitted=(width, height), rows=max(rows, 1), columns=max(columns, 1))


def native_size(size: Size, settings: PictureSettings) -> Size:
    """Return the (width, height) that a native picture is resized to, before it is cut to whole patches.

    The longer side becomes at most `size_px`; then each side is stretched to at least `shortest_side_px`, which may
    change the aspect. As Idefics2's processor.
    """
    width, height = size
    aspect, longest = width / height, settings.size_px
    if width >= height and width > longest:
        width, height = longest, int(longest / aspect)
    elif height > longest:
        width, height = int(longest * aspect), longest
    return max(width, settings.shortest_side_px), max(height, settings.shortest_side_px)


def whole_patches(size: Size, settings: PictureSettings) -> Size:
    """Return the (width, height) in pixels of the whole patches in `size`: what the tower sees of it."""
    patch = settings.patch_px
    return size[0] // patch * patch, size[1] // patch * patch


def square_boxes(size: Size, found: Tiling) -> list[Box]:
    """Return the parts of a picture of `size` that become squares of their own: its quarters if cut, then the whole.

    A side of one pixel, which has no half, stands in both halves.
    """
    width, height = size
    whole = (0, 0, width, height)
    if not found.rows:
        return [whole]
    columns, rows = _halves(width), _halves(height)
    return [*((left, top, right, bottom) for top, bottom in rows for left, right in columns), whole]


def _halves(length: int) -> tuple[tuple[int, int], tuple[int, int]]:
    middle = length // 2
    return (0, max(middle, 1)), (middle, length)


def _fitted(width: int, height: int, longest: int) -> Size:
    """Return the size with the longer side at `longest`, smaller pictures enlarged, the other side made even."""
    aspect = width / height
    if width >= height:
        return longest, _even(int(longest / aspect))
    return _even(int(longest * aspect)), longest


def _even(length: int) -> int:
    return max(length + length % 2, 1)

"""How a picture of any size is cut into squares. Pure arithmetic: sizes in, sizes and counts out.

The grid is that of Idefics3 (Laurencon et al. 2024, arXiv 2408.12637), float rounding included, so that a model
exported to that format is shown by transformers' processor what it was trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from carnac.sequence.settings import PictureSettings

Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """What becomes of one picture.

    `fitted` is the (width, height) it is resized to first, keeping its aspect; then it is stretched to `rows` x
    `columns` tiles. (0, 0): no tiles, the whole picture alone. The whole picture is one more square, after the tiles.
    """

    fitted: Size
    rows: int
    columns: int

    @property
    def squares(self) -> int:
        """Number of squares that the vision tower is shown."""
        return self.rows * self.columns + 1


def tiling(size: Size | None, settings: PictureSettings) -> Tiling:
    """Return the tiling of a picture of (width, height) pixels; None is one that cannot be read: one grey square."""
    side = settings.size_px
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


def _fitted(width: int, height: int, longest: int) -> Size:
    """Return the size with the longer side at `longest`, smaller pictures enlarged, the other side made even."""
    aspect = width / height
    if width >= height:
        return longest, _even(int(longest / aspect))
    return _even(int(longest * aspect)), longest


def _even(length: int) -> int:
    return max(length + length % 2, 1)

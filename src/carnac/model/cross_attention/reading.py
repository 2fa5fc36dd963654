"""Which tokens of a packed batch read which images. Pure index arithmetic: positions and places in, groups out.

Tokens that read the same images stand in one group and are computed together. What is in no group is not computed, so
that nothing can leak: no mask stands between a token and another piece's image. Legend of shapes: R rows, T tokens of a
row, N squares, A tokens that read an image, G groups, L tokens of the longest group, M images of a group at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Attend = Literal["previous", "next", "earlier"]
NONE = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """Tokens in groups.

    tokens   int64 [A]        those that read an image, as indices into the R * T tokens, rising
    slots    int64 [A]        where each stands among the G * L places of the groups
    images   int64 [G, M]     what a group reads; places without an image hold image 0 and are masked
    longest  L
    mask     bool [G, L, M]   whether a token reads an image; None: every token all images of its group. Places without
                              a token read all, so that none of them is a row of nothing (0 / 0)
    unread   int64 [U]        tokens that read none in rows that have images: what a leaking mask would touch
    rows     int64 [U]        their rows
    row_of   int64 [N]        the row of each image
    """

    tokens: Integers
    slots: Integers
    images: Integers
    longest: int
    mask: npt.NDArray[np.bool_] | None
    unread: Integers
    rows: Integers
    row_of: Integers


def read_images(
    positions: Integers, first_places: Integers, attend: Attend, next_image: npt.NDArray[np.bool_] | None = None
) -> Reading:
    """Return who reads what: `positions` int64 [R, T] restart at each piece, `first_places` int64 [N] rise.

    A place is an index into the R * T tokens in row-major order. `next_image` bool [R, T]: tokens that read the next
    image whatever `attend` says.
    """
    pieces = pieces_of(positions)
    piece_of = pieces[first_places]
    previous, following = _previous(pieces, piece_of, first_places), _next(pieces, piece_of, first_places)
    row_of = first_places // positions.shape[1]
    if attend == "earlier":
        one = np.where(next_image.ravel(), following, NONE) if next_image is not None else None
        return _grouped_by_piece(pieces, piece_of, previous, one, row_of, positions.shape[1])
    reads = following if attend == "next" else previous
    if next_image is not None:
        reads = np.where(next_image.ravel(), following, reads)
    tokens = np.flatnonzero(reads != NONE)
    return _grouped(
        tokens, reads[tokens], np.arange(len(first_places))[:, None], None, (row_of, positions.shape[1], len(pieces))
    )


def pieces_of(positions: Integers) -> Integers:
    """Return int64 [R * T]: the number of the piece that each token is in, padding being a piece of its own."""
    starts = positions == 0
    starts[:, 0] = True
    return np.asarray(starts.ravel().cumsum() - 1, dtype=np.int64)


def _previous(pieces: Integers, piece_of: Integers, places: Integers) -> Integers:
    """Return for each token the last image of its piece at or before it, else `NONE`."""
    found = np.searchsorted(places, np.arange(len(pieces)), side="right") - 1
    return _of_same_piece(found, pieces, piece_of)


def _next(pieces: Integers, piece_of: Integers, places: Integers) -> Integers:
    """Return for each token the first image of its piece at or after it, else `NONE`."""
    found = np.searchsorted(places, np.arange(len(pieces)), side="left")
    return _of_same_piece(np.where(found < len(places), found, NONE), pieces, piece_of)


def _of_same_piece(found: Integers, pieces: Integers, piece_of: Integers) -> Integers:
    if not len(piece_of):
        return np.full(len(pieces), NONE)
    return np.where((found != NONE) & (piece_of[found] == pieces), found, NONE)


def _grouped_by_piece(
    pieces: Integers, piece_of: Integers, previous: Integers, one: Integers | None, row_of: Integers, width: int
) -> Reading:
    """Group the tokens of a piece: each reads its images up to `previous`, or `one` alone where that is set."""
    with_images, first, counts = np.unique(piece_of, return_index=True, return_counts=True)
    number = np.full(int(pieces[-1]) + 1, NONE)
    number[with_images] = np.arange(len(with_images))
    reads = previous if one is None else np.where(one != NONE, one, previous)
    tokens = np.flatnonzero(reads != NONE)
    groups = number[pieces[tokens]]
    most = int(counts.max(initial=0))
    offsets = np.arange(most)
    images = np.where(offsets < counts[:, None], first[:, None] + offsets, 0)
    last = (reads[tokens] - first[groups])[:, None]
    allowed = offsets <= last
    if one is not None:
        alone = one[tokens] != NONE
        allowed = np.where(alone[:, None], offsets == last, allowed)
    return _grouped(tokens, groups, images, allowed, (row_of, width, len(pieces)))


def _grouped(
    tokens: Integers,
    groups: Integers,
    images: Integers,
    allowed: npt.NDArray[np.bool_] | None,
    shape: tuple[Integers, int, int],
) -> Reading:
    """Lay tokens [A] of `groups` [A] side by side; `allowed` bool [A, M]."""
    row_of, width, total = shape
    sizes = np.bincount(groups, minlength=len(images))
    longest = int(sizes.max(initial=0))
    order = np.argsort(groups, kind="stable")
    inside = np.empty(len(tokens), dtype=np.int64)
    inside[order] = np.arange(len(tokens)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    slots = groups * longest + inside
    mask = None
    if allowed is not None and images.shape[1] > 1:
        flat = np.ones((len(images) * longest, images.shape[1]), dtype=np.bool_)
        flat[slots] = allowed
        mask = flat.reshape(len(images), longest, -1)
    reading = np.zeros(total, dtype=np.bool_)
    reading[tokens] = True
    has_images = np.zeros(total // width, dtype=np.bool_)
    has_images[row_of] = True
    unread = np.flatnonzero(~reading & np.repeat(has_images, width))
    return Reading(
        tokens=tokens,
        slots=slots,
        images=images,
        longest=longest,
        mask=mask,
        unread=unread,
        rows=unread // width,
        row_of=row_of,
    )

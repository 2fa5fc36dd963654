"""Which tokens of a packed batch read which images. Pure index arithmetic: positions and places in, groups out.

Tokens that read the same images stand in one group, or in several where they are many, and are computed together. What
is in no group is not computed, so that nothing can leak: no mask stands between a token and another piece's image.
Legend of shapes: R rows, T tokens of a row, N squares, A tokens that read an image, G groups, L tokens of the longest
group, M images of a group at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from carnac.core.batch import Batch
from carnac.core.seeds import unit_interval

Integers = npt.NDArray[np.int64]
Attend = Literal["previous", "next", "earlier"]
NONE = -1
# Groups are padded to the longest, and long ones are cut where that would take more places than so many times the
# tokens: 12.6 times with 600 of 1,000 tokens behind one of 21 images, and a step took 1.20 times as long on one core.
MAX_PADDING = 1.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """Tokens in groups.

    tokens   int64 [A]        those that read an image, as indices into the R * T tokens, rising
    slots    int64 [A]        where each stands among the G * L places of the groups
    images   int64 [G, M]     what a group reads; places without an image hold the group's first and are masked
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
    image, or none where none follows, whatever `attend` says.
    """
    assert (np.diff(first_places) > 0).all(), "places of images must rise"
    pieces = pieces_of(positions)
    piece_of = pieces[first_places]
    following = _next(pieces, piece_of, first_places)
    reads = following if attend == "next" else _previous(pieces, piece_of, first_places)
    if next_image is not None:
        reads = np.where(next_image.ravel(), following, reads)
    tokens = np.flatnonzero(reads != NONE)
    shape = (first_places // positions.shape[1], positions.shape[1], len(pieces))
    if attend != "earlier":
        return _grouped(tokens, reads[tokens], np.arange(len(first_places))[:, None], None, shape)
    alone = np.zeros(len(tokens), dtype=np.bool_) if next_image is None else next_image.ravel()[tokens]
    groups, images, allowed = _earlier(pieces[tokens], piece_of, reads[tokens], alone)
    return _grouped(tokens, groups, images, allowed, shape)


def next_image_of(batch: Batch, share: float) -> npt.NDArray[np.bool_] | None:
    """Return bool [R, T]: tokens of the pieces, `share` of all, that read the next image while training; None: none do.

    Drawn from what the piece is: the same in every epoch, on every rank and in every micro-batch.
    """
    if not share:
        return None
    drawn = [
        unit_interval("next image", piece.source, piece.shard, piece.row, piece.start) < share
        for piece in batch.provenance
    ]
    chosen: npt.NDArray[np.bool_] = np.append(np.array(drawn, dtype=np.bool_), False)[batch.segment]  # padding: -1
    return chosen


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


def _earlier(
    pieces: Integers, piece_of: Integers, reads: Integers, alone: npt.NDArray[np.bool_]
) -> tuple[Integers, Integers, npt.NDArray[np.bool_]]:
    """Return groups [A], images [G, M] and who reads which, bool [A, M]: a group for each piece that has images.

    Each of the tokens, which are in `pieces` [A], reads its piece's images up to `reads` [A], or that one `alone` [A].
    """
    with_images, first, counts = np.unique(piece_of, return_index=True, return_counts=True)
    groups = np.searchsorted(with_images, pieces)
    offsets = np.arange(int(counts.max(initial=0)))
    # Places without an image repeat one of the piece: masked, but zero times another piece's NaN would be a NaN here.
    images = first[:, None] + np.where(offsets < counts[:, None], offsets, 0)
    last = (reads - first[groups])[:, None]
    return groups, images, np.where(alone[:, None], offsets == last, offsets <= last)


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
    if len(images) * longest > MAX_PADDING * len(tokens):
        longest = -(-len(tokens) // len(images))  # the mean
        parts = -(-sizes // longest)
        groups = (np.cumsum(parts) - parts)[groups] + inside // longest
        images, inside = np.repeat(images, parts, axis=0), inside % longest
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

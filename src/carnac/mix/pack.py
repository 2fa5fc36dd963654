"""Pieces to rows within a token and an image budget: near the fewest rows that whole pieces can be placed in. Pure.

Four ways are tried on a block, until one fills its rows:

- completion, a form of minimum bin slack (Gupta and Ho, 1999), fills rows to 0.999 where lengths are many, as those of
  web documents;
- best fit, largest first, is better where images are nearly the bound, spreading over as few rows as can be where they
  are: of one image and 53 tokens each, rows of 512 and 8 images hold 0.97 of the images by best fit, 1.00 spread;
- patterns (`mix.patterns`) win where lengths are few and much the same, as those of image-text pairs and of
  conversations. Of pieces of 76 to 125 tokens, rows of 512 are 0.941 full by best fit, 0.979 by completion, 0.999 by
  patterns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from carnac.mix.patterns import Patterns, best_patterns, place_by_patterns

Counts = npt.NDArray[np.integer]
Kind = tuple[int, int]  # tokens, images

# Third pieces tried beside a pair. Of pieces of 200 tokens, rows of 1,024 were 0.984 full with 4, 0.988 with 8.
TRIES = 8
ENOUGH = 0.997  # of what the budgets allow: nothing else is tried
# Patterns are tried on blocks below this, of so many rows: in fewer, one that is half empty tells nothing.
POOR, POOR_ROWS = 0.992, 50
EACH = 10  # pieces of each length on average: of fewer, most would be left over, and to find patterns takes seconds
MANY = 32  # pieces in a row: so many fill it well enough whatever they are, and patterns of them take long to find
MAX_SOLVED = 4  # times that patterns are looked for: where they never suit, it is no use


class Packer:
    """Packs block after block; patterns are found on the first block that needs them, and kept."""

    def __init__(self, row_tokens: int, row_images: int) -> None:
        self._row_tokens, self._row_images = row_tokens, row_images
        self._patterns: Patterns | None = None
        self._solved = 0

    def pack(self, tokens: Counts, images: Counts) -> list[list[int]]:
        """Place piece i, of `tokens[i]` positions and `images[i]` images, in a row; return the pieces of each row.

        Every piece must fit an empty row.
        """
        rows = pack(tokens, images, self._row_tokens, self._row_images)
        least = max(tokens.sum() / self._row_tokens, images.sum() / max(1, self._row_images))
        if may_need_patterns(np.bincount(tokens), least, len(rows), self._row_tokens):
            other = self._by_patterns(tokens, images)
            return min(rows, other, key=len)
        return rows

    def _by_patterns(self, tokens: Counts, images: Counts) -> list[list[int]]:
        most = self._row_images // int(images.max()) if images.max() else len(tokens)
        rows: list[list[int]] = []
        left = list(range(len(tokens)))
        if self._patterns is not None:
            rows, left = place_by_patterns(self._patterns, tokens, most)
        if 2 * len(left) > len(tokens) and self._solved < MAX_SOLVED:  # none yet, or the mixture has changed since
            self._solved += 1
            self._patterns = best_patterns(*np.unique(tokens, return_counts=True), self._row_tokens)
            rows, left = place_by_patterns(self._patterns, tokens, most)
        rest = pack(tokens[left], images[left], self._row_tokens, self._row_images) if left else []
        return rows + [[left[piece] for piece in row] for row in rest]


def may_need_patterns(pieces: Counts, least: float, num_rows: int, row_tokens: int) -> bool:
    """Say whether patterns are worth looking for where `num_rows` rows are used and the budgets need `least`.

    `pieces[n]` is the number of pieces of n positions.
    """
    number, total = int(pieces.sum()), int(pieces @ np.arange(len(pieces)))
    is_poor = num_rows >= POOR_ROWS and least < POOR * num_rows
    return is_poor and total * MANY > row_tokens * number and int(np.count_nonzero(pieces)) * EACH <= number


def pack(tokens: Counts, images: Counts, row_tokens: int, row_images: int) -> list[list[int]]:
    """Place pieces as `Packer`, without patterns. Equal pieces keep their order."""
    for sizes, budget, least in ((tokens, row_tokens, 1), (images, row_images, 0)):
        assert not len(sizes) or (sizes.min() >= least and sizes.max() <= budget), f"a piece fits no row of {budget}"
    least = max(tokens.sum() / row_tokens, images.sum() / max(1, row_images))
    rows = pack_completing(tokens, images, row_tokens, row_images)
    if least < ENOUGH * len(rows):
        rows = min(rows, pack_best_fit(tokens, images, row_tokens, row_images), key=len)
    if least < ENOUGH * len(rows) and images.sum() / max(1, row_images) == least:
        rows = min(rows, pack_spreading(tokens, images, row_tokens, row_images), key=len)
    return rows


def pack_best_fit(tokens: Counts, images: Counts, row_tokens: int, row_images: int) -> list[list[int]]:
    """Place the largest piece first, into the row that it leaves the least room in, else into a new one.

    Large means the sum of its shares of both budgets: longest first filled rows of 2,048 tokens and 20 images to 0.83
    where this fills 0.998 (log-normal lengths, one image per piece on average). Among rows of equal room that with the
    fewest images to spare is taken.

    The rows with k images to spare are a bit set over their room, so that the best is one shift and a lowest bit away
    for each k.
    """
    rows: list[list[int]] = []
    room = [0] * (row_images + 1)
    rows_at: dict[tuple[int, int], list[int]] = defaultdict(list)
    order = np.argsort(-_shares(tokens, images, row_tokens, row_images), kind="stable")
    for piece, need, pictures in zip(order.tolist(), tokens[order].tolist(), images[order].tolist(), strict=True):
        left, spare = _tightest(room, need, pictures, row_tokens + 1)
        if left > row_tokens:
            left, spare = row_tokens, row_images
            row = len(rows)
            rows.append([piece])
        else:
            row = rows_at[left, spare].pop()
            rows[row].append(piece)
            if not rows_at[left, spare]:
                room[spare] &= ~(1 << left)
        if left > need:
            rows_at[left - need, spare - pictures].append(row)
            room[spare - pictures] |= 1 << (left - need)
    return rows


def pack_spreading(tokens: Counts, images: Counts, row_tokens: int, row_images: int) -> list[list[int]]:
    """Place the largest piece first, where both budgets then have most left, in as few rows as the images need."""
    rows: list[list[int]] = [[] for _ in range(-(-int(images.sum()) // row_images))]
    rooms = [0] * (row_images + 1)
    rooms[row_images] = 1 << row_tokens if rows else 0
    rows_at: dict[Kind, list[int]] = defaultdict(list, {(row_tokens, row_images): list(range(len(rows)))})
    order = np.argsort(-_shares(tokens, images, row_tokens, row_images), kind="stable")
    for piece, need, pictures in zip(order.tolist(), tokens[order].tolist(), images[order].tolist(), strict=True):
        widest = (
            (min((rooms[spare].bit_length() - 1) * row_images, spare * row_tokens), spare)
            for spare in range(pictures, row_images + 1)
            if rooms[spare].bit_length() > need
        )
        _, spare = max(widest, default=(0, -1))
        if spare < 0:
            room, spare, row = row_tokens, row_images, len(rows)
            rows.append([])
        else:
            room = rooms[spare].bit_length() - 1
            row = rows_at[room, spare].pop()
            if not rows_at[room, spare]:
                rooms[spare] ^= 1 << room
        rows[row].append(piece)
        room, spare = room - need, spare - pictures
        rows_at[room, spare].append(row)
        rooms[spare] |= 1 << room
    return [row for row in rows if row]


def pack_completing(tokens: Counts, images: Counts, row_tokens: int, row_images: int) -> list[list[int]]:
    """Fill row after row: the largest piece left, then large ones, then the two or three that fill it best."""
    pool = _Pool(tokens, images, row_tokens)
    shares = _shares(tokens, images, row_tokens, row_images)
    order = np.argsort(-shares, kind="stable")
    kinds = list(dict.fromkeys(zip(tokens[order].tolist(), images[order].tolist(), strict=True)))[::-1]
    rows = []
    while kinds:
        if not pool.pieces[kinds[-1]]:
            kinds.pop()
            continue
        row: list[int] = []
        room, spare = row_tokens, row_images
        chosen: Iterable[Kind] = kinds[-1:]
        while chosen:
            for kind in chosen:
                row.append(pool.take(kind))
                room, spare = room - kind[0], spare - kind[1]
            chosen = _next(pool, room, spare, kinds)
        rows.append(row)
    return rows


def _next(pool: _Pool, room: int, spare: int, kinds: list[Kind]) -> list[Kind]:
    """Return what a row takes that has `room` tokens and `spare` images left: one piece, or all that completes it."""
    fitting = pool.fitting(room, spare)
    if not fitting:
        return []
    smallest, largest = (fitting & -fitting).bit_length() - 1, fitting.bit_length() - 1
    best = [pool.kind(largest, spare)]
    if largest == room:
        return best
    if room > 3 * largest and room >= largest + 2 * smallest:
        first = next((kind for kind in kinds[:-4:-1] if pool.pieces[kind]), best[0])
        return [first] if first[0] <= largest and first[1] <= spare else best
    filled = largest
    if room >= 2 * smallest and (pair := pool.pair(room, spare, filled)):
        best, filled = pair, pair[0][0] + pair[1][0]
    if filled < room and room >= 3 * smallest:
        triple = _triple(pool, room, spare, filled)
        if triple:
            best, filled = triple, sum(kind[0] for kind in triple)
    if filled < room and room >= 4 * smallest:
        # Four or more fit: place one that leaves room for three, and look again.
        return [pool.kind((fitting & ((2 << (room - 3 * smallest)) - 1)).bit_length() - 1, spare)]
    return best


def _triple(pool: _Pool, room: int, spare: int, more_than: int) -> list[Kind]:
    """Return three pieces that fill more than `more_than`, nothing where none were found; not all are tried."""
    fitting = pool.fitting(room, spare)
    smallest = (fitting & -fitting).bit_length() - 1
    first = fitting & ((2 << (room - 2 * smallest)) - 1)
    best: list[Kind] = []
    for _ in range(TRIES):
        if not first or more_than == room:
            break
        size = first.bit_length() - 1
        first &= ~(1 << size)
        kind = pool.kind(size, spare)
        piece = pool.take(kind)
        pair = pool.pair(room - size, spare - kind[1], max(0, more_than - size))
        pool.put_back(kind, piece)
        if pair:
            best = [kind, *pair]
            more_than = sum(one[0] for one in best)
    return best


class _Pool:
    """Pieces not placed yet, by kind. Their sizes are bit sets, one for each number of images, also mirrored.

    Bit t of `P & (M >> (C - T))` is set where there are sizes t and T - t: two pieces that fill T are one shift away.
    """

    def __init__(self, tokens: Counts, images: Counts, row_tokens: int) -> None:
        self.pieces: dict[Kind, list[int]] = defaultdict(list)
        # Backwards, so that the first piece of a kind is the first to be taken from the end.
        for number, kind in reversed(list(enumerate(zip(tokens.tolist(), images.tolist(), strict=True)))):
            self.pieces[kind].append(number)
        self._row_tokens = row_tokens
        self._most = max((count for _, count in self.pieces), default=0)
        self._sizes = [0] * (self._most + 1)
        for size, count in self.pieces:
            self._sizes[count] |= 1 << size
        self._mirrored = [self._mirror(count) for count in range(self._most + 1)]
        self._sum_up()

    def take(self, kind: Kind) -> int:
        """Remove a piece of a kind."""
        there = self.pieces[kind]
        piece = there.pop()
        if not there:
            self._flip(kind)
        return piece

    def put_back(self, kind: Kind, piece: int) -> None:
        """Undo `take`."""
        self.pieces[kind].append(piece)
        if len(self.pieces[kind]) == 1:
            self._flip(kind)

    def fitting(self, room: int, spare: int) -> int:
        """Return the sizes of pieces that fit."""
        return self._up_to[min(spare, self._most)] & ((2 << room) - 1)

    def kind(self, size: int, spare: int) -> Kind:
        """Return the kind of a piece of `size` that fits, of those with the most images."""
        count = min(spare, self._most)
        while not self._sizes[count] >> size & 1:
            count -= 1
        return size, count

    def pair(self, room: int, spare: int, more_than: int) -> list[Kind]:
        """Return the two pieces that fill most of `room`, nothing where none fill more than `more_than`."""
        most = min(spare, self._most)
        sizes, mirrored = self._up_to[most], self._mirrored_up_to[most]
        for total in range(room, more_than, -1):
            shift = self._row_tokens - total
            if not sizes & (mirrored >> shift):
                continue
            for count in range(most, -1, -1):
                both = self._sizes[count] & (self._mirrored_up_to[min(spare - count, self._most)] >> shift)
                while both:
                    size = both.bit_length() - 1
                    one, other = (size, count), self.kind(total - size, spare - count)
                    if one != other or len(self.pieces[one]) > 1:
                        return [one, other]
                    both &= ~(1 << size)
        return []

    def _flip(self, kind: Kind) -> None:
        size, count = kind
        self._sizes[count] ^= 1 << size
        self._mirrored[count] ^= 1 << (self._row_tokens - size)
        self._sum_up()

    def _mirror(self, count: int) -> int:
        return sum(1 << (self._row_tokens - size) for size, number in self.pieces if number == count)

    def _sum_up(self) -> None:
        """Take together the sizes of pieces with up to k images, for each k."""
        self._up_to, self._mirrored_up_to = [], []
        sizes = mirrored = 0
        for one, other in zip(self._sizes, self._mirrored, strict=True):
            sizes, mirrored = sizes | one, mirrored | other
            self._up_to.append(sizes)
            self._mirrored_up_to.append(mirrored)


def _shares(tokens: Counts, images: Counts, row_tokens: int, row_images: int) -> npt.NDArray[np.int64]:
    """Return the sum of each piece's shares of both budgets, times both budgets."""
    return np.asarray(tokens, dtype=np.int64) * max(1, row_images) + np.asarray(images, dtype=np.int64) * row_tokens


def _tightest(room: list[int], need: int, pictures: int, nowhere: int) -> tuple[int, int]:
    """Return (room, images to spare) of the tightest open row for a piece; room is `nowhere` if none is open."""
    best = (nowhere, 0)
    for spare in range(pictures, len(room)):
        fitting = room[spare] >> need
        if fitting:
            left = need + (fitting & -fitting).bit_length() - 1
            best = min(best, (left, spare))
            if left == need:
                break
    return best

"""The order of training: each source shuffled by row groups, the sources merged so that their shares hold throughout.

Flow in: sizes of pieces, source by source. Flow out: blocks of pieces, each to be packed on its own.

In an epoch of a source its row groups are shuffled and dealt into chunks, and the pieces of a chunk are shuffled: the
order is random to within some thousand pieces, and what they need lies in few row groups, each read once. Every piece
has a place on one axis: the text tokens of its source before it, over the source's weight. A block is a stretch of that
axis, so at any moment the sources have come as far as their weights say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carnac.core.seeds import generator

Integers = npt.NDArray[np.int64]
Places = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourcePieces:
    """The n pieces of a source.

    first        number of its first piece among those of all sources, which stand one after another
    text_tokens  int64 [n]  of each piece
    groups       int64 [n]  number of each piece's row group, ascending; equal numbers are one read
    weight       its share of the text tokens, beside the other sources' weights; its own text tokens where none is
                 given: all sources then end their epochs together
    max_epochs   passes that it gives; None: any number
    """

    name: str
    first: int
    text_tokens: Integers
    groups: Integers
    weight: float
    max_epochs: int | None = None

    @property
    def span(self) -> float:
        """Length of an epoch on the axis."""
        return float(self.text_tokens.sum()) / self.weight

    @property
    def pieces_per_axis(self) -> float:
        """Pieces of this source in a stretch of the axis of length 1."""
        return len(self.text_tokens) / self.span


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """Pieces that are packed together, in the order of the axis. `epoch` is that of the source that sets its length."""

    pieces: Integers
    epoch: int


def blocks_of(sources: Sequence[SourcePieces], pieces_per_block: int, seed: int) -> Iterator[Block]:
    """Yield blocks of about `pieces_per_block` pieces without end, or until every source has given its epochs.

    The source that takes longest for an epoch sets the pace: its blocks are whole chunks, so no block reaches over the
    end of its epoch, and a small data set is met whole before any of it comes again.
    """
    streams = [_Stream(source, seed) for source in sources]
    position = 0.0
    while True:
        stretch = _stretch(streams, pieces_per_block)
        alive = [stream for stream in streams if stream.fill(stretch)]
        if not alive:
            return
        pacer = max(alive, key=lambda stream: stream.source.span)
        epoch = pacer.epoch
        # Of a source with a small share one row group may be many blocks long.
        stop = pacer.end if pacer.end - position <= 2 * stretch else position + stretch
        taken = [stream.take(stop, stretch) for stream in alive]
        position = stop
        pieces, places = (np.concatenate(arrays) for arrays in zip(*taken, strict=True))
        if len(pieces):
            yield Block(pieces=pieces[np.argsort(places, kind="stable")], epoch=epoch)


def _stretch(streams: Sequence[_Stream], pieces_per_block: int) -> float:
    """Return the length on the axis of a block, over the sources that are left."""
    density = sum(stream.source.pieces_per_axis for stream in streams if not stream.has_ended)
    return pieces_per_block / density if density else 0.0


class _Stream:
    """The pieces of one source, epoch after epoch."""

    def __init__(self, source: SourcePieces, seed: int) -> None:
        self.source, self._seed = source, seed
        self.epoch = -1
        self.has_ended = False
        self._chunks: list[Integers] = []
        self._given = 0  # text tokens of all chunks so far
        self._held: list[tuple[Integers, Places]] = []  # what blocks have not taken yet
        self._starts = np.flatnonzero(np.diff(source.groups, prepend=-1))
        self._lengths = np.diff(self._starts, append=len(source.groups))

    @property
    def end(self) -> float:
        """Where on the axis the held pieces end."""
        return self._given / self.source.weight

    def fill(self, stretch: float) -> bool:
        """Hold at least one piece; return whether there is any left. Chunks are as long as `stretch` of the axis."""
        if not self._held and not self._hold_next(stretch):
            self.has_ended = True
        return not self.has_ended

    def take(self, stop: float, stretch: float) -> tuple[Integers, Places]:
        """Return the pieces whose middle is before `stop`, with their places."""
        while self.end < stop and self._hold_next(stretch):
            pass
        if not self._held:
            return np.empty(0, dtype=np.int64), np.empty(0)
        pieces, places = (np.concatenate(arrays) for arrays in zip(*self._held, strict=True))
        cut = int(np.searchsorted(places, stop))
        self._held = [(pieces[cut:], places[cut:])] if cut < len(pieces) else []
        return pieces[:cut], places[:cut]

    def _hold_next(self, stretch: float) -> bool:
        """Hold another chunk, if the source still gives one."""
        source = self.source
        if not self._chunks:
            if source.max_epochs is not None and self.epoch + 1 >= source.max_epochs:
                return False
            self.epoch += 1
            self._chunks = self._chunks_of_epoch(max(1, round(stretch * source.pieces_per_axis)))
        chunk = self._chunks.pop()
        ends = self._given + np.cumsum(source.text_tokens[chunk])
        # The middle of a piece: of two sources, each within half a piece of its share wherever the axis is cut.
        places = (ends - source.text_tokens[chunk] / 2) / source.weight
        self._given = int(ends[-1])
        self._held.append((source.first + chunk, places))
        return True

    def _chunks_of_epoch(self, size: int) -> list[Integers]:
        """Return the chunks of the epoch that begins, last one first: whole row groups, pieces shuffled in each."""
        random = generator(self._seed, "order", self.source.name, self.epoch)
        groups = random.permutation(len(self._starts))
        lengths = self._lengths[groups]
        ends = np.cumsum(lengths)
        number = -(-int(ends[-1]) // size)
        # As even as the row groups allow: a short last chunk would be packed worse than the others.
        cuts = np.unique(np.searchsorted(ends, np.arange(1, number) * (ends[-1] / number)) + 1)
        order = np.repeat(self._starts[groups] - (ends - lengths), lengths) + np.arange(ends[-1])
        chunks = np.split(order, ends[cuts[cuts < len(ends)] - 1])
        return [random.permutation(chunk) for chunk in chunks][::-1]

"""Batch n of a plan, at any time, in any order, in any process: the same n gives the same arrays to the bit.

Flow in: a plan, shards. Flow out: `core.batch.Batch`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from carnac.core.batch import Batch, Piece
from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.mix.assemble import PlacedPiece, assemble, place
from carnac.mix.recent import Recent
from carnac.mix.rows import PlanRows
from carnac.mix.samples import SampleReader
from carnac.mix.settings import MixSettings
from carnac.sequence.layout import Layout, Sample, lay_out
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import LoadedTokenizer

# 16 bytes per position: two blocks of 4,096 pieces of 512 tokens. Saves tokenising a long document for each window.
CACHED_LAYOUTS_BYTES = 64 << 20


class BatchReader:
    """Makes the global batches of a plan: batch n is rows `mix.rows_of(n)`, counted from `first_row`.

    `plan` is the part of its rows, `shards` maps the shards that pieces name to Parquet parts. Sent to another process,
    it reads there for itself. Files are opened when the first batch is asked for.
    """

    def __init__(
        self,
        plan: Place,
        shards: Mapping[str, Place],
        tokenizer: LoadedTokenizer,
        pictures: PictureSettings,
        mix: MixSettings,
        first_row: int = 0,
    ) -> None:
        self._given = (plan, dict(shards), tokenizer, pictures, mix, first_row)
        self._plan, self._tokenizer, self._pictures, self._mix, self._first_row = (
            plan,
            tokenizer,
            pictures,
            mix,
            first_row,
        )
        self._rows: PlanRows | None = None
        self._samples = SampleReader(shards, mix.cache_mb * 1_000_000)
        self._layouts = Recent(self._lay_out, _size_of, CACHED_LAYOUTS_BYTES)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._given

    @property
    def num_batches(self) -> int:
        """Number of whole batches in the plan."""
        return self._mix.step_of(max(0, len(self._open()) - self._first_row))

    def batch(self, n: int, without: Collection[Piece] = ()) -> Batch:
        """Return global batch `n`.

        Pieces in `without` keep their place and lose their labels. So does a piece with a picture that does not decode:
        it gets a grey one and is listed in `stand_ins`. Raises InputError when n is out of range or the shards do not
        fit the plan.
        """
        if not 0 <= n < self.num_batches:
            raise InputError(f"no batch {n}: the plan holds batches 0 to {self.num_batches - 1}. Plan more steps.")
        first, stop = (self._first_row + row for row in self._mix.rows_of(n))
        left_out = frozenset(without)
        rows = [
            [self._place(piece, masked=piece in left_out) for piece in self._checked(row)]
            for row in self._open().pieces(first, stop)
        ]
        return assemble(rows, row_tokens=self._mix.row_tokens, pad=self._tokenizer.pad, pictures=self._pictures)

    def sample(self, piece: Piece) -> Sample:
        """Return the sample that a piece was cut from."""
        return self._samples.sample(piece.shard, piece.row)

    def _open(self) -> PlanRows:
        if self._rows is None:
            self._rows = PlanRows(self._plan)
        return self._rows

    def _checked(self, row: list[Piece]) -> list[Piece]:
        tokens = sum(piece.tokens for piece in row)
        if tokens > self._mix.row_tokens:
            raise InputError(
                f"{self._plan}: a row has {tokens} tokens, row_tokens is {self._mix.row_tokens}: it was made with "
                "other settings. Plan again."
            )
        return row

    def _place(self, piece: Piece, *, masked: bool) -> PlacedPiece:
        layout = self._layouts.get((piece.shard, piece.row))
        files = [image for image in self.sample(piece).images if image is not None] if piece.images else []
        return place(piece, layout, files, self._pictures, masked=masked)

    def _lay_out(self, key: tuple[str, int]) -> Layout:
        return lay_out(self._samples.sample(*key), self._tokenizer, self._pictures)


def _size_of(layout: Layout) -> int:
    return int(layout.ids.nbytes + layout.labels.nbytes) + 200 * (1 + len(layout.slots))

"""Batch n of a plan, at any time, in any order, in any process: the same n gives the same arrays to the bit.

Flow in: a plan, shards. Flow out: `core.batch.Batch`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.batch import Batch, Piece
from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.mix.assemble import assemble, place
from carnac.mix.plan import PLAN, pieces_of_rows
from carnac.mix.samples import SampleReader
from carnac.mix.settings import MixSettings
from carnac.sequence.layout import Layout, Sample, lay_out
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import LoadedTokenizer

# 16 bytes per position: 16 MB at 1,000 positions per sample. Saves tokenising where an epoch is short.
CACHED_LAYOUTS = 1024


class BatchReader:
    """Makes the global batches of a plan (`mix.plan.PLAN`). `shards` maps unit names to Parquet parts."""

    def __init__(
        self,
        plan: pa.Table,
        shards: Mapping[str, Place],
        tokenizer: LoadedTokenizer,
        pictures: PictureSettings,
        settings: MixSettings,
    ) -> None:
        if plan.schema.names != PLAN.names:
            raise InputError(f"not a plan: columns {plan.schema.names}, wanted {PLAN.names}.")
        longest = pc.max(plan["tokens"]).as_py() or 0
        if longest > settings.row_tokens:
            raise InputError(
                f"the plan has rows of {longest} tokens, row_tokens is {settings.row_tokens}: it was made with other "
                "settings. Plan again."
            )
        self._plan, self._tokenizer, self._pictures, self._settings = plan, tokenizer, pictures, settings
        self._samples = SampleReader(shards)
        self._layout = lru_cache(maxsize=CACHED_LAYOUTS)(self._lay_out)

    @property
    def num_batches(self) -> int:
        """Number of whole batches in the plan."""
        return int(self._plan.num_rows) // self._settings.rows_per_batch

    def batch(self, n: int, without: Collection[Piece] = ()) -> Batch:
        """Return global batch `n`: rows [n * rows_per_batch, (n + 1) * rows_per_batch) of the plan.

        Pieces in `without` keep their place and lose their labels. So does a piece with a picture that does not decode:
        it gets a grey one and is listed in `stand_ins`. Raises InputError when n is out of range or the shards do not
        fit the plan.
        """
        if not 0 <= n < self.num_batches:
            raise InputError(f"no batch {n}: the plan holds batches 0 to {self.num_batches - 1}. Plan more steps.")
        size = self._settings.rows_per_batch
        left_out = frozenset(without)
        rows = []
        for row in pieces_of_rows(self._plan, n * size, (n + 1) * size):
            files = [(piece, self._files(piece)) for piece in row]
            rows.append(
                [
                    place(piece, self._layout(piece.shard, piece.row), images, self._pictures, masked=piece in left_out)
                    for piece, images in files
                ]
            )
        return assemble(rows, row_tokens=self._settings.row_tokens, pad=self._tokenizer.pad, pictures=self._pictures)

    def sample(self, piece: Piece) -> Sample:
        """Return the sample that a piece was cut from."""
        return self._samples.sample(piece.shard, piece.row)

    def _files(self, piece: Piece) -> list[bytes]:
        return [image for image in self.sample(piece).images if image is not None] if piece.images else []

    def _lay_out(self, shard: str, row: int) -> Layout:
        return lay_out(self._samples.sample(shard, row), self._tokenizer, self._pictures)


def read_ahead(reader: BatchReader, steps: Iterable[int], *, depth: int = 2) -> Generator[Batch, None, None]:
    """Yield the batches of `steps` in order, making up to `depth` of them ahead in one thread.

    An error of a batch is raised where that batch would have been yielded. Close the iterator to stop early.
    """
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="carnac-read-ahead") as pool:
        try:
            for step in steps:
                waiting.append(pool.submit(reader.batch, step))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

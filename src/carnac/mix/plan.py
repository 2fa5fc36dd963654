"""Which pieces share a row, and which rows a batch: drawn up before training, so that batch n is a slice.

Flow in: samples (once, for their lengths). Flow out: a table of pieces per shard part, then one plan for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.core.batch import IGNORED, Piece
from carnac.core.errors import InputError
from carnac.core.seeds import generator
from carnac.mix.order import SourcePieces, blocks_of
from carnac.mix.pack import Packer
from carnac.mix.settings import MixSettings, SourceSettings, Windows
from carnac.mix.windows import cut_layout
from carnac.sequence.layout import Layout, lay_out, sample_from_row
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import LoadedTokenizer

PIECE_FIELDS = [
    ("source", pa.string()),
    ("shard", pa.string()),
    ("row", pa.int64()),
    ("start", pa.int64()),
    ("stop", pa.int64()),
    ("images", pa.int32()),
]
PIECE = pa.struct(PIECE_FIELDS)

# One row per piece of a shard part. `labels` counts the positions that carry loss, `text_tokens` those that are no
# picture's; `group` is the row group of the part in which the sample lies.
PIECES = pa.schema([*PIECE_FIELDS, ("labels", pa.int32()), ("text_tokens", pa.int32()), ("group", pa.int32())])

# One row per packed row, in the order of training. `tokens`, `images`, `labels` and `text_tokens` are sums over its
# pieces. `epoch` is that of the source that takes longest for one.
PLAN = pa.schema(
    [
        ("epoch", pa.int32()),
        ("tokens", pa.int32()),
        ("images", pa.int32()),
        ("labels", pa.int32()),
        ("text_tokens", pa.int32()),
        ("pieces", pa.list_(PIECE)),
    ]
)

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePieces:
    """What a sample offers to a plan.

    `rows` have schema `PIECES`, in order; `without_labels` counts windows left out because nothing in them carries loss
    (images alone). What windows left out otherwise is counted in positions and in exchanges of conversations.
    """

    rows: tuple[dict[str, Any], ...]
    without_labels: int
    positions_left_out: int = 0
    exchanges_left_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBlock:
    """Rows of a plan: numbers of the pieces of each, and the epoch that they belong to."""

    rows: tuple[Indices, ...]
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannedRows:
    """Some rows of a plan (`PLAN`), and the numbers of all their pieces, in order."""

    table: pa.Table
    pieces: Indices


def pieces_of_sample(
    sample: Mapping[str, Any],
    place: Mapping[str, Any],
    tokenizer: LoadedTokenizer,
    pictures: PictureSettings,
    mix: MixSettings,
    windows: Windows = "all",
) -> SamplePieces:
    """Measure a sample (a row of `core.schema.SAMPLES`); `place` is its source, shard, row and row group.

    Raises RecordError when it cannot be laid out.
    """
    found, without_labels = [], 0
    layout = lay_out(sample_from_row(sample), tokenizer, pictures)
    cut = cut_layout(layout, mix.row_tokens, mix.row_images, windows)
    for start, stop, images in cut.windows:
        # The last position of a window predicts a token of the next one: no label (`core.batch`).
        labels = int((layout.labels[start : stop - 1] != IGNORED).sum())
        if not labels:
            without_labels += 1
            continue
        text_tokens = stop - start - _picture_tokens(layout, start, stop)
        sizes = {"images": images, "labels": labels, "text_tokens": text_tokens}
        found.append({**place, "start": start, "stop": stop, **sizes})
    return SamplePieces(
        rows=tuple(found),
        without_labels=without_labels,
        positions_left_out=cut.positions_left_out,
        exchanges_left_out=cut.exchanges_left_out,
    )


def _picture_tokens(layout: Layout, start: int, stop: int) -> int:
    return sum(length for first, length in layout.slots if start <= first < stop)


def plan_rows(
    pieces: pa.Table, sources: Sequence[SourceSettings], mix: MixSettings, num_rows: int
) -> Iterator[PlannedRows]:
    """Yield the first `num_rows` rows of a plan block by block, over the pieces of all sources (`PIECES`).

    The pieces of a source stand together, in the order of `sources`. Epochs follow one another, each places every piece
    once, in an order of its own. A longer plan begins with the shorter one. Raises InputError when a source has no
    piece, a piece does not fit a row, or all sources end (`max_epochs`) before the rows suffice.
    """
    tokens, images = _sizes(pieces, mix)
    given = 0
    for block in _packed_blocks(_sources(pieces, sources, mix), tokens, images, mix):
        rows = block.rows[: num_rows - given]
        given += len(rows)
        if rows:
            order = np.concatenate(rows)
            yield PlannedRows(table=_table(pieces, tokens, rows, order, block.epoch), pieces=order)
        if given == num_rows:
            return
    raise InputError(
        f"the plan needs {num_rows:,} rows, but its sources end after {given:,} (max_epochs of "
        f"{', '.join(source.name for source in sources)}). Plan fewer steps, or raise max_epochs."
    )


def make_plan(pieces: pa.Table, sources: Sequence[SourceSettings], mix: MixSettings, num_rows: int) -> pa.Table:
    """Return `plan_rows` as one table."""
    tables = [rows.table for rows in plan_rows(pieces, sources, mix, num_rows)]
    return pa.concat_tables(tables).combine_chunks() if tables else PLAN.empty_table()


def pieces_of_rows(plan: pa.Table, start: int, stop: int) -> list[list[Piece]]:
    """Return the pieces of rows [start, stop) of a plan."""
    return [[Piece(**piece) for piece in row] for row in plan["pieces"].slice(start, stop - start).to_pylist()]


def _sources(pieces: pa.Table, settings: Sequence[SourceSettings], mix: MixSettings) -> list[SourcePieces]:
    """Return what the order needs of each source."""
    numbers, found = codes_of(pieces["source"])
    wanted = [source.name for source in settings]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputError(f"no pieces to plan with in {', '.join(missing)}: {_nothing_fits(mix)}")
    assert found == wanted, f"pieces of {found}, wanted {wanted}"
    assert (np.diff(numbers) >= 0).all(), "the pieces of a source do not stand together"
    ends = np.flatnonzero(np.diff(numbers, append=len(found))) + 1
    text, groups = pieces["text_tokens"].to_numpy().astype(np.int64), _groups(pieces)
    made = []
    for source, first, end in zip(settings, [0, *ends], ends, strict=False):
        one = text[first:end]
        weight = float(one.sum()) if source.weight is None else source.weight
        made.append(
            SourcePieces(
                name=source.name,
                first=int(first),
                text_tokens=one,
                groups=groups[first:end] - groups[first],
                weight=weight,
                max_epochs=source.max_epochs,
            )
        )
    return made


def _groups(pieces: pa.Table) -> Indices:
    """Return the number of each piece's row group among those of all shards, in the order in which they stand."""
    shards, _ = codes_of(pieces["shard"])
    is_next = (np.diff(shards, prepend=-1) != 0) | (np.diff(pieces["group"].to_numpy(), prepend=-1) != 0)
    return np.cumsum(is_next) - 1


def codes_of(column: pa.ChunkedArray) -> tuple[Indices, list[str]]:
    """Return a column of names as numbers, and the names by number, in the order in which they come first."""
    if not len(column):
        return np.empty(0, dtype=np.int64), []
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    chunks = encoded.unify_dictionaries().chunks
    return np.concatenate([chunk.indices.to_numpy() for chunk in chunks]), chunks[0].dictionary.to_pylist()


def _packed_blocks(
    sources: Sequence[SourcePieces], tokens: Indices, images: Indices, mix: MixSettings
) -> Iterator[PackedBlock]:
    """Yield the rows of block after block; largest first is undone by shuffling each block's rows.

    The emptiest row of a block waits for the next one: in rows of 16,384 tokens, 30 to a block, what is left over at
    its end would cost 2 % of all positions.
    """
    packer = Packer(mix.row_tokens, mix.row_images)
    waiting: Indices = np.empty(0, dtype=np.int64)
    epoch = 0
    for number, block in enumerate(blocks_of(sources, mix.pieces_per_block, mix.seed)):
        epoch = block.epoch
        pieces = np.concatenate([waiting, block.pieces])
        rows = packer.pack(tokens[pieces], images[pieces])
        waiting = pieces[rows.pop(_emptiest(rows, tokens[pieces], images[pieces], mix))]
        order = generator(mix.seed, "rows", number).permutation(len(rows)).tolist()
        yield PackedBlock(rows=tuple(pieces[rows[row]] for row in order), epoch=epoch)
    if len(waiting):
        yield PackedBlock(rows=(waiting,), epoch=epoch)


def _emptiest(rows: Sequence[Sequence[int]], tokens: Indices, images: Indices, mix: MixSettings) -> int:
    """Return the row that uses least of the budget that it uses most of."""
    pieces = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=len(tokens))
    starts = np.cumsum([0, *(len(row) for row in rows[:-1])])
    share = tokens[pieces] / mix.row_tokens, images[pieces] / max(1, mix.row_images)
    return int(np.argmin(np.maximum(*(np.add.reduceat(one, starts) for one in share))))


def _table(pieces: pa.Table, tokens: Indices, rows: Sequence[Indices], order: Indices, epoch: int) -> pa.Table:
    """Return the rows of a plan as `PLAN`; `order` are their pieces."""
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    taken = pieces.take(pa.array(order)).combine_chunks()
    fields = [_plain(taken[name], kind) for name, kind in PIECE_FIELDS]
    lists = pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), pa.StructArray.from_arrays(fields, fields=list(PIECE))
    )

    def sums(values: npt.NDArray[Any]) -> pa.Array:
        return pa.array(np.add.reduceat(values.astype(np.int64), offsets[:-1]).astype(np.int32))

    totals = [sums(taken[name].to_numpy()) for name in ("images", "labels", "text_tokens")]
    epochs = pa.array(np.full(len(rows), epoch, dtype=np.int32))
    return pa.table([epochs, sums(tokens[order]), *totals, lists], schema=PLAN)


def _plain(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """Return a column of a taken table as one array, a dictionary's values spelled out."""
    array = column.cast(kind).combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def _nothing_fits(mix: MixSettings) -> str:
    return (
        f"no sample holds a label that fits a row of {mix.row_tokens} tokens and {mix.row_images} images. Look at the "
        "funnel of the shards; of conversations, whose first answer must fit, raise row_tokens or row_images."
    )


def _sizes(pieces: pa.Table, mix: MixSettings) -> tuple[Indices, Indices]:
    if not pieces.num_rows:
        raise InputError(f"no pieces to plan with: {_nothing_fits(mix)}")
    tokens = pieces["stop"].to_numpy() - pieces["start"].to_numpy()
    images = pieces["images"].to_numpy().astype(np.int64)
    if tokens.max() > mix.row_tokens or images.max() > mix.row_images:
        raise InputError(
            f"a piece has up to {tokens.max()} tokens and {images.max()} images, a row holds {mix.row_tokens} and "
            f"{mix.row_images}: the pieces were cut with other settings. Cut them again."
        )
    return tokens, images

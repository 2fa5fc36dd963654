"""Which pieces share a row, and which rows a batch: drawn up before training, so that batch n is a slice.

Flow in: samples (once, for their lengths). Flow out: a table of pieces per shard part, then one plan for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.batch import IGNORED, Piece
from carnac.core.errors import InputError
from carnac.core.seeds import generator
from carnac.mix.pack import pack
from carnac.mix.settings import MixSettings
from carnac.mix.windows import cut_windows
from carnac.sequence.layout import lay_out, sample_from_row
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

# One row per piece of a shard part; `labels` counts the positions that carry loss.
PIECES = pa.schema([*PIECE_FIELDS, ("labels", pa.int32())])

# One row per packed row, in the order of training. `tokens`, `images` and `labels` are sums over its pieces.
PLAN = pa.schema(
    [
        ("epoch", pa.int32()),
        ("tokens", pa.int32()),
        ("images", pa.int32()),
        ("labels", pa.int32()),
        ("pieces", pa.list_(PIECE)),
    ]
)

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePieces:
    """What a sample offers to a plan.

    `rows` have schema `PIECES`, in order; `without_labels` counts windows left out because nothing in them carries loss
    (images alone).
    """

    rows: tuple[dict[str, Any], ...]
    without_labels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """Figures of a plan.

    `fill` is the share of positions that are not padding, `label_share` the share of positions that carry loss.
    `epochs_begun` counts passes over the pieces, the last one usually unfinished.
    """

    rows: int
    batches: int
    pieces: int
    tokens: int
    label_tokens: int
    images: int
    fill: float
    label_share: float
    epochs_begun: int


def pieces_of_sample(
    sample: Mapping[str, Any],
    place: Mapping[str, Any],
    tokenizer: LoadedTokenizer,
    pictures: PictureSettings,
    mix: MixSettings,
) -> SamplePieces:
    """Measure a sample (a row of `core.schema.SAMPLES`); `place` is its source, shard (unit's name) and row.

    Raises RecordError when it cannot be laid out.
    """
    found, without_labels = [], 0
    layout = lay_out(sample_from_row(sample), tokenizer, pictures)
    squares = [len(starts) for starts in layout.tiles]
    for start, stop, images in cut_windows(len(layout.ids), layout.slots, mix.row_tokens, mix.row_images, squares):
        # The last position of a window predicts a token of the next one: no label (`core.batch`).
        labels = int((layout.labels[start : stop - 1] != IGNORED).sum())
        if not labels:
            without_labels += 1
            continue
        found.append({**place, "start": start, "stop": stop, "images": images, "labels": labels})
    return SamplePieces(rows=tuple(found), without_labels=without_labels)


def make_plan(pieces: pa.Table, settings: MixSettings, num_batches: int) -> pa.Table:
    """Return a plan (`PLAN`) of exactly `num_batches` batches over `pieces` (`PIECES`, all parts one after the other).

    Epochs follow one another until the rows suffice; each places every piece once, in an order of its own. A longer
    plan begins with the shorter one. Raises InputError when there is no piece or a piece does not fit a row.
    """
    tokens, images = _sizes(pieces, settings)
    labels = pieces["labels"].to_numpy()
    wanted = num_batches * settings.rows_per_batch
    placed: list[Indices] = []
    epochs: list[int] = []
    while len(placed) < wanted:
        epoch = epochs[-1] + 1 if epochs else 0
        for row in _rows_of_epoch(tokens, images, settings, epoch):
            placed.append(row)
            epochs.append(epoch)
            if len(placed) == wanted:
                break
    order = np.concatenate(placed) if placed else np.empty(0, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in placed], dtype=np.int64)])
    taken = pieces.select([name for name, _ in PIECE_FIELDS]).take(order).combine_chunks()
    structs = pa.StructArray.from_arrays([_one_chunk(column) for column in taken.columns], fields=list(PIECE))

    def sums(values: npt.NDArray[Any]) -> pa.Array:
        total = np.concatenate([[0], np.cumsum(values[order], dtype=np.int64)])
        return pa.array((total[offsets[1:]] - total[offsets[:-1]]).astype(np.int32))

    lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), structs)
    return pa.table([pa.array(epochs, pa.int32()), sums(tokens), sums(images), sums(labels), lists], schema=PLAN)


def pieces_of_rows(plan: pa.Table, start: int, stop: int) -> list[list[Piece]]:
    """Return the pieces of rows [start, stop) of a plan."""
    return [[Piece(**piece) for piece in row] for row in plan["pieces"].slice(start, stop - start).to_pylist()]


def describe_plan(plan: pa.Table, settings: MixSettings) -> PlanFacts:
    """Count what a plan holds."""
    rows = plan.num_rows
    tokens, images, labels = (int(pc.sum(plan[name]).as_py() or 0) for name in ("tokens", "images", "labels"))
    positions = max(1, rows * settings.row_tokens)
    return PlanFacts(
        rows=rows,
        batches=rows // settings.rows_per_batch,
        pieces=int(pc.sum(pc.list_value_length(plan["pieces"])).as_py() or 0),
        tokens=tokens,
        label_tokens=labels,
        images=images,
        fill=tokens / positions,
        label_share=labels / positions,
        epochs_begun=len(pc.unique(plan["epoch"])),
    )


def _rows_of_epoch(
    tokens: npt.NDArray[Any], images: npt.NDArray[Any], settings: MixSettings, epoch: int
) -> Iterator[Indices]:
    """Yield the rows of an epoch as indices of pieces. Largest first is undone by shuffling each block's rows."""
    random = generator(settings.seed, "plan", epoch)
    order = random.permutation(len(tokens))
    for first in range(0, len(order), settings.pieces_per_block):
        block = order[first : first + settings.pieces_per_block]
        rows = pack(tokens[block], images[block], settings.row_tokens, settings.row_images)
        for number in random.permutation(len(rows)).tolist():
            yield block[rows[number]]


def _sizes(pieces: pa.Table, settings: MixSettings) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if not pieces.num_rows:
        raise InputError("no pieces to plan with: no sample holds a label. Look at the funnel of the shards.")
    tokens = pieces["stop"].to_numpy() - pieces["start"].to_numpy()
    images = pieces["images"].to_numpy()
    if tokens.max() > settings.row_tokens or images.max() > settings.row_images:
        raise InputError(
            f"a piece has up to {tokens.max()} tokens and {images.max()} images, a row holds {settings.row_tokens} and "
            f"{settings.row_images}: the pieces were cut with other settings. Cut them again."
        )
    return tokens, images


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)

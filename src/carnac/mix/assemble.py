"""Laid-out pieces to arrays: the pure core of batches, for packed training rows and for lone documents alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carnac.core.batch import IGNORED, Batch, Piece
from carnac.core.errors import InputError, RecordError
from carnac.mix.windows import cut_layout
from carnac.sequence.layout import Layout, Sample, lay_out
from carnac.sequence.pixels import Pixels, grey_pixels, load_pixels
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import LoadedTokenizer

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedPiece:
    """A piece with what fills its T positions.

    ids, labels  int64 [T]
    slots        (start, length) of each square's image tokens, counted from the window's start
    pixels       float32 [k, 3, S, S] per picture; their squares are the slots, in order
    stand_in     whether a picture did not decode and is grey
    """

    piece: Piece
    ids: Integers
    labels: Integers
    slots: tuple[tuple[int, int], ...]
    pixels: tuple[Pixels, ...]
    stand_in: bool = False


def place(
    piece: Piece, layout: Layout, files: Sequence[bytes], pictures: PictureSettings, *, masked: bool = False
) -> PlacedPiece:
    """Fill a piece. `files` are the encoded images of the whole sample, in order; only the window's are decoded.

    A `masked` piece, or one with a picture that does not decode, keeps its place and loses its labels.
    Raises InputError when the window does not fit the layout: the piece was cut from another one.
    """
    inside = [number for number, (start, _) in enumerate(layout.slots) if piece.start <= start < piece.stop]
    squares = [start for number in inside for start in layout.tiles[number]]
    if piece.stop > len(layout.ids) or len(squares) != piece.images:
        raise InputError(
            f"row {piece.row} of shard {piece.shard}: the plan says positions {piece.start} to {piece.stop} hold "
            f"{piece.images} images, the sample has {len(layout.ids)} positions and {len(squares)} images there. "
            "The plan was made with another tokenizer, other picture settings or other shards: plan again."
        )
    pixels, stand_in = [], False
    for number in inside:
        try:
            pixels.append(load_pixels(files[number], pictures))
        except RecordError:
            pixels.append(np.repeat(grey_pixels(pictures)[None], len(layout.tiles[number]), axis=0))
            stand_in = True
    labels = layout.labels[piece.start : piece.stop].copy()
    labels[slice(None) if masked or stand_in else -1] = IGNORED  # -1: the next token is in another piece
    return PlacedPiece(
        piece=piece,
        ids=layout.ids[piece.start : piece.stop],
        labels=labels,
        slots=tuple((start - piece.start, layout.tile_tokens) for start in squares),
        pixels=tuple(pixels),
        stand_in=stand_in,
    )


def assemble(rows: Sequence[Sequence[PlacedPiece]], *, row_tokens: int, pad: int, pictures: PictureSettings) -> Batch:
    """Lay pieces side by side in rows of `row_tokens` positions and fill the rest with `pad`."""
    shape = (len(rows), row_tokens)
    ids, labels, positions = np.full(shape, pad), np.full(shape, IGNORED), np.zeros(shape, dtype=np.int64)
    segment, image_of_token = np.full(shape, -1), np.full(shape, -1)
    slots: list[tuple[int, int, int]] = []
    placed = [piece for row in rows for piece in row]
    number = 0
    for line, row in enumerate(rows):
        at = 0
        for one in row:
            where = (line, slice(at, at + one.piece.tokens))
            ids[where], labels[where], segment[where] = one.ids, one.labels, number
            positions[where] = np.arange(one.piece.tokens)
            image_of_token[where] = _last_image(one, len(slots))
            slots += [(line, at + start, length) for start, length in one.slots]
            at, number = at + one.piece.tokens, number + 1
        positions[line, at:] = np.arange(row_tokens - at)
    return Batch(
        input_ids=ids,
        labels=labels,
        positions=positions,
        segment=segment,
        image_slots=np.asarray(slots, dtype=np.int64).reshape(-1, 3),
        image_of_token=image_of_token,
        pixels=_stacked([pixels for one in placed for pixels in one.pixels], pictures),
        provenance=tuple(one.piece for one in placed),
        stand_ins=tuple(number for number, one in enumerate(placed) if one.stand_in),
    )


def batch_of_samples(
    samples: Sequence[Sample], tokenizer: LoadedTokenizer, pictures: PictureSettings, row_tokens: int
) -> Batch:
    """Lay out samples unpacked: each window of a sample is a row of its own, in order (of a conversation the first).

    The batch is as wide as the longest window, at most `row_tokens`. A piece's `row` is the place of its sample in
    `samples`, its `shard` the sample's id. Raises as `lay_out` does.
    """
    rows = []
    for number, sample in enumerate(samples):
        layout = lay_out(sample, tokenizer, pictures)
        files = [image for image in sample.images if image is not None]
        num_images = sum(len(starts) for starts in layout.tiles)
        for start, stop, images in cut_layout(layout, row_tokens, max(1, num_images)).windows:
            piece = Piece(source=sample.source, shard=sample.id, row=number, start=start, stop=stop, images=images)
            rows.append([place(piece, layout, files, pictures)])
    width = max((row[0].piece.tokens for row in rows), default=0)
    return assemble(rows, row_tokens=width, pad=tokenizer.pad, pictures=pictures)


def _last_image(placed: PlacedPiece, num_before: int) -> Integers:
    """Return, for each position, the number in the batch of the piece's last image at or before it, else -1."""
    seen = np.searchsorted([start for start, _ in placed.slots], np.arange(placed.piece.tokens), side="right")
    return np.where(seen > 0, seen - 1 + num_before, -1)


def _stacked(pixels: Sequence[Pixels], pictures: PictureSettings) -> Pixels:
    if pixels:
        return np.concatenate(pixels)
    return np.empty((0, 3, pictures.size_px, pictures.size_px), dtype=np.float32)

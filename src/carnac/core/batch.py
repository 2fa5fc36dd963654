"""What training eats: pieces of samples, packed into rows, as numpy arrays.

Legend of shapes: R rows of a batch, T tokens of a row, N images of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IGNORED = -100  # the label of a position that carries no loss; the value that torch's cross entropy ignores


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A window of one sample's tokens, placed whole in one row.

    `shard` is the unit name of the sample's part, `row` its row there. The window is tokens [start, stop) of the sample
    as laid out by `sequence.layout`; it never splits a picture's tokens. `images` counts the squares inside the window:
    whole pictures, and tiles of pictures.
    """

    source: str
    shard: str
    row: int
    start: int
    stop: int
    images: int

    @property
    def tokens(self) -> int:
        """Length of the window in positions, image tokens included."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Packed rows.

    input_ids       int64 [R, T]    padding holds the pad token
    labels          int64 [R, T]    the *next* token of the same piece where that is text, else `IGNORED`
    positions       int64 [R, T]    0, 1, 2 ... restarting at each piece: with no attention mask, transformers 5 builds
                                    each family's own packed mask from these (padding is a piece of its own)
    segment         int64 [R, T]    index into `provenance` of the piece that a token belongs to; -1 for padding
    image_slots     int64 [N, 3]    row, first position and number of positions that square n fills (cross-attention: 1)
    image_of_token  int64 [R, T]    the last image of the same piece at or before a token (cross-attention); -1 for none
    pixels          float32 [N, C, H, W]    normalised for the vision tower; a native picture stands at the top left of
                                    its square, cut to whole patches, and what lies beyond it is NaN
    provenance      the piece of each segment, in row-major order
    stand_ins       indices into `provenance` of pieces with an image that did not decode: grey, labels masked
    """

    input_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    segment: npt.NDArray[np.int64]
    image_slots: npt.NDArray[np.int64]
    image_of_token: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.float32]
    provenance: tuple[Piece, ...]
    stand_ins: tuple[int, ...] = ()

    @property
    def label_tokens(self) -> int:
        """Number of positions that carry loss: what the loss of a global batch is divided by."""
        return int((self.labels != IGNORED).sum())

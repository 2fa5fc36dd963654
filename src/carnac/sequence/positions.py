"""A sequence position by position: ids, which of them are learnt, and where pictures stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carnac.core.batch import IGNORED
from carnac.core.errors import InputError
from carnac.sequence.marks import mark_names, picture_tokens
from carnac.sequence.pixels import image_tokens, picture_size
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tiles import tiling
from carnac.sequence.tokenizer import LoadedTokenizer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """A sample as a sequence of L positions.

    ids          int64 [L]
    labels       int64 [L]   the next id where that is text or the end, else `IGNORED`
    slots        (start, length) of each picture's positions, in order, marks included: what a window must not split. A
                 mark that two pictures share is the earlier one's
    tiles        for each picture, where the image tokens of its squares begin
    tile_tokens  image tokens of one square
    turn_ends    for each answer of a conversation, the position behind it: the conversation may end there. In order;
                 none for a document
    """

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    slots: tuple[tuple[int, int], ...]
    tiles: tuple[tuple[int, ...], ...]
    tile_tokens: int
    turn_ends: tuple[int, ...] = ()

    @property
    def image_slots(self) -> npt.NDArray[np.int64]:
        """Return the squares' positions as in `core.batch.Batch`, of a row of its own: int64 [N, 3]."""
        places = [(0, start, self.tile_tokens) for squares in self.tiles for start in squares]
        return np.asarray(places, dtype=np.int64).reshape(-1, 3)


class Positions:
    """Grows position by position into a `Layout`. Raises InputError where the tokenizer lacks the pictures' marks."""

    def __init__(self, tokenizer: LoadedTokenizer, pictures: PictureSettings) -> None:
        _check_marks(tokenizer, pictures)
        self.tokenizer, self._pictures = tokenizer, pictures
        self._ids: list[int] = []
        self._learnt: list[bool] = []
        self._slots: list[tuple[int, int]] = []
        self._tiles: list[tuple[int, ...]] = []

    def __len__(self) -> int:
        """Return how many positions there are."""
        return len(self._ids)

    def add(self, ids: Sequence[int], *, learnt: bool | Sequence[bool]) -> None:
        """Add tokens; `learnt` says for each, or for all, whether a model is to predict it."""
        self._ids += ids
        self._learnt += [learnt] * len(ids) if isinstance(learnt, bool) else learnt

    def add_picture(self, payload: bytes) -> None:
        """Add the tokens of a picture. A header is read only where the number of tiles depends on the size."""
        pictures, tokenizer = self._pictures, self.tokenizer
        size = picture_size(payload) if pictures.max_tiles > 1 and not pictures.quartered else None
        neighbour = bool(self._slots) and sum(self._slots[-1]) == len(self)
        found = picture_tokens(
            tiling(size, pictures),
            pictures,
            tokenizer.image,
            tokenizer.marks,
            tokenizer.line_ends,
            neighbour=neighbour,
        )
        if size is not None:
            one, two = tokenizer.line_ends
            assert len(found.ids) == image_tokens(*size, pictures, (len(one), len(two)), neighbour=neighbour)
        self._slots.append((len(self), len(found.ids)))
        self._tiles.append(tuple(len(self) + start for start in found.squares))
        self.add(found.ids, learnt=False)

    def layout(self, turn_ends: Sequence[int] = ()) -> Layout:
        """Return all of it."""
        ids = np.asarray(self._ids, dtype=np.int64)
        labels = np.full(len(ids), IGNORED, dtype=np.int64)
        labels[:-1] = np.where(np.asarray(self._learnt[1:], dtype=bool), ids[1:], IGNORED)
        return Layout(
            ids=ids,
            labels=labels,
            slots=tuple(self._slots),
            tiles=tuple(self._tiles),
            tile_tokens=self._pictures.square_tokens,
            turn_ends=tuple(turn_ends),
        )


def _check_marks(tokenizer: LoadedTokenizer, pictures: PictureSettings) -> None:
    missing = [name for name in mark_names(pictures) if name not in tokenizer.marks]
    if missing:
        raise InputError(
            f"pictures are laid out with the marks of {pictures.marks} and max_tiles = {pictures.max_tiles}, but the "
            f"tokenizer lacks {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}. It was made for other "
            "picture settings: make it again with these."
        )

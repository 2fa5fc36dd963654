"""What a model of the cross-attention family keeps of pictures while it answers: what each block made of them, once.

Pictures that were read before tokens (by a prefix, or by a prompt whose answer is being found) are laid before these
as columns, so that `reading.read_images` alone says who reads what; the columns are then taken out again. Legend of
shapes: R rows, T tokens of a row, N squares kept, K latents of a square, H heads, d width of a head, B columns before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from carnac.model.cross_attention.blocks import GatedCrossAttention, KeysValues, groups_of
from carnac.model.cross_attention.insertion import ImagesRead
from carnac.model.cross_attention.model import CrossAttentionModel
from carnac.model.cross_attention.reading import Integers, Reading, read_images


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageMemory:
    """Pictures of rows.

    keys_values  [N, H, K, d] twice, of each block
    images       of each row its pictures in order, as numbers below N; rows may share a picture
    """

    keys_values: tuple[KeysValues, ...]
    images: tuple[tuple[int, ...], ...]

    @property
    def count(self) -> int:
        """N."""
        return len(self.keys_values[0][0])

    def repeated(self, rows: int) -> ImageMemory:
        """Return a memory of `rows` rows that have the pictures of this one's single row, kept once."""
        return replace(self, images=self.images * rows)

    def selected(self, rows: Sequence[int]) -> ImageMemory:
        """Return a memory of `rows` alone; what no other row has is let go."""
        images = [self.images[row] for row in rows]
        kept = sorted({image for row in images for image in row})
        number = {image: place for place, image in enumerate(kept)}
        chosen = tuple(tuple(number[image] for image in row) for row in images)
        if len(kept) == self.count:
            return replace(self, images=chosen)
        index = torch.tensor(kept, dtype=torch.long, device=self.keys_values[0][0].device)
        left = tuple((keys[index], values[index]) for keys, values in self.keys_values)
        return ImageMemory(keys_values=left, images=chosen)

    def extended(self, keys_values: tuple[KeysValues, ...], images: Sequence[int]) -> ImageMemory:
        """Return a memory whose rows have so many pictures more each; `keys_values` are of those, row after row."""
        if not sum(images):
            return self
        ends = self.count + np.cumsum(images)
        added = [tuple(range(int(end) - count, int(end))) for end, count in zip(ends, images, strict=True)]
        if self.count:
            both = zip(self.keys_values, keys_values, strict=True)
            keys_values = tuple((torch.cat([old[0], new[0]]), torch.cat([old[1], new[1]])) for old, new in both)
        rows = zip(self.images, added, strict=True)
        return ImageMemory(keys_values=keys_values, images=tuple(old + new for old, new in rows))


def no_images(model: CrossAttentionModel, rows: int) -> ImageMemory:
    """Return a memory of `rows` rows without pictures."""
    weight = _blocks(model)[0].attention.key.weight
    nothing = weight.new_zeros(0, 1, weight.shape[1])
    return ImageMemory(keys_values=_keys_values(model, nothing), images=((),) * rows)


def remember(model: CrossAttentionModel, pixels: torch.Tensor) -> tuple[KeysValues, ...]:
    """Return what each block makes of squares [N, 3, S, S], one at least: the tower runs here and never again."""
    return _keys_values(model, model.see(pixels))


def read_places(
    model: CrossAttentionModel, memory: ImageMemory, places: Sequence[Integers], lengths: Sequence[int]
) -> ImagesRead | None:
    """Return what the blocks read for the next `lengths` [R] tokens of each row, padded at their ends to the longest.

    `places` are the positions among these tokens of the last pictures of each row; its other ones were before. None:
    the blocks would leave every token as it is.
    """
    before = [len(row) - len(new) for row, new in zip(memory.images, places, strict=True)]
    columns, tokens = max(before), max(lengths)
    width = columns + tokens
    first = np.concatenate(
        [
            np.append(np.arange(count), columns + new) + row * width
            for row, (count, new) in enumerate(zip(before, places, strict=True))
        ]
    ).astype(np.int64)
    positions = np.tile(np.arange(width), (len(lengths), 1))
    wanted = np.arange(tokens) < np.array(lengths)[:, None]
    reading = read_images(positions, first, model.settings.blocks.attend)
    reading = _of_tokens(reading, np.pad(wanted, ((0, 0), (columns, 0))), columns)
    if not len(reading.tokens) and not _blocks(model)[0].is_for_text:
        return None
    numbers = np.array([image for row in memory.images for image in row], dtype=np.int64)
    row_of = np.zeros(memory.count, dtype=np.int64)
    row_of[numbers] = reading.row_of
    images = numbers[reading.images] if len(numbers) else reading.images
    groups = groups_of(replace(reading, images=images, row_of=row_of), model.device)
    return ImagesRead(groups=groups, keys_values=memory.keys_values)


def _of_tokens(reading: Reading, wanted: npt.NDArray[np.bool_], columns: int) -> Reading:
    """Return a reading of `wanted` tokens, bool [R, B + T], alone, as indices into R * T tokens; B = `columns`."""
    width = wanted.shape[1]
    flat = wanted.ravel()
    kept, kept_unread = flat[reading.tokens], flat[reading.unread]
    slots = reading.slots[kept]
    present, groups = np.unique(slots // max(reading.longest, 1), return_inverse=True)
    sizes = np.bincount(groups, minlength=len(present))
    longest = int(sizes.max(initial=0))
    # Groups rise with their tokens: without some of them they still do.
    moved = groups * longest + np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    mask = reading.mask
    if mask is not None:
        allowed = np.ones((len(present) * longest, mask.shape[2]), dtype=np.bool_)
        allowed[moved] = mask.reshape(-1, mask.shape[2])[slots]
        mask = None if allowed.all() else allowed.reshape(len(present), longest, -1)
    tokens, unread = (
        _without_columns(found, width, columns) for found in (reading.tokens[kept], reading.unread[kept_unread])
    )
    return replace(
        reading,
        tokens=tokens,
        slots=moved,
        images=reading.images[present],
        longest=longest,
        mask=mask,
        unread=unread,
        rows=reading.rows[kept_unread],
    )


def _without_columns(tokens: Integers, width: int, columns: int) -> Integers:
    """Return indices into R * (B + T) tokens as indices into R * T; B = `columns`, B + T = `width`."""
    return np.asarray(tokens - (tokens // width + 1) * columns, dtype=np.int64)


def _keys_values(model: CrossAttentionModel, memory: torch.Tensor) -> tuple[KeysValues, ...]:
    return tuple(block.keys_values(memory) for block in _blocks(model))


def _blocks(model: CrossAttentionModel) -> Sequence[GatedCrossAttention]:
    return cast("Sequence[GatedCrossAttention]", list(model.fusion))

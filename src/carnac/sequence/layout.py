"""Samples to token ids, labels and image slots.

    begin  block  block ...  end

A text block is its tokens, an image block the image tokens of its squares (`sequence.tiles`), with marks where the
settings want them (`sequence.marks`). Nothing is put between a text and an image: the image ids are the border. Texts
that stand side by side are joined by a blank line, as samples already do. A tokenizer without a begin token begins with
the first block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from carnac.core.batch import IGNORED
from carnac.core.errors import InputError, RecordError
from carnac.sequence.marks import mark_names, picture_tokens
from carnac.sequence.pixels import image_tokens, picture_size
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tiles import tiling
from carnac.sequence.tokenizer import LoadedTokenizer

BETWEEN_TEXTS = "\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A row of a shard: two parallel lists, one of the two set at each place; images as encoded files.

    `roles` is None for a document. `id` and `source` only name the sample in messages and provenance.
    """

    texts: tuple[str | None, ...]
    images: tuple[bytes | None, ...]
    roles: tuple[str | None, ...] | None = None
    id: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """A sample as a sequence of L positions.

    ids          int64 [L]
    labels       int64 [L]   the next id where that is text or the end, else `IGNORED`
    slots        (start, length) of each picture's positions, in order, marks included: what a window must not split
    tiles        for each picture, where the image tokens of its squares begin
    tile_tokens  image tokens of one square
    """

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    slots: tuple[tuple[int, int], ...]
    tiles: tuple[tuple[int, ...], ...]
    tile_tokens: int

    @property
    def image_slots(self) -> npt.NDArray[np.int64]:
        """Return the squares' positions as in `core.batch.Batch`, of a row of its own: int64 [N, 3]."""
        places = [(0, start, self.tile_tokens) for squares in self.tiles for start in squares]
        return np.asarray(places, dtype=np.int64).reshape(-1, 3)


def sample_from_row(row: Mapping[str, Any]) -> Sample:
    """Return the sample of a row of `core.schema.SAMPLES`. An image without bytes is kept: it will not decode."""
    images = tuple(None if image is None else (image["bytes"] or b"") for image in row["images"])
    roles = tuple(row["roles"]) if row.get("roles") and any(row["roles"]) else None
    return Sample(texts=tuple(row["texts"]), images=images, roles=roles, id=row["id"], source=row["source"])


def lay_out(sample: Sample, tokenizer: LoadedTokenizer, pictures: PictureSettings) -> Layout:
    """Lay out a whole document.

    Raises RecordError when a block is not one text or one image, InputError for a conversation.
    """
    if sample.roles is not None:
        raise InputError(
            f"sample {sample.id!r} is a conversation (roles {sorted({role for role in sample.roles if role})}). "
            "Wanted a document: training on conversations is not supported. Use shards of documents."
        )
    return _sequence(_blocks(sample), tokenizer, pictures, ended=True)


def lay_out_prompt(parts: Sequence[str | bytes], tokenizer: LoadedTokenizer, pictures: PictureSettings) -> Layout:
    """Lay out texts and encoded images in the order given, as the beginning of a document: no end token."""
    return _sequence(parts, tokenizer, pictures, ended=False)


def _blocks(sample: Sample) -> Iterator[str | bytes]:
    if len(sample.texts) != len(sample.images):
        raise RecordError("blocks_differ", f"{len(sample.texts)} texts beside {len(sample.images)} images")
    for place, (text, image) in enumerate(zip(sample.texts, sample.images, strict=True)):
        if text is not None and image is None:
            yield text
        elif image is not None and text is None:
            yield image
        else:
            raise RecordError("bad_block", f"block {place} must be one text or one image")


def _sequence(
    blocks: Iterable[str | bytes], tokenizer: LoadedTokenizer, pictures: PictureSettings, *, ended: bool
) -> Layout:
    _check_marks(tokenizer, pictures)
    ids = [] if tokenizer.begin is None else [tokenizer.begin]
    slots: list[tuple[int, int]] = []
    tiles: list[tuple[int, ...]] = []
    for is_image, run in groupby(blocks, key=lambda block: isinstance(block, bytes)):
        if is_image:
            for payload in run:
                assert isinstance(payload, bytes)
                picture, squares = _picture(payload, tokenizer, pictures)
                slots.append((len(ids), len(picture)))
                tiles.append(tuple(len(ids) + start for start in squares))
                ids += picture
        else:
            text = BETWEEN_TEXTS.join(text for text in run if isinstance(text, str) and text)
            ids += tokenizer.encode(text, at_start=not slots)
    if ended:
        ids.append(tokenizer.end)
    sequence = np.asarray(ids, dtype=np.int64)
    labels = np.full(len(ids), IGNORED, dtype=np.int64)
    labels[:-1] = sequence[1:]
    for start, length in slots:
        labels[max(start - 1, 0) : start + length - 1] = IGNORED
    return Layout(
        ids=sequence, labels=labels, slots=tuple(slots), tiles=tuple(tiles), tile_tokens=pictures.square_tokens
    )


def _picture(payload: bytes, tokenizer: LoadedTokenizer, pictures: PictureSettings) -> tuple[list[int], list[int]]:
    """Return the ids of a picture and where its squares begin. Without tiles no header need be read."""
    size = picture_size(payload) if pictures.max_tiles > 1 else None
    found = picture_tokens(tiling(size, pictures), pictures, tokenizer.image, tokenizer.marks, tokenizer.line_ends)
    if size is not None:
        one, two = tokenizer.line_ends
        assert len(found.ids) == image_tokens(*size, pictures, (len(one), len(two)))
    return found.ids, found.squares


def _check_marks(tokenizer: LoadedTokenizer, pictures: PictureSettings) -> None:
    missing = [name for name in mark_names(pictures) if name not in tokenizer.marks]
    if missing:
        raise InputError(
            f"pictures are laid out with the marks of {pictures.marks} and max_tiles = {pictures.max_tiles}, but the "
            f"tokenizer lacks {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}. It was made for other "
            "picture settings: make it again with these."
        )

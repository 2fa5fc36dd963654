"""Samples to token ids, labels and image slots.

    begin  block  block ...  end

A text block is its tokens, an image block `image_tokens(...)` copies of the image id. Nothing is put between a text and
an image: the image ids are the border. Texts that stand side by side are joined by a blank line, as samples already do.
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
from carnac.sequence.pixels import image_tokens
from carnac.sequence.settings import PictureSettings
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

    ids     int64 [L]
    labels  int64 [L]   the next id where that is text or the end, else `IGNORED`
    slots   (start, length) of each image's positions, in order
    """

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    slots: tuple[tuple[int, int], ...]


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
    ids = [tokenizer.begin]
    slots = []
    for is_image, run in groupby(blocks, key=lambda block: isinstance(block, bytes)):
        if is_image:
            for _ in run:
                length = image_tokens(pictures.size_px, pictures.size_px, pictures)
                slots.append((len(ids), length))
                ids += [tokenizer.image] * length
        else:
            ids += tokenizer.encode(BETWEEN_TEXTS.join(text for text in run if isinstance(text, str) and text))
    if ended:
        ids.append(tokenizer.end)
    sequence = np.asarray(ids, dtype=np.int64)
    labels = np.full(len(ids), IGNORED, dtype=np.int64)
    # Text cannot spell the image id (`sequence.tokenizer`), so the id alone tells image positions.
    labels[:-1] = np.where(sequence[1:] == tokenizer.image, IGNORED, sequence[1:])
    return Layout(ids=sequence, labels=labels, slots=tuple(slots))

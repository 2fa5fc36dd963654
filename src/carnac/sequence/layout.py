"""Samples to token ids, labels and image slots.

    begin  block  block ...  end

A text block is its tokens, an image block the image tokens of its squares (`sequence.tiles`), with marks where the
settings want them (`sequence.marks`). Nothing is put between a text and an image, the image ids are the border, save
the spaces of `sequence.spaces`. Texts that stand side by side are joined by a blank line, as samples already do. A
tokenizer without a begin token begins with
the first block. A conversation is written by its tokenizer's chat template (`sequence.conversation`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from carnac.core.errors import RecordError
from carnac.sequence.chat_template import BETWEEN_TEXTS, Message
from carnac.sequence.conversation import lay_out_conversation, lay_out_messages
from carnac.sequence.positions import Layout, Positions
from carnac.sequence.settings import PictureSettings
from carnac.sequence.spaces import space_text
from carnac.sequence.tokenizer import LoadedTokenizer
from carnac.sequence.turns import messages_of

__all__ = [
    "BETWEEN_TEXTS",
    "Layout",
    "Message",
    "Sample",
    "lay_out",
    "lay_out_messages",
    "lay_out_prompt",
    "sample_from_row",
]


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


def sample_from_row(row: Mapping[str, Any]) -> Sample:
    """Return the sample of a row of `core.schema.SAMPLES`. An image without bytes is kept: it will not decode."""
    images = tuple(None if image is None else (image["bytes"] or b"") for image in row["images"])
    roles = tuple(row["roles"]) if row.get("roles") and any(row["roles"]) else None
    return Sample(texts=tuple(row["texts"]), images=images, roles=roles, id=row["id"], source=row["source"])


def lay_out(sample: Sample, tokenizer: LoadedTokenizer, pictures: PictureSettings) -> Layout:
    """Lay out a whole document, or a whole conversation with labels on its answers only.

    Raises RecordError when a block is not one text or one image or a conversation cannot be written, InputError where
    the tokenizer's chat template cannot be trained with.
    """
    if sample.roles is not None:
        return lay_out_conversation(messages_of(sample.texts, sample.images, sample.roles), tokenizer, pictures)
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
    positions = Positions(tokenizer, pictures)
    if tokenizer.begin is not None:
        positions.add([tokenizer.begin], learnt=False)
    # Idefics's processor spells the begin token before the text, which then is not the first for the tokenizer.
    spelled = pictures.marks == "idefics" and tokenizer.begin is not None
    shown = False
    for is_image, run in groupby(blocks, key=lambda block: isinstance(block, bytes)):
        if is_image:
            for payload in run:
                assert isinstance(payload, bytes)
                positions.add_picture(payload)
            shown = True
        else:
            text = BETWEEN_TEXTS.join(text for text in run if isinstance(text, str) and text)
            # Every other run is of pictures: only the first text may have none before it.
            text = space_text(text, pictures.marks, behind_picture=shown)
            positions.add(tokenizer.encode(text, at_start=not (shown or spelled)), learnt=True)
    if ended:
        positions.add([tokenizer.end], learnt=True)
    return positions.layout()

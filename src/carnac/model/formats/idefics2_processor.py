"""Idefics2's processor, written so that it makes the ids and pixels that `sequence` made in training."""

from __future__ import annotations

from typing import Any

from PIL import Image

from carnac.core.errors import InputError
from carnac.model.formats.description import Description
from carnac.sequence.marks import FAKE, IDEFICS3_IMAGE

IMAGE = IDEFICS3_IMAGE  # one name in all formats of the family


def make_processor(described: Description, words: Any, template: str) -> Any:
    """Return transformers' `Idefics2Processor` over the tokenizer `words`, which holds the marks of its pictures.

    Raises InputError where the tokenizer calls the image token or its mark otherwise.
    """
    from transformers import Idefics2ImageProcessorPil, Idefics2Processor

    missing = [name for name in (IMAGE, FAKE) if name not in words.get_vocab()]
    if missing:
        raise InputError(
            f"the idefics2 format's processor writes the token {missing[0]}, which this tokenizer does not have: it "
            'was made without the marks of its pictures. Train the model again with pictures.marks = "idefics2".'
        )
    pictures = described.pictures
    images = Idefics2ImageProcessorPil(
        do_image_splitting=pictures.max_tiles > 1,
        size=picture_size(described),
        do_pad=True,
        do_rescale=True,
        do_normalize=True,
        do_convert_rgb=True,
        resample=Image.Resampling[pictures.resample.upper()],
        image_mean=list(pictures.mean),
        image_std=list(pictures.std),
    )
    processor: Any = Idefics2Processor  # transformers is untyped
    return processor(images, words, image_seq_len=pictures.square_tokens, chat_template=template)


def picture_size(described: Description) -> dict[str, int]:
    """Return the processor's `size`: the bounds of both sides of a picture of any shape, or the square."""
    pictures = described.pictures
    if pictures.aspect == "square":
        return {"height": pictures.size_px, "width": pictures.size_px}
    return {"shortest_edge": pictures.shortest_side_px, "longest_edge": pictures.size_px}

"""Idefics' processor, written so that it makes the ids, pixels and image mask that our model reads.

It takes a prompt as a list of texts and pictures and puts the begin token and the marks there itself. Chat templates
go along with the tokenizer: the processor hands pictures of a conversation on behind its whole text.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from carnac.core.errors import InputError
from carnac.model.formats.description import Description
from carnac.sequence.marks import FAKE, IDEFICS3_IMAGE

IMAGE = IDEFICS3_IMAGE  # one name in all formats of the family


def make_processor(described: Description, words: Any, template: str) -> Any:
    """Return transformers' `IdeficsProcessor` over the tokenizer `words`, which holds the mark of its pictures.

    Raises InputError where the tokenizer calls the image token or its mark otherwise, or begins its texts with nothing.
    """
    from transformers import IdeficsImageProcessorPil, IdeficsProcessor

    missing = [name for name in (IMAGE, FAKE) if name not in words.get_vocab()]
    if missing:
        raise InputError(
            f"the idefics format's processor writes the token {missing[0]}, which this tokenizer does not have; it was "
            'made without the mark of its pictures. Train the model again with pictures.marks = "idefics".'
        )
    pictures = described.pictures
    images = IdeficsImageProcessorPil(
        image_size=pictures.size_px,
        resample=Image.Resampling[pictures.resample.upper()],
        image_mean=list(pictures.mean),
        image_std=list(pictures.std),
        do_resize=True,
        do_rescale=True,
        do_normalize=True,
        do_convert_rgb=True,
    )
    words.chat_template = template
    processor: Any = IdeficsProcessor  # transformers is untyped
    return processor(images, words, image_size=pictures.size_px)

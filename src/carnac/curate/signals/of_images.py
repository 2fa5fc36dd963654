"""Signals of images: what their files tell, and how many a document has."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from carnac.curate.signals.frame import Array, Frame
from carnac.curate.signals.signal import Column, Signal

_OBELICS = "OBELICS (arXiv 2306.16527), table 2"

IMAGE_COLUMNS = (
    Column(name="block_width", type=pa.int32(), table="image_signals"),
    Column(name="block_height", type=pa.int32(), table="image_signals"),
    Column(name="block_has_image", type=pa.bool_(), table="image_signals"),
    Column(name="block_media_type", type=pa.string(), table="image_signals"),
    Column(name="block_length", type=pa.int64(), table="image_signals"),
    Column(name="block_sha256", type=pa.string(), table="image_signals"),
    Column(name="block_phash", type=pa.uint64(), table="image_signals"),
)


def _aspect(frame: Frame) -> Array:
    width, height = frame.block("block_width"), frame.block("block_height")
    aspect: Array = np.maximum(width, height) / np.minimum(width, height)
    return aspect


def _words_per_image(frame: Frame) -> Array:
    images = frame.sum(frame.is_image)
    words = frame.total("block_num_words")
    per_image: Array = np.divide(words, images, out=np.full(len(images), np.nan), where=images != 0)
    return per_image


def _of_file(name: str, unit: str, description: str, column: str, source: str = _OBELICS) -> Signal:
    return Signal(
        name=name,
        level="image",
        unit=unit,
        description=description,
        source=source,
        columns=(column, "block_has_image"),
        value=lambda frame: frame.block(column),
        needs_file=True,
        scale="log",
    )


IMAGE_SIGNALS = (
    _of_file("width", "px", "width of the file, upright", "block_width"),
    _of_file("height", "px", "height of the file, upright", "block_height"),
    Signal(
        name="aspect",
        level="image",
        unit="ratio",
        description="longer side of the file over the shorter, so at least 1",
        source=_OBELICS,
        columns=("block_width", "block_height", "block_has_image"),
        value=_aspect,
        needs_file=True,
        scale="log",
    ),
    Signal(
        name="media_type",
        level="image",
        unit="word",
        description="format of the file: image/jpeg",
        source=_OBELICS,
        columns=("block_media_type", "block_has_image"),
        value=lambda frame: frame.labels("block_media_type"),
        is_label=True,
        needs_file=True,
    ),
    _of_file("bytes", "bytes", "length of the file as it is stored", "block_length", "ours"),
    Signal(
        name="num_images",
        level="document",
        unit="images",
        description="image blocks",
        source=_OBELICS,
        columns=(),
        value=lambda frame: frame.sum(frame.is_image),
        over="kept",
        scale="log",
    ),
    Signal(
        name="words_per_image",
        level="document",
        unit="words",
        description="words over images; not known without an image",
        source="ours",
        columns=("block_num_words",),
        value=_words_per_image,
        over="kept",
        scale="log",
    ),
    Signal(
        name="num_missing_images",
        level="document",
        unit="images",
        description="image blocks without a kept file",
        source="ours",
        columns=("block_has_image",),
        value=lambda frame: frame.sum(frame.is_image & ~frame.flags("block_has_image")),
        over="kept",
        scale="log",
    ),
)

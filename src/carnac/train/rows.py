"""A batch -> the micro-batches that one step computes one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from carnac.core.batch import Batch


def micro_batches(batch: Batch, rows: int | None) -> Iterator[Batch]:
    """Yield `batch` in parts of at most `rows` rows, with their own images; None yields it whole.

    `segment` still counts the pieces of the whole batch, and `provenance` is the whole batch's.
    """
    total = len(batch.input_ids)
    size = rows or total
    for start in range(0, total, size):
        yield _take_rows(batch, start, min(start + size, total))


def _take_rows(batch: Batch, start: int, stop: int) -> Batch:
    inside = (batch.image_slots[:, 0] >= start) & (batch.image_slots[:, 0] < stop)
    images = np.flatnonzero(inside)
    # Image numbers of the whole batch -> numbers inside the part; the last entry keeps -1 (none) as it is.
    renumbered = np.full(len(batch.image_slots) + 1, -1, dtype=np.int64)
    renumbered[images] = np.arange(len(images))
    return dataclasses.replace(
        batch,
        input_ids=batch.input_ids[start:stop],
        labels=batch.labels[start:stop],
        positions=batch.positions[start:stop],
        segment=batch.segment[start:stop],
        image_slots=batch.image_slots[images] - np.array([start, 0, 0]),
        image_of_token=renumbered[batch.image_of_token[start:stop]],
        pixels=batch.pixels[images],
    )

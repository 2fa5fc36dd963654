"""Does the model look at its images? The loss of a batch with every image replaced by one of another sample.

The batch is the one that is trained on, at the same weights: no data is set aside for it. Only labels after an image of
the same piece count. What evaluation says of held-out documents, with error bars, this shows early, as a curve (the
IDEFICS memo's observation: part of the loss on pairs falls with the image zeroed).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from carnac.core.batch import IGNORED, Batch
from carnac.core.seeds import generator
from carnac.train.metrics import GroundingRecord


def exchange_images(batch: Batch, seed: int, step: int) -> Batch | None:
    """Return `batch` with each image replaced by one of another sample, drawn from (seed, step).

    An image that stands in the other sample too (a logo, one picture with two conversations) is no other image. None
    where some image has no other to be replaced by: all are of one sample.
    """
    if not len(batch.pixels):
        return None
    pieces = batch.segment[batch.image_slots[:, 0], batch.image_slots[:, 1]]
    samples = [(batch.provenance[piece].shard, batch.provenance[piece].row) for piece in pieces]
    pictures = [hash(pixels.tobytes()) for pixels in batch.pixels]
    others = _differ(samples) & _differ(pictures)
    counts = others.sum(axis=1)
    if not counts.all():
        return None
    drawn = (generator(seed, "grounding", step).random(len(counts)) * counts).astype(np.int64)
    # The (drawn + 1)-th True of each row.
    chosen = (others.cumsum(axis=1) == drawn[:, None] + 1).argmax(axis=1)
    return dataclasses.replace(batch, pixels=batch.pixels[chosen])


def compare(batch: Batch, right: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> GroundingRecord | None:
    """Return the means of two losses [R, T] over the labels after an image; None where there are none."""
    seeing = (batch.labels != IGNORED) & (batch.image_of_token >= 0)
    count = int(seeing.sum())
    if not count:
        return None
    right_mean, other_mean = (float(losses[seeing].sum(dtype=np.float64)) / count for losses in (right, other))
    return GroundingRecord(right=right_mean, other=other_mean, label_tokens=count)


def _differ(owners: list[tuple[str, int]] | list[int]) -> npt.NDArray[np.bool_]:
    """Return [N, N]: whether two images have different owners."""
    numbers = {owner: number for number, owner in enumerate(dict.fromkeys(owners))}
    places = np.array([numbers[owner] for owner in owners])
    return np.asarray(places[:, None] != places[None, :])

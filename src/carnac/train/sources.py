"""A batch and the loss of its tokens -> what each source of the mixture gave."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from carnac.core.batch import IGNORED, Batch
from carnac.train.metrics import SourceRecord


def records_by_source(batch: Batch, per_token: npt.NDArray[np.float32]) -> dict[str, SourceRecord]:
    """Return each source's mean loss, labels, tokens and images; `per_token` is [R, T] as the model's `loss` gives it.

    A loss over all sources hides one that gets worse while another gets better.
    """
    names = sorted({piece.source for piece in batch.provenance})
    numbers = {name: number for number, name in enumerate(names)}
    # The last entry, of no source, is that of padding: segment -1.
    source_of_piece = np.array([*(numbers[piece.source] for piece in batch.provenance), len(names)])
    source = source_of_piece[batch.segment]
    labelled = batch.labels != IGNORED
    first = batch.image_slots[:, :2]

    def count(where: npt.NDArray[np.int64], weights: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.float64]:
        return np.bincount(where, weights=weights, minlength=len(names) + 1).astype(np.float64)

    tokens, labels = count(source.ravel()), count(source[labelled])
    losses = count(source[labelled], per_token[labelled])
    images = count(source[first[:, 0], first[:, 1]])
    return {
        name: SourceRecord(
            loss=float(losses[number] / labels[number]) if labels[number] else None,
            label_tokens=int(labels[number]),
            tokens=int(tokens[number]),
            images=int(images[number]),
        )
        for name, number in numbers.items()
    }

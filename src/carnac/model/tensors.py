"""Numpy batches -> torch tensors on the model's device.

Legend of shapes: R rows, T tokens of a row, N images, P tokens of an image, S image side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from carnac.core.batch import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTensors:
    """The part of a `core.batch.Batch` that the model reads.

    `input_ids`, `labels`, `positions` int64 [R, T]; `image_places` int64 [N, P], indices into the R * T tokens in
    row-major order; `pixels` float32 [N, 3, S, S]. `next_image` bool [R, T]: tokens of pieces that read the next image
    instead of the previous one (cross-attention); None: none do.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    image_places: torch.Tensor
    pixels: torch.Tensor
    next_image: torch.Tensor | None = None


def image_places(slots: npt.NDArray[np.int64], tokens_per_image: int, row_tokens: int) -> npt.NDArray[np.int64]:
    """Return [N, P] flat token indices of slots [N, 3] (row, first position, count)."""
    lengths = set(slots[:, 2].tolist())
    assert lengths <= {tokens_per_image}, f"slots of {sorted(lengths)} tokens, the model makes {tokens_per_image}"
    first = slots[:, 0] * row_tokens + slots[:, 1]
    return np.asarray(first[:, None] + np.arange(tokens_per_image), dtype=np.int64)


def to_tensors(batch: Batch, tokens_per_image: int, device: torch.device) -> BatchTensors:
    """Return `batch` as tensors on `device`."""
    places = image_places(batch.image_slots, tokens_per_image, batch.input_ids.shape[1])
    arrays = (batch.input_ids, batch.labels, batch.positions, places, batch.pixels)
    # A copy: a batch may be read-only (shared memory), which torch warns about.
    input_ids, labels, positions, image_index, pixels = (torch.tensor(array, device=device) for array in arrays)
    return BatchTensors(
        input_ids=input_ids, labels=labels, positions=positions, image_places=image_index, pixels=pixels
    )

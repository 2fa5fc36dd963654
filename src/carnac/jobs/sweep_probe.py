"""Do tokens see images that they should not? The same batch with other images: what changes where none is read.

A token before every image of its document reads none of them, nor does a token of another document in its row. Its loss
may then not hang on what they show: exchanged for others of the same size, it must stay the same to the bit. What it
gains by the right ones is read from the future.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from carnac.core.batch import IGNORED, Batch
from carnac.core.errors import RecordError
from carnac.engine.manifest import Manifest
from carnac.engine.tables import read_rows
from carnac.jobs.models import InputSettings
from carnac.mix.assemble import batch_of_samples
from carnac.mix.batches import BatchReader
from carnac.sequence.layout import sample_from_row
from carnac.sequence.tokenizer import LoadedTokenizer
from carnac.train.rows import micro_batches
from carnac.train.settings import TrainSettings

ROWS_AT_ONCE = 8  # windows of a long document scored together
PACKED_BATCHES = 8  # of the plan, looked at in packed rows
Losses = npt.NDArray[np.float32]


class EarlierTokens:
    """The loss of tokens before the first image of their window, with its images and with those of other documents."""

    def __init__(
        self, shards: Manifest, tokenizer: LoadedTokenizer, inputs: InputSettings, settings: TrainSettings
    ) -> None:
        self._shards, self._tokenizer, self._inputs, self._settings = shards, tokenizer, inputs, settings

    def __call__(self, model: Any, step: int) -> Mapping[str, float]:  # noqa: ARG002 -- the loop's protocol
        """Return the measures by name: means over tokens in nats, the largest change of one; none without such tokens.

        The images of a document are exchanged for those of the one before it.
        """
        losses = exchanged_losses(model, list(self._batches()), before_images, self._settings)
        if losses is None:
            return {}
        right, other = losses
        return {
            "earlier_tokens": float(len(right)),
            "earlier_loss": float(right.mean()),
            "earlier_loss_other": float(other.mean()),
            "earlier_change": float(np.abs(right - other).mean()),
            "earlier_change_most": float(np.abs(right - other).max()),
        }

    def _batches(self) -> Iterator[Batch]:
        rows = (row for entry in self._shards.parts for row in read_rows(entry.path))
        for row in islice(rows, self._settings.monitor.evaluation_samples):
            try:
                sample, inputs = sample_from_row(row), self._inputs
                yield batch_of_samples([sample], self._tokenizer, inputs.pictures, inputs.row_tokens)
            except RecordError:
                continue


class PackedTokens:
    """The loss of tokens that read no image, in packed rows that hold images of other documents or later ones."""

    def __init__(self, reader: BatchReader, settings: TrainSettings) -> None:
        self._reader, self._settings = reader, settings

    def __call__(self, model: Any, step: int) -> Mapping[str, float]:  # noqa: ARG002 -- the loop's protocol
        """Return the measures by name, of the first batches of the plan; none without such tokens.

        The images of a batch are exchanged for those of the one before it.
        """
        batches = [self._reader.batch(number) for number in range(min(PACKED_BATCHES, self._settings.steps))]
        losses = exchanged_losses(model, batches, unread, self._settings)
        if losses is None:
            return {}
        right, other = losses
        return {"packed_tokens": float(len(right)), "packed_change": float(np.abs(right - other).mean())}


def exchanged_losses(
    model: Any,
    batches: Sequence[Batch],
    chosen: Callable[[Batch], npt.NDArray[np.bool_]],
    settings: TrainSettings,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Return the losses of the `chosen` labels of all batches, float64 [L]: with their images, with those of another.

    None where no label is chosen, or only one batch has images.
    """
    import torch

    from carnac.train.compute import arithmetic

    def score(batch: Batch) -> Losses:
        with torch.no_grad(), arithmetic(settings.compute, model.device):
            parts = [model.loss(rows, batch.label_tokens)[1] for rows in micro_batches(batch, ROWS_AT_ONCE)]
        return np.asarray(torch.cat(parts).numpy(force=True))

    with_images = [batch for batch in batches if len(batch.pixels)]
    pairs: list[tuple[Losses, Losses]] = []
    model.eval()
    try:
        for number, batch in enumerate(with_images):
            labels, others = chosen(batch), with_images[number - 1].pixels
            if labels.any() and len(with_images) > 1:
                pixels = np.resize(others, (len(batch.pixels), *others.shape[1:]))  # repeated where they are fewer
                pairs.append((score(batch)[labels], score(replace(batch, pixels=pixels))[labels]))
    finally:
        model.train()
    if not pairs:
        return None
    right, other = (np.concatenate([pair[side] for pair in pairs]).astype(np.float64) for side in (0, 1))
    return right, other


def before_images(batch: Batch) -> npt.NDArray[np.bool_]:
    """Return bool [R, T]: labels before the first image of their piece, in pieces that have one."""
    with_images = np.unique(batch.segment[batch.image_of_token >= 0])
    return np.asarray(_reads_none(batch) & np.isin(batch.segment, with_images))


def unread(batch: Batch) -> npt.NDArray[np.bool_]:
    """Return bool [R, T]: labels that no image stands before, in rows that hold one."""
    rows = (batch.image_of_token >= 0).any(axis=1, keepdims=True)
    return np.asarray(_reads_none(batch) & rows)


def _reads_none(batch: Batch) -> npt.NDArray[np.bool_]:
    return np.asarray((batch.labels != IGNORED) & (batch.image_of_token < 0))

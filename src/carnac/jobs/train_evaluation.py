"""Held-out samples -> what a model makes of them while it is trained: their loss, with their images and with others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from carnac.core.batch import Batch
from carnac.core.errors import RecordError
from carnac.engine.manifest import Manifest
from carnac.engine.tables import read_rows
from carnac.evaluate.grounding import HeldOut, Pixels, pool_of, score_documents
from carnac.jobs.models import InputSettings
from carnac.mix.assemble import batch_of_samples
from carnac.sequence.layout import sample_from_row
from carnac.sequence.pixels import grey_pixels
from carnac.sequence.tokenizer import LoadedTokenizer
from carnac.train.rows import micro_batches
from carnac.train.settings import TrainSettings

if TYPE_CHECKING:
    from carnac.train.loop import Trainable

ROWS_AT_ONCE = 8  # windows of a long document scored together


class HeldOutLosses:
    """The mean loss of the first held-out samples, and of their tokens after an image under three conditions.

    The samples are laid out anew each time: 256 of them, kept with their pixels, would take 100 MB at 224 px.
    """

    def __init__(
        self, shards: Manifest, tokenizer: LoadedTokenizer, inputs: InputSettings, settings: TrainSettings
    ) -> None:
        self.every_steps = settings.monitor.evaluation_every_steps or settings.steps
        self._shards, self._tokenizer, self._inputs, self._settings = shards, tokenizer, inputs, settings
        self._pool: list[tuple[str, Pixels]] | None = None

    def __call__(self, model: Trainable, step: int) -> Mapping[str, float]:  # noqa: ARG002 -- the loop's protocol
        """Return the losses by name, in nats per token; without two samples with images, the loss alone."""
        import torch

        from carnac.train.compute import arithmetic

        module: Any = model

        def score(batch: Batch) -> npt.NDArray[np.float32]:
            with torch.no_grad(), arithmetic(self._settings.compute, module.device):
                parts = [module.loss(rows, batch.label_tokens)[1] for rows in micro_batches(batch, ROWS_AT_ONCE)]
            return np.asarray(torch.cat(parts).numpy(force=True))

        module.eval()
        try:
            return self._measure(score)
        finally:
            module.train()

    def _measure(self, score: Any) -> dict[str, float]:
        if self._pool is None:
            self._pool = pool_of(self._samples())
        pool = self._pool
        if len({owner for owner, _ in pool}) < 2:
            return _means({"loss": ((score(held.batch).sum(), held.batch.label_tokens) for held in self._samples())})
        seed, grey = self._settings.seed, grey_pixels(self._inputs.pictures)
        with_images = list(score_documents(self._samples(), pool, grey, score, seed))
        bare = (held.batch for held in self._samples() if not len(held.batch.pixels))
        losses = [(each.all_loss, each.all_tokens) for each in with_images]
        losses += [(float(score(batch).sum()), batch.label_tokens) for batch in bare]
        after = {
            f"{name}_images": [(each.losses[name], each.tokens) for each in with_images]
            for name in with_images[0].losses
        }
        return _means({"loss": losses, **after})

    def _samples(self) -> Iterator[HeldOut]:
        number = 0
        for entry in self._shards.parts:
            for row in read_rows(entry.path):
                if number == self._settings.monitor.evaluation_samples:
                    return
                number += 1
                sample, inputs = sample_from_row(row), self._inputs
                try:
                    batch = batch_of_samples([sample], self._tokenizer, inputs.pictures, inputs.row_tokens)
                except RecordError:
                    continue  # what is lost of held-out samples, the job evaluate counts
                yield HeldOut(id=sample.id, batch=batch)


def _means(sums: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean of each name's (sum, count) pairs; a name without counts is left out."""
    found = {}
    for name, pairs in sums.items():
        listed = list(pairs)
        count = sum(number for _, number in listed)
        if count:
            found[name] = float(sum(total for total, _ in listed)) / count
    return {f"heldout_{name}": value for name, value in found.items()}

"""Does the model look at its images? Next-token loss of held-out documents with other images in their place.

Three conditions on the same tokens at the same positions: `right` (the document's own images), `shuffled` (each
replaced by an image of another document) and `none` (each replaced by middle grey). A model that uses its images loses
less with the right ones. Only label tokens that come after an image of the same piece count: the others cannot see one.
The idea: an image-ablation loss as a grounding monitor (the IDEFICS memo's observation that part of the pair loss falls
with the image zeroed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from carnac.core.batch import IGNORED, Batch
from carnac.core.seeds import generator
from carnac.evaluate.bootstrap import Interval, paired_difference
from carnac.evaluate.settings import GroundingSettings

Condition = Literal["right", "shuffled", "none"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
Pixels = npt.NDArray[np.float32]
MAX_POOL = 512  # images to draw other images from: 57 MB at 96 px
Score = Callable[[Batch], npt.NDArray[np.float32]]
"""A model: a batch -> the cross entropy of each position, float32 [R, T], 0 where there is no label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """A held-out document as a batch of its own."""

    id: str
    batch: Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLosses:
    """`losses` are sums over the `tokens` labels that follow an image; `all_loss` is over every label, `right` only."""

    id: str
    images: int
    tokens: int
    losses: dict[Condition, float]
    all_tokens: int
    all_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounding:
    """The answer. Losses are nats per token. `gains` is what the right images save against the other conditions."""

    documents: int
    tokens: int
    loss: float
    losses: dict[Condition, float]
    gains: dict[Condition, Interval]

    def verdict(self) -> str:
        """Say in one sentence whether the model looks at its images."""
        gain = self.gains["shuffled"]
        span = f"95 % interval [{gain.low:+.4f}, {gain.high:+.4f}] nats per token"
        if gain.low > 0:
            return f"The model looks at its images: other images cost it {gain.estimate:+.4f} ({span})."
        if gain.high < 0:
            return f"The model does better with wrong images: {gain.estimate:+.4f} ({span}). Something is amiss."
        return f"No sign that the model looks at its images: other images change {gain.estimate:+.4f} ({span})."


def pool_of(documents: Iterable[HeldOut]) -> list[tuple[str, Pixels]]:
    """Return images to draw other images from, with the documents that they are of; none of one with a grey stand-in.

    At most half are of one document: one with many images leaves room for a second.
    """
    pool: list[tuple[str, Pixels]] = []
    for document in documents:
        if not document.batch.stand_ins:
            pool += [(document.id, pixels) for pixels in document.batch.pixels[: MAX_POOL // 2]]
        if len(pool) >= MAX_POOL:
            break
    return pool


def score_documents(
    documents: Iterable[HeldOut], pool: Sequence[tuple[str, Pixels]], grey: Pixels, score: Score, seed: int
) -> Iterator[DocumentLosses]:
    """Yield the losses of every document that has an image.

    `pool` (`pool_of`) holds (document id, pixels [C, H, W]); it must know at least two documents.
    """
    for document in documents:
        batch = document.batch
        if not len(batch.pixels):
            continue
        substitutes = {
            "right": batch.pixels,
            "shuffled": _others(document, pool, seed),
            "none": np.broadcast_to(grey, batch.pixels.shape),
        }
        labelled = batch.labels != IGNORED
        seeing = labelled & (batch.image_of_token >= 0)
        losses: dict[Condition, float] = {}
        all_loss = 0.0
        for condition in CONDITIONS:
            per_token = score(replace(batch, pixels=np.ascontiguousarray(substitutes[condition])))
            losses[condition] = float(per_token[seeing].sum(dtype=np.float64))
            if condition == "right":
                all_loss = float(per_token[labelled].sum(dtype=np.float64))
        yield DocumentLosses(
            id=document.id,
            images=len(batch.pixels),
            tokens=int(seeing.sum()),
            losses=losses,
            all_tokens=int(labelled.sum()),
            all_loss=all_loss,
        )


def summarise(documents: Sequence[DocumentLosses], settings: GroundingSettings) -> Grounding | None:
    """Return the answer over documents, or None when fewer than two have a token after an image."""
    seeing = [document for document in documents if document.tokens]
    if len(seeing) < 2:
        return None
    tokens = np.array([document.tokens for document in seeing], dtype=np.float64)
    sums = {name: np.array([document.losses[name] for document in seeing]) for name in CONDITIONS}
    gains: dict[Condition, Interval] = {
        name: paired_difference(sums["right"], sums[name], tokens, seed=settings.seed, resamples=settings.resamples)
        for name in CONDITIONS
        if name != "right"
    }
    return Grounding(
        documents=len(seeing),
        tokens=int(tokens.sum()),
        loss=sum(document.all_loss for document in documents) / sum(document.all_tokens for document in documents),
        losses={name: float(sums[name].sum() / tokens.sum()) for name in CONDITIONS},
        gains=gains,
    )


def _others(document: HeldOut, pool: Sequence[tuple[str, Pixels]], seed: int) -> Pixels:
    """Return as many images of other documents, drawn by document id: the order of documents changes nothing.

    A picture that stands in the document itself (a logo) is no other picture; it is drawn only if there is none else.
    """
    own = {pixels.tobytes() for pixels in document.batch.pixels}
    others = [pixels for owner, pixels in pool if owner != document.id]
    assert others, "the pool must hold images of at least two documents"
    others = [pixels for pixels in others if pixels.tobytes() not in own] or others
    chosen = generator(seed, "shuffled", document.id).integers(0, len(others), len(document.batch.pixels))
    return np.stack([others[index] for index in chosen])

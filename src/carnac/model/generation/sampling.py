"""Logits -> the next ids.

Legend of shapes: R rows, K vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from carnac.core.seeds import generator
from carnac.model.settings import GenerationSettings

# The likeliest ids nearly always reach `top_p` among this many; sorting a vocabulary of 49,152 takes 30 times as long.
LIKELIEST = 256
# Logits divided by less leave the range of float32 and say nothing; long before, the likeliest is all that is drawn.
GREEDY_BELOW = 1e-6


def draws_of(settings: GenerationSettings, number: int) -> np.random.Generator:
    """Return the stream of draws for prompt `number` of a batch: alone, a prompt has number 0."""
    return generator(settings.seed, "generate", number)


def choose(logits: torch.Tensor, settings: GenerationSettings, draws: Sequence[np.random.Generator]) -> torch.Tensor:
    """Return the next id [R] of each row of logits [R, K]: the likeliest, or one drawn by the row's own stream.

    Drawn among the likeliest ids that together reach `top_p` (nucleus sampling, Holtzman et al. 2020, arXiv
    1904.09751); ids as likely as the last of them are let in. A row's choice does not depend on the other rows.
    """
    if settings.temperature < GREEDY_BELOW:
        return logits.argmax(-1)
    probabilities = (logits.float() / settings.temperature).softmax(-1)
    if settings.top_p < 1.0:
        least = least_kept(probabilities, settings.top_p)
        probabilities = probabilities.where(probabilities >= least, 0.0)
    # One number per row turned into an id by the cumulated probabilities. In float64: the tail of a large vocabulary
    # is below the rounding of a float32 sum.
    cumulated = probabilities.double().cumsum(-1)
    numbers = torch.tensor([[row.random()] for row in draws], dtype=torch.float64).to(logits.device)
    found = torch.searchsorted(cumulated, numbers * cumulated[:, -1:], right=True)[:, 0]
    return found.clamp(max=logits.shape[-1] - 1)


def least_kept(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return [R, 1], the probability of the last id of the smallest set that reaches `top_p`."""
    likeliest = probabilities.topk(min(LIKELIEST, probabilities.shape[-1]), dim=-1).values
    cumulated = likeliest.double().cumsum(-1)
    if not bool((cumulated[:, -1] >= top_p).all()):
        likeliest = probabilities.sort(dim=-1, descending=True).values
        cumulated = likeliest.double().cumsum(-1)
    # What is reached before an id: below `top_p`, the id is needed.
    needed = (cumulated - likeliest < top_p).sum(-1, keepdim=True)
    return likeliest.gather(-1, needed - 1)

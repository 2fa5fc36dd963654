"""Which square grids of patches transformers' Idefics3 numbers as they lie; no torch here.

Its vision tower takes pictures of any shape, so it computes the place of a patch: the fraction of the side at which the
patch begins, sorted into boundaries of equal distance, both in float32. Where a fraction that should equal its boundary
is rounded below it, the patch gets its neighbour's position. Which sides suffer depends on how many numbers a processor
rounds at once, because `torch.arange` rounds the first number of each group once more: of the sides up to 128, 59 go
wrong with groups of 4, 53 with groups of 8 and 45 with groups of 16; 60 with one of them.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

LANES = (4, 8, 16)  # float32 numbers that NEON, AVX2 and AVX-512 compute at once


def numbers_patches_in_order(side: int) -> bool:
    """Say whether a grid of `side` x `side` patches keeps its positions on every kind of processor."""
    fractions = np.arange(side, dtype=np.float32) * (np.float32(1) / np.float32(side))
    fractions = np.minimum(fractions, np.float32(1 - 1e-6))
    return all(
        np.array_equal(np.searchsorted(_boundaries(side, lanes), fractions, side="right"), np.arange(side))
        for lanes in LANES
    )


def nearest_sides(side: int) -> tuple[int, ...]:
    """Return the next smaller and the next larger side that keep their positions."""
    smaller = [other for other in range(side - 1, 0, -1) if numbers_patches_in_order(other)][:1]
    larger = next(other for other in range(side + 1, 2 * side + 2) if numbers_patches_in_order(other))
    return (*smaller, larger)


def _boundaries(side: int, lanes: int) -> npt.NDArray[np.float32]:
    """Compute `torch.arange(1 / side, 1.0, 1 / side)` as PyTorch does: pairs of vectors, then single numbers."""
    step = 1 / side
    count = math.ceil((1.0 - step) / step)
    whole = count // (2 * lanes) * (2 * lanes)
    firsts = (step + step * np.arange(0, whole, lanes)).astype(np.float32).astype(np.float64)
    vectors = (firsts[:, None] + step * np.arange(lanes)).astype(np.float32)
    rest = (step + step * np.arange(whole, count)).astype(np.float32)
    return np.concatenate([vectors.ravel(), rest])

"""Randomness, always derived from what it is for: no stage seeds a global generator."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_of(*parts: str | int) -> int:
    """Return a 64-bit seed that depends on every part, in order: `seed_of(7, "plan", 0)`."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def generator(*parts: str | int) -> np.random.Generator:
    """Return a counter-based generator (Philox) for `parts`; equal parts give equal streams on any machine."""
    return np.random.Generator(np.random.Philox(seed_of(*parts)))


def unit_interval(*parts: str | int) -> float:
    """Map `parts` to a number in [0, 1): a stable coin for splits, independent of order and of other records."""
    return (seed_of(*parts) >> 11) / 2**53  # what a float holds exactly: all 64 bits would round up to 1.0

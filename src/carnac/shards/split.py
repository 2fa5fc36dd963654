"""The held-out split: decided by the root of a document's cluster of duplicates, so no copy crosses it."""

from __future__ import annotations

from typing import Literal

from carnac.core.seeds import unit_interval

Split = Literal["train", "heldout"]


def split_of(root_id: str, held_out: float, seed: int) -> Split:
    """Return the split of the document whose duplicates' root is `root_id`: stable under reordering and added data."""
    return "heldout" if unit_interval(seed, "split", root_id) < held_out else "train"

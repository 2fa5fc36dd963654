"""The held-out split: decided by the root of a document's cluster of duplicates, so no copy crosses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from carnac.core.places import Folder, Place
from carnac.core.seeds import unit_interval

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = get_args(Split)


def split_folders(output: Folder) -> Iterator[tuple[str, str, Place]]:
    """Yield what `Recipe.folders_written` tells of a recipe whose `output` holds both splits."""
    return (("output", "shards", output / split) for split in SPLITS)


def split_of(root_id: str, held_out: float, seed: int) -> Split:
    """Return the split of the document whose duplicates' root is `root_id`: stable under reordering and added data."""
    return "heldout" if unit_interval(seed, "split", root_id) < held_out else "train"

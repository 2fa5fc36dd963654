"""The held-out split: decided by the root of a document's cluster of duplicates, so no copy crosses it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

from carnac.core.places import Folder, Place
from carnac.core.seeds import unit_interval
from carnac.shards.settings import SplitSettings

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = get_args(Split)


def split_folders(output: Folder) -> Iterator[tuple[str, str, Place]]:
    """Yield what `Recipe.folders_written` tells of a recipe whose `output` holds both splits."""
    return (("output", "shards", output / split) for split in SPLITS)


def split_of(root_id: str, held_out: float, seed: int) -> Split:
    """Return the split of the document whose duplicates' root is `root_id`: stable under reordering and added data."""
    return "heldout" if unit_interval(seed, "split", root_id) < held_out else "train"


class Splitter:
    """Says of the documents of a part, asked in the order of its rows, into which split each falls.

    Whoever asks the same gets the same: the images of a document are gathered, and later read, for one split.
    """

    def __init__(self, settings: SplitSettings, roots: Mapping[str, str], limit: int | None = None) -> None:
        self._settings, self._roots, self._limit = settings, roots, limit
        self._taken: Counter[Split] = Counter()

    def split_of(self, document_id: str, keep: bool) -> Split | None:
        """Return the split of the next document; None where it is not kept or its split has `limit` documents."""
        if not keep:
            return None
        split = split_of(self._roots.get(document_id, document_id), self._settings.held_out, self._settings.seed)
        if self._limit is not None and self._taken[split] >= self._limit:
            return None
        self._taken[split] += 1
        return split

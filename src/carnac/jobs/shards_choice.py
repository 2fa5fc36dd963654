"""Which documents of a part become samples, in which split, and with which images: one answer for all steps.

What is gathered for a shard and what the shard then takes must be the same images in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.core.schema import FOUND
from carnac.core.taken_down import MARK, TakenDown
from carnac.engine.aligned import read_aligned_tables
from carnac.engine.tables import read_batches, read_rows
from carnac.shards.settings import SplitSettings
from carnac.shards.split import Split, Splitter

ROWS_AT_ONCE = 256  # of documents: a few megabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A documents part with its mask and the images found for it, and what decides which of it becomes samples.

    `repeats` are the parts that say which documents are copies: those fall into the split of their root.
    """

    documents: Place
    mask: Place
    found: Place
    repeats: tuple[Place, ...]
    split: SplitSettings
    limit: int | None
    taken_down: TakenDown


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A document that becomes a sample of `split`, with the rows (`core.schema.FOUND`) of its images, by block."""

    row: int
    document: dict[str, Any]
    keep_block: list[bool]
    split: Split
    found: tuple[dict[str, Any], ...]


def chosen_of(choice: Choice, columns: Sequence[str]) -> Iterator[Chosen]:
    """Yield what is chosen of both splits, in the order of rows; `columns` are read of the documents, and id and url.

    Raises InputError when the parts were not made from one another.
    """
    splitter = Splitter(choice.split, roots_of(choice.repeats), choice.limit)
    found = _FoundImages(choice.found)
    parts = {
        "documents": (choice.documents, list(dict.fromkeys([*columns, "id", "url"]))),
        "masks": (choice.mask, ["id", "keep", "keep_block"]),
    }
    for first, tables in read_aligned_tables(parts, ROWS_AT_ONCE):
        pairs = zip(tables["documents"].to_pylist(), tables["masks"].to_pylist(), strict=True)
        for row, (document, mask) in enumerate(pairs, first):
            if document["id"] != mask["id"]:
                raise InputError(
                    f"row {row} of {choice.documents}, {choice.mask}: ids differ, {document['id']} and {mask['id']}. "
                    "Run the recipe again."
                )
            images = found.of(row, document["id"], len(mask["keep_block"]))
            split = splitter.split_of(document["id"], mask["keep"] and not _is_gone(choice, document["url"]))
            if split is not None:
                kept = tuple(
                    image for image in images if mask["keep_block"][image["block"]] and _is_there(choice, image)
                )
                yield Chosen(row=row, document=document, keep_block=mask["keep_block"], split=split, found=kept)
    found.end()


class _FoundImages:
    """The images found for the documents of a part, asked for by ascending row."""

    def __init__(self, part: Place) -> None:
        self._part = part
        self._rows = read_rows(part, FOUND.names)
        self._next = next(self._rows, None)

    def of(self, row: int, document_id: str, num_blocks: int) -> list[dict[str, Any]]:
        """Return the images of a document, by block. Raises InputError when they are another's."""
        images = []
        while self._next is not None and self._next["row"] <= row:
            if (self._next["row"], self._next["id"]) != (row, document_id) or self._next["block"] >= num_blocks:
                raise self._misplaced(f"document {document_id} is at row {row} and has {num_blocks} blocks")
            images.append(self._next)
            self._next = next(self._rows, None)
        return images

    def end(self) -> None:
        """Raise InputError when there are images of more documents."""
        if self._next is not None:
            raise self._misplaced("the documents end before it")

    def _misplaced(self, wanted: str) -> InputError:
        assert self._next is not None
        known, row, block = (self._next[name] for name in ("id", "row", "block"))
        return InputError(
            f"{self._part}: an image of document {known} at row {row}, block {block}, but {wanted}: it was found for "
            "other documents. Run the recipe that writes the images again."
        )


def _is_gone(choice: Choice, url: str | None) -> bool:
    return url == MARK or (bool(choice.taken_down) and choice.taken_down.has_url(url))


def _is_there(choice: Choice, found: Mapping[str, Any]) -> bool:
    """Say whether the bytes of an image may be had: what was taken down has lost its place, or stands in the record."""
    gone = found["pack"] is None or _is_gone(choice, found["url"])
    return not gone and not (choice.taken_down and choice.taken_down.has_image(found["sha256"]))


def roots_of(repeats: Sequence[Place]) -> dict[str, str]:
    """Return the root of every duplicate; roots of roots are followed (a copy by text of a copy by URL)."""
    roots: dict[str, str] = {}
    for part in repeats:
        for batch in read_batches(part, ["id", "block", "root"], 10_000):
            # Blocks have no say, and there may be a hundred times as many.
            whole = batch.filter(pc.and_(pc.is_null(batch.column("block")), pc.is_valid(batch.column("root"))))
            for name, root in zip(whole.column("id").to_pylist(), whole.column("root").to_pylist(), strict=True):
                if name != root:
                    roots.setdefault(name, root)

    def follow(name: str) -> str:
        seen = set()
        while name in roots and name not in seen:
            seen.add(name)
            name = roots[name]
        return name

    return {name: follow(name) for name in roots}

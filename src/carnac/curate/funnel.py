"""Count what each pass kept and what each reason took, and keep a few samples of what it took.

In: parts of documents, signals and masks, one unit after the other, in any order. Out: a `FunnelStep` per pass. Of each
pass, what went in less what its reasons took is what came out, for documents, text blocks, words and images alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carnac.curate.settings import RepeatsPass, RulesPass
from carnac.curate.verdicts import Reasons, check_same_rows, reasons_of_pass

INPUT = "(input)"  # no pass can be named so
MAX_EXCERPT_CHARACTERS = 200

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """A quantity of documents and what is in them. `images` are image blocks, `words` those of the text blocks."""

    documents: int
    text_blocks: int
    words: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One thing that a reason took: its document, and the start of the text, or the image URL, that went."""

    id: str
    url: str
    excerpt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one reason took. The blocks of a dropped document count where they were kept until then."""

    reason: str
    amount: Amount
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelStep:
    """What is kept after a pass, and what its reasons took, in the order in which the pass tries them.

    The first step, named `(input)`, is what came in.
    """

    name: str
    kept: Amount
    taken: tuple[Taken, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain dicts and lists."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Part:
    """One unit as flat arrays: an entry per document, or per block with the document it is `of`."""

    documents: pa.Table
    of: Array
    is_image: Array
    words: Array
    contents: pa.Array

    @classmethod
    def load(cls, documents: pa.Table, signals: pa.Table) -> _Part:
        kinds = documents.column("kinds").combine_chunks()
        of = np.repeat(np.arange(len(kinds)), pc.list_value_length(kinds).to_numpy(zero_copy_only=False))
        words = pc.fill_null(_flatten(signals, "block_num_words"), 0).to_numpy(zero_copy_only=False)
        is_image = pc.equal(kinds.flatten(), "image").to_numpy(zero_copy_only=False)
        assert len(words) == len(of), f"{len(words)} entries of block_num_words, {len(of)} blocks"
        contents = pc.coalesce(_flatten(documents, "texts"), _flatten(documents, "images"))
        return cls(documents, of, is_image.astype(bool), words, contents)

    def draw(self, documents: Array, blocks: Array, count: int) -> list[Sample]:
        """Return samples of the documents of the smallest ids among those that were hit, no two of one excerpt.

        Ids are hashes, so that this is a fair draw, and the same in any order of units. A document is shown by the
        wordiest block that went with it, blocks by the first of each document.
        """
        hits = np.flatnonzero(blocks)
        of_hits, first = np.unique(self.of[hits], return_index=True)
        first_of = dict(zip(of_hits.tolist(), hits[first].tolist(), strict=True))
        rows = {*np.flatnonzero(documents).tolist(), *first_of}
        ids = self.documents.column("id").to_pylist() if rows else []
        samples: dict[str, Sample] = {}
        for row in sorted(rows, key=lambda row: ids[row]):
            if len(samples) == count:
                break
            excerpt = self._excerpt(self._wordiest(row, blocks) if documents[row] else first_of[row])
            url = self.documents.column("url")[row].as_py()
            samples.setdefault(excerpt, Sample(id=ids[row], url=url, excerpt=excerpt))
        return list(samples.values())

    def _wordiest(self, row: int, blocks: Array) -> int | None:
        """Return the block of most words among `blocks` of a document, its first block where it has none of them."""
        start, stop = np.searchsorted(self.of, [row, row + 1]).tolist()
        weights = np.where(blocks[start:stop], self.words[start:stop] + 1, 0)
        return start + int(weights.argmax()) if len(weights) else None

    def _excerpt(self, block: int | None) -> str:
        """Return the start of a block's text, or its image URL; nothing for a document without blocks."""
        content = "" if block is None else self.contents[block].as_py()[: 4 * MAX_EXCERPT_CHARACTERS]
        return " ".join(content.split())[:MAX_EXCERPT_CHARACTERS]


class Funnel:
    """Adds up parts: give every unit once to `add_part`, then read `steps`."""

    def __init__(self, passes: Sequence[RulesPass | RepeatsPass], max_samples: int = 5) -> None:
        self._passes = tuple(passes)
        self._max_samples = max_samples
        self._reasons = [reasons_of_pass(pass_) for pass_ in passes]
        self._kept = np.zeros((len(passes) + 1, 4), dtype=np.int64)
        self._taken = [np.zeros((len(names), 4), dtype=np.int64) for names in self._reasons]
        self._samples: list[list[list[Sample]]] = [[[] for _ in names] for names in self._reasons]

    def add_part(self, documents: pa.Table, signals: pa.Table, masks: Sequence[pa.Table]) -> None:
        """Add one unit: `masks` holds its part of every pass, in order.

        `documents` needs the columns `id`, `url`, `texts`, `images`, `kinds`, `signals` `id` and `block_num_words`.
        Raises InputError where they do not hold the same documents.
        """
        assert len(masks) == len(self._passes), f"{len(masks)} masks for {len(self._passes)} passes"
        check_same_rows(documents, signals, *masks)
        part = _Part.load(documents, signals)
        before_documents = np.ones(documents.num_rows, dtype=bool)
        before_blocks = np.ones(len(part.of), dtype=bool)
        self._kept[0] += _amounts(part, before_documents, before_blocks)
        for step, mask in enumerate(masks):
            keep = mask.column("keep").to_numpy()
            keep_block = _flatten(mask, "keep_block").to_numpy(zero_copy_only=False).astype(bool)
            blocks = keep[part.of] & keep_block
            self._kept[step + 1] += _amounts(part, keep, blocks)
            reason = pc.fill_null(mask.column("reason"), -1).to_numpy()
            own = pc.fill_null(_flatten(mask, "block_reason"), -1).to_numpy(zero_copy_only=False)
            # A block that its own rule took goes to that rule, the rest of a dropped document to the document's reason.
            taken_documents = np.where(before_documents & ~keep, reason, -1)
            taken_blocks = np.where(before_blocks & ~blocks, np.where(keep_block, reason[part.of], own), -1)
            self._take(step, part, Reasons.from_table(mask), taken_documents, taken_blocks)
            before_documents, before_blocks = keep, blocks

    def steps(self) -> list[FunnelStep]:
        """Return what came in, then one step per pass."""
        steps = [FunnelStep(name=INPUT, kept=_amount(self._kept[0]), taken=())]
        for number, pass_ in enumerate(self._passes):
            taken = tuple(
                Taken(
                    reason=reason,
                    amount=_amount(self._taken[number][place]),
                    samples=tuple(self._samples[number][place]),
                )
                for place, reason in enumerate(self._reasons[number])
            )
            steps.append(FunnelStep(name=pass_.name, kept=_amount(self._kept[number + 1]), taken=taken))
        return steps

    def _take(self, step: int, part: _Part, reasons: Reasons, documents: Array, blocks: Array) -> None:
        """Book what each reason of a pass took: `documents` and `blocks` hold codes, -1 where nothing was taken."""
        for place, name in enumerate(self._reasons[step]):
            of_document, of_block = documents == reasons.code(name), blocks == reasons.code(name)
            self._taken[step][place] += _amounts(part, of_document, of_block)
            dead = part.draw(of_document, of_block, self._max_samples)
            self._samples[step][place] = _merge(self._samples[step][place], dead, self._max_samples)


def _merge(grave: list[Sample], dead: list[Sample], count: int) -> list[Sample]:
    """Return the samples of the smallest ids, of each excerpt the first."""
    merged: dict[str, Sample] = {}
    for sample in sorted([*grave, *dead], key=astuple):
        merged.setdefault(sample.excerpt, sample)
    return list(merged.values())[:count]


def _flatten(table: pa.Table, column: str) -> pa.Array:
    """Return the entries of all lists of a column."""
    return table.column(column).combine_chunks().flatten()


def _amounts(part: _Part, documents: Array, blocks: Array) -> Array:
    """Return documents, text blocks, words and images where the masks are true."""
    texts = blocks & ~part.is_image
    return np.array([documents.sum(), texts.sum(), part.words[texts].sum(), (blocks & part.is_image).sum()])


def _amount(counts: Array) -> Amount:
    documents, text_blocks, words, images = counts.tolist()
    return Amount(documents=documents, text_blocks=text_blocks, words=words, images=images)

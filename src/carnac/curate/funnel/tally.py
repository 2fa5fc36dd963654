"""Add up what each pass kept, what each reason took, and how the signals lie to the thresholds of its rules.

In: stored signals and masks of some documents, part after part, in any order and in batches of any size. No text is
opened: samples are places, of which `digest` columns tell equal texts apart.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carnac.curate.funnel.rules import Looked, axis_of, bounds_of, look
from carnac.curate.funnel.samples import Pick, draw, merge_picks, nearest
from carnac.curate.masks import GivesReasons, Masks, Reasons
from carnac.curate.settings import Rule, RulesPass
from carnac.curate.signals.frame import Frame

NUM_TAKEN = 5  # samples of what a reason took
NUM_NEAR = 3  # samples on either side of a threshold
Group = Literal["taken", "just_kept", "just_dropped"]
AMOUNTS = 4  # documents, text blocks, words, images
# Columns of `signals/` that are read beside those of the rules; digests where they are stored.
DIGESTS = ("block_text_digest", "block_image_digest")
WORDS = "block_num_words"

Truths = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Some documents of a part, those from row `first` on, with what is the same for all passes.

    Of d documents with b blocks: `ids` str[d], `rank` int64[d] (place of each id among all), `failed` bool[d]; `of`
    int64[b] (the document of each block), `words` int64[b], `digest` uint64[b], `has_digest` bool[b].
    """

    unit: str
    first: int
    ids: Sequence[str]
    rank: Integers
    failed: Truths
    starts: Integers
    of: Integers
    is_image: Truths
    words: Integers
    digest: npt.NDArray[np.uint64]
    has_digest: Truths

    @classmethod
    def of_signals(cls, unit: str, first: int, signals: pa.Table) -> Rows:
        """Return the rows of a table of signals; it needs `id`, `failed`, `block_kind` and `block_num_words`."""
        frame = Frame.of(signals.select(["block_kind"]))
        ids = signals.column("id").to_pylist()
        words = pc.fill_null(signals.column(WORDS).combine_chunks().flatten(), 0)
        digest, has_digest = _digests(signals, len(frame.kinds))
        return cls(
            unit=unit,
            first=first,
            ids=ids,
            rank=np.argsort(np.argsort(np.array(ids, np.str_), kind="stable"), kind="stable"),
            failed=signals.column("failed").is_valid().to_numpy(),
            starts=frame.starts,
            of=np.repeat(np.arange(len(ids)), np.diff(frame.starts)),
            is_image=frame.is_image,
            words=words.to_numpy(zero_copy_only=False).astype(np.int64),
            digest=digest,
            has_digest=has_digest,
        )

    def pick(self, document: int, block: int | None, distance: float, value: float | None) -> Pick:
        """Return a sample: a document, and the block (counted over all documents) that shows it."""
        known = self.ids[document]
        if block is not None and self.has_digest[block]:
            digest = int(self.digest[block])
        else:
            digest = int.from_bytes(hashlib.blake2b(f"{known} {block is None}".encode(), digest_size=8).digest())
        return Pick(
            distance=distance,
            id=known,
            row=self.first + document,
            unit=self.unit,
            block=None if block is None else block - int(self.starts[document]),
            digest=digest,
            value=value,
        )

    def wordiest(self, document: int, blocks: Truths) -> int | None:
        """Return the block of most words among `blocks` of a document, its first where it has none of them."""
        start, stop = int(self.starts[document]), int(self.starts[document + 1])
        weights = np.where(blocks[start:stop], self.words[start:stop] + 1, 0)
        return start + int(weights.argmax()) if stop > start else None


@dataclass(slots=True)
class Histogram:
    """How many values lie in each bin, or have each word: (kept, dropped) by the rule; and how many are not known."""

    bins: dict[int, list[int]] = field(default_factory=dict)
    words: dict[str, list[int]] = field(default_factory=dict)
    unknown: int = 0

    def add(self, other: Histogram) -> None:
        """Add the counts of another."""
        _add(self.bins, other.bins)
        _add(self.words, other.words)
        self.unknown += other.unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """One pass over some documents: its masks, and, of a pass of rules, their signals as it saw them."""

    masks: Masks
    frame: Frame | None


class Tally:
    """Sums over parts: `kept[0]` is what came in, `kept[n]` what the n-th pass left.

    Amounts are documents, text blocks, words of them, image blocks. `taken[n]` holds those of each reason of a pass, in
    the order of `reasons[n]`.
    """

    def __init__(self, passes: Sequence[GivesReasons]) -> None:
        self.passes = tuple(passes)
        self.reasons = [step.reasons() for step in passes]
        self.codes = Reasons.of(passes)
        self.kept = np.zeros((len(passes) + 1, AMOUNTS), np.int64)
        self.taken = [np.zeros((len(names), AMOUNTS), np.int64) for names in self.reasons]
        self.histograms: dict[tuple[int, int], Histogram] = {}  # by (pass, rule), counted from 0
        self.picks: dict[tuple[int, str, Group], list[Pick]] = {}  # by (pass, reason, group)

    def merge(self, other: Tally) -> None:
        """Add the sums of another tally of the same passes."""
        self.kept += other.kept
        self.taken = [mine + theirs for mine, theirs in zip(self.taken, other.taken, strict=True)]
        for place, histogram in other.histograms.items():
            self.histograms.setdefault(place, Histogram()).add(histogram)
        for key, picks in other.picks.items():
            self.add_picks(key, picks)

    def add_picks(self, key: tuple[int, str, Group], picks: Sequence[Pick]) -> None:
        """Add samples to a draw."""
        if picks:
            count = NUM_TAKEN if key[2] == "taken" else NUM_NEAR
            self.picks[key] = merge_picks([*self.picks.get(key, []), *picks], count)

    def add(self, rows: Rows, afters: Sequence[After]) -> None:
        """Add some documents; `afters` are all passes in their order."""
        assert len(afters) == len(self.passes), f"{len(afters)} masks for {len(self.passes)} passes"
        keep = np.ones(len(rows.ids), np.bool_)
        alive = np.ones(len(rows.of), np.bool_)
        self.kept[0] += _amounts(rows, keep, alive)
        for number, (step, after) in enumerate(zip(self.passes, afters, strict=True)):
            if isinstance(step, RulesPass) and after.frame is not None:
                self._look(number, step, rows, _Before(keep & ~rows.failed, alive, after))
            masks = after.masks
            now_keep, now_alive = masks.keep, masks.is_alive
            self.kept[number + 1] += _amounts(rows, now_keep, now_alive)
            # A block that its own rule took goes to that rule, the rest of a dropped document to the document's reason.
            documents = np.where(keep & ~now_keep, masks.reason, -1)
            of_blocks = np.where(masks.keep_block, masks.reason[rows.of], masks.block_reason)
            blocks = np.where(alive & ~now_alive, of_blocks, -1)
            self._take(number, rows, documents, blocks)
            keep, alive = now_keep, now_alive

    def _take(self, number: int, rows: Rows, documents: npt.NDArray[Any], blocks: npt.NDArray[Any]) -> None:
        """Book what each reason of a pass took: `documents` and `blocks` hold codes, -1 where nothing was taken."""
        size = len(self.codes.names) + 1
        texts = ~rows.is_image
        by_code = np.stack(
            [
                np.bincount(documents + 1, minlength=size),
                np.bincount(blocks[texts] + 1, minlength=size),
                np.bincount(blocks[texts] + 1, weights=rows.words[texts], minlength=size).astype(np.int64),
                np.bincount(blocks[rows.is_image] + 1, minlength=size),
            ],
            axis=1,
        )
        for place, name in enumerate(self.reasons[number]):
            code = self.codes.code(name)
            self.taken[number][place] += by_code[code + 1]
            if by_code[code + 1].any():
                picks = _draw_taken(rows, documents == code, blocks == code)
                self.add_picks((number, name, "taken"), picks)

    def _look(self, number: int, step: RulesPass, rows: Rows, before: _Before) -> None:
        """Count the values that the rules of a pass looked at, and draw those nearest to their thresholds."""
        assert before.after.frame is not None
        frame, masks = before.after.frame, before.after.masks
        alive = before.alive & before.keep[rows.of]
        left = np.bincount(rows.of[alive & masks.keep_block], minlength=len(rows.ids)) > 0
        kept_frame = frame.with_kept(masks.keep_block)
        for place, rule in enumerate(step.rules):
            is_document = rule.on == "document"
            looked = look(kept_frame if is_document else frame, rule, before.keep & left if is_document else alive)
            self.histograms.setdefault((number, place), Histogram()).add(_histogram(rule, looked))
            if looked.values is not None:
                shown = alive & masks.keep_block if is_document else None
                self._draw_near(number, rule, rows, looked, shown)

    def _draw_near(self, number: int, rule: Rule, rows: Rows, looked: Looked, shown: Truths | None) -> None:
        """Draw what lies nearest to each threshold; `shown` (bool[b]) are blocks that may show a document."""
        assert looked.values is not None
        of = rows.of if shown is None else np.arange(len(rows.ids))
        known = looked.judged & np.isfinite(looked.values)

        for bound in bounds_of(rule):
            distance = np.abs(looked.values - bound.at)
            fails = bound.drops(looked.values)
            groups: tuple[tuple[Group, Truths], ...] = (
                ("just_kept", known & ~looked.fails),
                ("just_dropped", known & fails),
            )
            for group, chosen in groups:
                key = (number, bound.reason, group)
                found = self.picks.get(key, [])
                limit = found[-1].distance if len(found) == NUM_NEAR else np.inf
                places = np.flatnonzero(chosen & (distance <= limit))

                def pick_of(
                    entry: int, places: Integers = places, distance: npt.NDArray[np.float64] = distance
                ) -> Pick:
                    place = int(places[entry])
                    block = place if shown is None else rows.wordiest(place, shown)
                    assert looked.values is not None
                    return rows.pick(int(of[place]), block, float(distance[place]), float(looked.values[place]))

                entries = nearest(distance[places], of[places], rows.rank, limit)
                self.add_picks(key, draw(entries, pick_of, NUM_NEAR))


@dataclass(frozen=True, slots=True)
class _Before:
    """What came to a pass: `keep` (bool[d]) without what could not be measured, `alive` (bool[b]); and the pass."""

    keep: Truths
    alive: Truths
    after: After


def _histogram(rule: Rule, looked: Looked) -> Histogram:
    if looked.labels is not None:
        words: dict[str, list[int]] = {}
        for side, which in enumerate((looked.judged & ~looked.fails, looked.judged & looked.fails)):
            for label, number in Counter(looked.labels.filter(pa.array(which)).to_pylist()).items():
                if label is not None:
                    words.setdefault(label, [0, 0])[side] = number
        return Histogram(words=words, unknown=int((looked.judged & ~looked.is_known).sum()))
    assert looked.values is not None
    known = looked.judged & looked.is_known
    places, fails = axis_of(rule).bins(looked.values[known]), looked.fails[known]
    bins: dict[int, list[int]] = {}
    if len(places):
        first = int(places.min())
        sides = np.bincount((places - first) * 2 + fails).tolist()  # kept and dropped of each bin by turns
        sides += [0] * (len(sides) % 2)
        bins = {
            first + place: [kept, dropped]
            for place, (kept, dropped) in enumerate(zip(sides[::2], sides[1::2], strict=True))
            if kept or dropped
        }
    return Histogram(bins=bins, unknown=int((looked.judged & ~looked.is_known).sum()))


def _draw_taken(rows: Rows, documents: Truths, blocks: Truths) -> list[Pick]:
    """Draw from what a reason took: a document is shown by its wordiest block that went, blocks by each first one."""
    hit = np.flatnonzero(blocks)
    with_blocks, places = np.unique(rows.of[hit], return_index=True)
    first = dict(zip(with_blocks.tolist(), hit[places].tolist(), strict=True))
    chosen = np.union1d(np.flatnonzero(documents), with_blocks)
    entries = chosen[np.argsort(rows.rank[chosen])].tolist()

    def pick_of(document: int) -> Pick:
        block = rows.wordiest(document, blocks) if documents[document] else first[document]
        return rows.pick(document, block, 0.0, None)

    return draw(entries, pick_of, NUM_TAKEN)


def _amounts(rows: Rows, documents: Truths, blocks: Truths) -> Integers:
    texts = blocks & ~rows.is_image
    amounts = [documents.sum(), texts.sum(), rows.words[texts].sum(), (blocks & rows.is_image).sum()]
    return np.array(amounts, np.int64)


def _digests(signals: pa.Table, num_blocks: int) -> tuple[npt.NDArray[np.uint64], Truths]:
    """Return the digests of blocks, of their text or image URL, and which blocks have one."""
    values, known = np.zeros(num_blocks, np.uint64), np.zeros(num_blocks, np.bool_)
    for name in DIGESTS:
        if name in signals.column_names:
            column = signals.column(name).combine_chunks().flatten()
            is_valid = column.is_valid().to_numpy(zero_copy_only=False)
            values[is_valid] = column.drop_null().to_numpy()
            known |= is_valid
    return values, known


def _add(mine: dict[Any, list[int]], theirs: Mapping[Any, Sequence[int]]) -> None:
    for key, (kept, dropped) in theirs.items():
        before = mine.setdefault(key, [0, 0])
        before[0] += kept
        before[1] += dropped

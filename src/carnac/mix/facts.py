"""What a plan comes to: how full its rows are, which share each source has, how often it came and when it ran out.

Flow in: the tables of a plan, one after another. Flow out: counts for the ledger of its part, and facts made of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from carnac.mix.pack import may_need_patterns
from carnac.mix.patterns import MAX_WORK, best_patterns
from carnac.mix.plan import PlannedRows, codes_of
from carnac.mix.settings import MixSettings, SourceSettings

SUMS = ("tokens", "text_tokens", "labels", "images")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """What a plan holds of a source.

    weight            its share of the text tokens as asked for; None where no weights were given
    text_share        its share of the text tokens
    position_share    its share of the positions that are not padding, image tokens included
    epochs            passes over its pieces
    ran_out_at        the step with its last piece, where it gave all its epochs: then the others share its place
    """

    name: str
    weight: float | None
    pieces: int
    tokens: int
    text_tokens: int
    images: int
    text_share: float
    position_share: float
    epochs: float
    ran_out_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """Figures of the batches of a plan.

    fill         share of positions that are not padding
    fill_bound   what no placing of whole pieces exceeds (`mix.patterns`)
    label_share  share of positions that carry loss
    """

    steps: int
    rows: int
    pieces: int
    tokens: int
    text_tokens: int
    label_tokens: int
    images: int
    fill: float
    fill_bound: float
    label_share: float
    sources: tuple[SourceFacts, ...]

    @property
    def rows_text(self) -> str:
        """What the rows hold, in words."""
        return (
            f"{self.rows:,} rows of {self.pieces / max(1, self.rows):.1f} pieces, fill {self.fill:.3f} (whole pieces "
            f"allow {self.fill_bound:.3f} at most), {self.label_share:.1%} of the positions carry loss, "
            f"{self.images:,} images"
        )

    def lines(self) -> list[str]:
        """Return what a run prints of its plan."""
        return [f"plan: {self.steps:,} steps, {self.rows_text}", *map(_line, self.sources)]


def _line(source: SourceFacts) -> str:
    wanted = "" if source.weight is None else f" (wanted {source.weight:.2%})"
    end = ""
    if source.ran_out_at is not None:
        end = f"; it runs out at step {source.ran_out_at:,}, from then on the others share its place"
    return (
        f"  {source.name}: {source.text_share:.2%} of the text tokens{wanted}, {source.position_share:.2%} of the "
        f"positions, {source.pieces:,} pieces, {source.epochs:.2f} epochs{end}"
    )


class PlanCount:
    """Counts a plan table by table, from row `first_row` on: what comes before are an earlier stage's batches."""

    def __init__(
        self, pieces: pa.Table, sources: Sequence[SourceSettings], mix: MixSettings, first_row: int = 0
    ) -> None:
        self._sources, self._mix, self._first_row = sources, mix, first_row
        self._source, _ = codes_of(pieces["source"])
        self._sizes = {name: pieces[name].to_numpy() for name in SUMS if name != "tokens"}
        self._sizes["tokens"] = pieces["stop"].to_numpy() - pieces["start"].to_numpy()
        self._epoch = np.bincount(self._source, minlength=len(sources))
        self._row = 0
        self._placed = np.zeros(len(sources), dtype=np.int64)
        self._counts: Counter[str] = Counter()
        self._histograms = {
            "tokens": np.zeros(mix.row_tokens + 1, dtype=np.int64),
            "images": np.zeros(mix.row_images + 1, dtype=np.int64),
        }

    def add(self, planned: PlannedRows) -> None:
        """Count the next rows."""
        lengths = planned.table["pieces"].combine_chunks().value_lengths().to_numpy()
        rows = np.repeat(np.arange(len(lengths)), lengths) + self._row
        sources = self._source[planned.pieces]
        for number, source in enumerate(self._sources):
            here = np.flatnonzero(sources == number)
            end = (source.max_epochs or 0) * self._epoch[number] - self._placed[number]
            if 0 < end <= len(here):
                self._counts[f"last_row.{source.name}"] = int(rows[here[end - 1]])
            self._placed[number] += len(here)
            ours = planned.pieces[here[rows[here] >= self._first_row]]
            self._counts[f"pieces.{source.name}"] += len(ours)
            for kind in SUMS:
                self._counts[f"{kind}.{source.name}"] += int(self._sizes[kind][ours].sum(dtype=np.int64))
        ours = planned.pieces[rows >= self._first_row]
        for kind, before in self._histograms.items():
            self._histograms[kind] = before + np.bincount(self._sizes[kind][ours], minlength=len(before))
        self._row += len(lengths)

    def counts(self) -> dict[str, int]:
        """Return all counts, of which `facts_of` makes facts."""
        rows = max(0, self._row - self._first_row)
        counts = {"rows": rows, "fewest_rows": self._fewest_rows(rows)}
        names = [source.name for source in self._sources]
        for kind in ("pieces", *SUMS):
            counts[kind] = sum(self._counts[f"{kind}.{name}"] for name in names)
        counts["fill_per_mille"] = round(1000 * counts["tokens"] / max(1, rows * self._mix.row_tokens))
        epochs = {f"epoch.{name}": int(number) for name, number in zip(names, self._epoch, strict=True)}
        return {**counts, **epochs, **self._counts}

    def _fewest_rows(self, rows: int) -> int:
        """Return a number of rows below which no placing of these pieces gets."""
        tokens, images = self._histograms["tokens"], self._histograms["images"]
        budget, number = self._mix.row_tokens, int(tokens.sum())
        if not number:
            return 0
        total = int(tokens @ np.arange(len(tokens)))
        fewest = max(-(-total // budget), -(-int(images @ np.arange(len(images))) // max(1, self._mix.row_images)))
        if may_need_patterns(tokens, fewest, rows, budget):
            sizes = np.flatnonzero(tokens)
            bound = best_patterns(sizes, tokens[sizes], budget, MAX_WORK // 4).bound * number
            fewest = max(fewest, math.ceil(bound - 1e-6))
        return fewest


def facts_of(
    counts: Mapping[str, int], sources: Sequence[SourceSettings], mix: MixSettings, first_row: int = 0
) -> PlanFacts:
    """Return the facts of a plan with these `PlanCount.counts`."""
    rows = counts["rows"]
    positions = max(1, rows * mix.row_tokens)
    total = sum(source.weight or 0.0 for source in sources)
    found = []
    for source in sources:
        name = source.name
        tokens, text = counts.get(f"tokens.{name}", 0), counts.get(f"text_tokens.{name}", 0)
        last = counts.get(f"last_row.{name}")
        found.append(
            SourceFacts(
                name=name,
                weight=None if source.weight is None else source.weight / total,
                pieces=counts.get(f"pieces.{name}", 0),
                tokens=tokens,
                text_tokens=text,
                images=counts.get(f"images.{name}", 0),
                text_share=text / max(1, counts["text_tokens"]),
                position_share=tokens / max(1, counts["tokens"]),
                epochs=counts.get(f"pieces.{name}", 0) / max(1, counts[f"epoch.{name}"]),
                ran_out_at=None if last is None else mix.step_of(max(0, last - first_row)),
            )
        )
    return PlanFacts(
        steps=mix.step_of(rows),
        rows=rows,
        pieces=counts["pieces"],
        tokens=counts["tokens"],
        text_tokens=counts["text_tokens"],
        label_tokens=counts["labels"],
        images=counts["images"],
        fill=counts["tokens"] / positions,
        fill_bound=counts["tokens"] / max(1, counts["fewest_rows"] * mix.row_tokens),
        label_share=counts["labels"] / positions,
        sources=tuple(found),
    )

"""Plans of a million pieces: how long they take, how full their rows are beside what whole pieces allow, which shares.

Prints three tables. Lengths are those of web documents (log-normal, mean 121, between 24 and 512), of image-text pairs
and of conversations; every piece of the last two has one image.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.core.seeds import generator
from carnac.mix.facts import PlanCount, PlanFacts, facts_of
from carnac.mix.plan import PIECES, plan_rows
from carnac.mix.settings import MixSettings, SourceSettings

Integers = npt.NDArray[np.int64]

ROWS = ((256, 8), (512, 8), (1024, 16), (2048, 32), (4096, 64), (16_384, 256))
IMAGE_TOKENS = 16


def lengths(kind: str, number: int) -> tuple[Integers, Integers]:
    """Return tokens and images of each piece."""
    random = generator(0, "bench planning", kind)
    one = np.ones(number, dtype=np.int64)
    if kind == "web documents":
        tokens = np.clip(random.lognormal(np.log(121) - 0.32, 0.8, number), 24, 512).astype(np.int64)
        return tokens, np.minimum(random.poisson(1.0, number).clip(0, 4), tokens // (IMAGE_TOKENS + 4)).astype(np.int64)
    if kind == "pairs, 64-token images":
        return 64 + random.integers(8, 60, number), one
    if kind == "pairs, 169-token images":
        return 169 + random.integers(8, 60, number), one
    if kind == "pairs, log-normal captions":
        return 36 + np.clip(random.lognormal(2.7, 0.6, number), 4, 100).astype(np.int64), one
    if kind == "short conversations":
        return 16 + random.integers(60, 110, number), one
    assert kind == "conversations", kind
    return np.clip(random.normal(250, 40, number), 64, 500).astype(np.int64), one


def pieces_of(name: str, kind: str, number: int) -> pa.Table:
    """Return pieces as a source's shards give them, 64 to a row group."""
    tokens, images = lengths(kind, number)
    text = (tokens - IMAGE_TOKENS * images).astype(np.int32)
    rows = np.arange(number)
    zeros = np.zeros(number, dtype=np.int64)
    columns = {
        "source": pa.array([name]).take(pa.array(zeros)),
        "shard": pa.array([f"{name}/{part:05d}" for part in range(number // 10_000 + 1)]).take(
            pa.array(rows // 10_000)
        ),
        "row": rows % 10_000,
        "start": zeros,
        "stop": tokens,
        "images": images.astype(np.int32),
        "labels": text - 1,
        "text_tokens": text,
        "group": (rows % 10_000 // 64).astype(np.int32),
    }
    return pa.table(columns, schema=PIECES)


def plan(pieces: pa.Table, sources: list[SourceSettings], mix: MixSettings, num_rows: int) -> PlanFacts:
    """Plan, and return what the plan comes to."""
    counted = PlanCount(pieces, sources, mix)
    for rows in plan_rows(pieces, sources, mix, num_rows):
        counted.add(rows)
    return facts_of(counted.counts(), sources, mix)


def source(name: str, weight: float | None = None, max_epochs: int | None = None) -> SourceSettings:
    """Return a source of the mixture."""
    return SourceSettings(name=name, shards=Path(name), weight=weight, max_epochs=max_epochs)


def time_planning(number: int) -> None:
    """Print how long an epoch of `number` pieces takes to plan."""
    print(f"\n| {number:,} pieces | rows | CPU seconds | fill |\n|---|---|---|---|")
    for kind in ("web documents", "pairs, 64-token images", "short conversations"):
        pieces = pieces_of("a", kind, number)
        mix = MixSettings(row_tokens=512, row_images=8, rows_per_batch=8)
        num_rows = int(0.99 * (pieces["stop"].to_numpy().sum() / 512))
        began = time.process_time()
        found = plan(pieces, [source("a")], mix, num_rows)
        print(f"| {kind} | {found.rows:,} | {time.process_time() - began:.1f} | {found.fill:.4f} |")


def compare_fill(number: int) -> None:
    """Print how full rows are, beside what whole pieces allow."""
    print("\n| lengths | row | pieces a row | fill | whole pieces allow | share of that |\n|---|---|---|---|---|---|")
    for kind in (
        "web documents",
        "pairs, 64-token images",
        "pairs, 169-token images",
        "pairs, log-normal captions",
        "short conversations",
        "conversations",
    ):
        pieces = pieces_of("a", kind, number)
        for row_tokens, row_images in ROWS:
            tokens, images = pieces["stop"].to_numpy(), pieces["images"].to_numpy()
            if tokens.max() > row_tokens:
                continue
            mix = MixSettings(row_tokens=row_tokens, row_images=row_images, rows_per_batch=1)
            least = max(tokens.sum() / row_tokens, images.sum() / row_images)
            found = plan(pieces, [source("a")], mix, int(least))
            bound = min(found.fill_bound, tokens.sum() / (least * row_tokens))
            print(
                f"| {kind} | {row_tokens:,}, {row_images} images | {found.pieces / found.rows:.1f} | {found.fill:.4f} "
                f"| {bound:.4f} | {found.fill / bound:.4f} |"
            )


def compare_shares() -> None:
    """Print the shares of text tokens over ten million of them, one source running out."""
    kinds = ("web documents", "pairs, 64-token images", "conversations", "short conversations")
    sizes = (100_000, 40_000, 5_000, 2_000)
    sources = [source("web", 60.0), source("pairs", 25.0), source("chat", 10.0), source("short", 5.0, max_epochs=2)]
    pieces = pa.concat_tables(
        [pieces_of(one.name, kind, size) for one, kind, size in zip(sources, kinds, sizes, strict=True)]
    )
    mix = MixSettings(row_tokens=512, row_images=8, rows_per_batch=8)
    for num_rows in (6_000, 28_000):
        print()
        print("\n".join(plan(pieces, sources, mix, num_rows).lines()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pieces", type=int, default=1_000_000)
    given = parser.parse_args()
    time_planning(given.pieces)
    compare_fill(max(1, given.pieces // 50))
    compare_shares()

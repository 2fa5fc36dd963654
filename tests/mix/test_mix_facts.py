from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from carnac.core.seeds import generator
from carnac.mix.facts import PlanCount, PlanFacts, facts_of
from carnac.mix.plan import PIECES, plan_rows
from carnac.mix.settings import MixSettings, SourceSettings

IMAGE_TOKENS = 16
ROW_GROUP = 64
MIX = MixSettings(row_tokens=512, row_images=8, rows_per_batch=8)


def source(name: str, weight: float | None = None, max_epochs: int | None = None) -> SourceSettings:
    return SourceSettings(name=name, shards=Path("shards"), weight=weight, max_epochs=max_epochs)


def log_normal_pieces(name: str, number: int, images_each: float = 1.0, mean: int = 121) -> pa.Table:
    """The lengths of the facts: log-normal, clipped to [24, 512]."""
    random = generator(0, "test facts", name)
    tokens = np.clip(random.lognormal(np.log(mean) - 0.32, 0.8, number), 24, 512).astype(np.int64)
    images = np.minimum(random.poisson(images_each, number).clip(0, 4), tokens // (IMAGE_TOKENS + 4)).astype(np.int32)
    text = (tokens - IMAGE_TOKENS * images).astype(np.int32)
    rows = np.arange(number)
    columns = {
        "source": pa.array([name]).take(pa.array(np.zeros(number, dtype=np.int64))),
        "shard": pa.array([f"{name}/a"]).take(pa.array(np.zeros(number, dtype=np.int64))),
        "row": rows,
        "start": np.zeros(number, dtype=np.int64),
        "stop": tokens,
        "images": images,
        "labels": text - 1,
        "text_tokens": text,
        "group": (rows // ROW_GROUP).astype(np.int32),
    }
    return pa.table(columns, schema=PIECES)


def facts(
    pieces: pa.Table, sources: list[SourceSettings], num_rows: int, mix: MixSettings = MIX, first_row: int = 0
) -> PlanFacts:
    counted = PlanCount(pieces, sources, mix, first_row)
    for rows in plan_rows(pieces, sources, mix, num_rows):
        counted.add(rows)
    return facts_of(counted.counts(), sources, mix, first_row)


def test_shares_of_text_tokens_are_within_one_per_cent_over_ten_million() -> None:
    web, pairs, chat = (
        log_normal_pieces("web", 60_000),
        log_normal_pieces("pairs", 20_000, images_each=3.0, mean=80),
        log_normal_pieces("chat", 3_000, images_each=0.3),
    )
    sources = [source("web", 7.0), source("pairs", 2.0), source("chat", 1.0)]
    found = facts(pa.concat_tables([web, pairs, chat]), sources, 25_000)
    assert found.text_tokens > 10_000_000
    for one, wanted in zip(found.sources, (0.7, 0.2, 0.1), strict=True):
        assert one.weight == pytest.approx(wanted)
        assert one.text_share == pytest.approx(wanted, rel=0.01)
    assert found.sources[1].position_share > 0.25  # images are positions, and no text
    assert sum(one.position_share for one in found.sources) == pytest.approx(1.0)
    assert found.sources[2].epochs > 3
    assert found.fill > 0.99


def test_without_weights_a_source_counts_as_much_as_it_holds() -> None:
    pieces = pa.concat_tables([log_normal_pieces("web", 6000), log_normal_pieces("chat", 2000)])
    found = facts(pieces, [source("web"), source("chat")], 4000)
    web, chat = found.sources
    assert web.epochs == pytest.approx(chat.epochs, rel=0.01)
    assert web.weight is None
    assert "wanted" not in "".join(found.lines())


def test_the_step_at_which_a_source_runs_out_is_told() -> None:
    pieces = pa.concat_tables([log_normal_pieces("web", 20_000), log_normal_pieces("chat", 500)])
    mix = MIX.model_copy(update={"pieces_per_block": 1000})
    sources = [source("web", 0.5), source("chat", 0.5, max_epochs=3)]
    found = facts(pieces, sources, 2400, mix)
    chat = found.sources[1]
    assert chat.epochs == 3.0
    assert chat.pieces == 1500
    assert chat.ran_out_at is not None
    placed = [
        any(piece["source"] == "chat" for row in rows.table["pieces"].to_pylist() for piece in row)
        for rows in plan_rows(pieces, sources, mix, 2400)
    ]
    assert not placed[-1]
    ends = np.cumsum([rows.table.num_rows for rows in plan_rows(pieces, sources, mix, 2400)])
    last = max(number for number, has in enumerate(placed) if has)
    assert (ends[last - 1] if last else 0) <= chat.ran_out_at * 8 + 7 < ends[last] + 8
    assert f"it runs out at step {chat.ran_out_at}, from then on the others share its place" in found.lines()[2]
    assert found.sources[0].ran_out_at is None


def test_facts_are_those_of_the_stages_own_rows() -> None:
    pieces = log_normal_pieces("web", 3000)
    whole, first, second = (
        facts(pieces, [source("web")], 400),
        facts(pieces, [source("web")], 240),
        facts(pieces, [source("web")], 400, first_row=240),
    )
    assert (second.rows, second.steps) == (160, 20)
    for name in ("pieces", "tokens", "text_tokens", "label_tokens", "images"):
        assert getattr(first, name) + getattr(second, name) == getattr(whole, name)


def test_lines_say_fill_beside_what_whole_pieces_allow() -> None:
    found = facts(log_normal_pieces("web", 3000), [source("web", 2.0)], 400)
    first, second = found.lines()
    assert first.startswith("plan: 50 steps, 400 rows of ")
    assert f"fill {found.fill:.3f} (whole pieces allow {found.fill_bound:.3f} at most)" in first
    assert second.startswith("  web: 100.00% of the text tokens (wanted 100.00%), 100.00% of the positions, ")
    assert found.fill <= found.fill_bound <= 1.0


@pytest.mark.parametrize(("row_tokens", "row_images"), [(4096, 64), (16_384, 400)])
def test_rows_of_many_pieces_are_full(row_tokens: int, row_images: int) -> None:
    """Rows of 34 and of 135 pieces: of 4,096 pieces to a block, the last are only 30 rows."""
    mix = MixSettings(row_tokens=row_tokens, row_images=row_images, rows_per_batch=1)
    found = facts(log_normal_pieces("web", 40_000), [source("web")], 4_000_000 // row_tokens, mix)
    assert found.fill >= 0.985


def test_a_million_pieces_are_planned_in_seconds() -> None:
    """5 s when written; the time is of the process, and allows for a slower machine."""
    pieces = log_normal_pieces("web", 250_000)
    began = time.process_time()
    found = facts(pieces, [source("web")], 57_000)
    assert 4 * (time.process_time() - began) < 20
    assert found.pieces > 245_000
    assert found.fill > 0.995

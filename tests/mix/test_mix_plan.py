from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mix_samples import MIX, PICTURES, pieces_of_shards, png, real_tokenizer, row_of, write_real_shards

from carnac.core.batch import Piece
from carnac.core.errors import InputError, RecordError
from carnac.mix.plan import PIECES, PLAN, describe_plan, make_plan, pieces_of_rows, pieces_of_sample
from carnac.mix.settings import MixSettings
from carnac.sequence.layout import Sample, lay_out, sample_from_row
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import LoadedTokenizer

Shards = dict[str, Path]

PLACE = {"source": "skimage", "shard": "00000-a", "row": 0}


@pytest.fixture(scope="module", name="tokenizer")
def fixture_tokenizer() -> LoadedTokenizer:
    return real_tokenizer()


@pytest.fixture(scope="module", name="pictures")
def fixture_pictures() -> PictureSettings:
    return PICTURES


@pytest.fixture(scope="module", name="mix")
def fixture_mix() -> MixSettings:
    return MIX


@pytest.fixture(scope="module", name="shards")
def fixture_shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    return write_real_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module", name="pieces")
def fixture_pieces(shards: Shards) -> pa.Table:
    return pieces_of_shards(shards)


@pytest.fixture(scope="module", name="plan")
def fixture_plan(pieces: pa.Table) -> pa.Table:
    return make_plan(pieces, MIX, 200)


def table_of(tokens: list[int], images: list[int] | None = None) -> pa.Table:
    images = images or [0] * len(tokens)
    rows: list[dict[str, Any]] = [
        {"source": "s", "shard": "a", "row": row, "start": 0, "stop": stop, "images": count, "labels": stop - 1}
        for row, (stop, count) in enumerate(zip(tokens, images, strict=True))
    ]
    return pa.Table.from_pylist(rows, PIECES)


def test_pieces_of_real_pages_cover_every_position(
    shards: Shards, tokenizer: LoadedTokenizer, pictures: PictureSettings, mix: MixSettings, pieces: pa.Table
) -> None:
    assert pieces.schema == PIECES
    covered: Counter[tuple[str, int]] = Counter()
    for piece in pieces.to_pylist():
        covered[piece["shard"], piece["row"]] += piece["stop"] - piece["start"]
    for name, path in shards.items():
        for number, row in enumerate(pq.read_table(path).to_pylist()):
            if (name, number) != ("00000-a", 1):
                layout = lay_out(sample_from_row(row), tokenizer, pictures)
                assert 0 <= len(layout.ids) - covered[name, number] <= 80, "only windows of images alone are left out"


def test_a_sample_that_is_none_is_lost_alone(
    shards: Shards, tokenizer: LoadedTokenizer, pictures: PictureSettings, mix: MixSettings
) -> None:
    rows = pq.read_table(shards["00000-a"]).to_pylist()
    with pytest.raises(RecordError) as caught:
        pieces_of_sample(rows[1], PLACE, tokenizer, pictures, mix)
    assert caught.value.reason == "bad_block"
    assert all(pieces_of_sample(row, PLACE, tokenizer, pictures, mix).rows for row in (rows[0], *rows[2:]))


def test_windows_of_images_alone_are_counted_and_left_out(
    tokenizer: LoadedTokenizer, pictures: PictureSettings, mix: MixSettings
) -> None:
    album = Sample(texts=(None,) * 9 + ("end",), images=(*[png((1, 2, 3))] * 9, None))
    found = pieces_of_sample(row_of(album), PLACE, tokenizer, pictures, mix)
    assert found.without_labels == 2
    assert [(piece["start"], piece["images"], piece["row"]) for piece in found.rows] == [(129, 1, 0)]


def test_images_that_cannot_fit_stop_the_plan(
    tokenizer: LoadedTokenizer, pictures: PictureSettings, mix: MixSettings
) -> None:
    row = row_of(Sample(texts=(None, "a"), images=(png((1, 2, 3)), None)))
    with pytest.raises(InputError, match="an image fills 16 tokens but a row only holds 15"):
        pieces_of_sample(row, PLACE, tokenizer, pictures, mix.model_copy(update={"row_tokens": 15}))


def test_each_epoch_holds_every_piece_once(pieces: pa.Table, mix: MixSettings) -> None:
    plan = make_plan(pieces, mix, 400)
    rows, epochs = pieces_of_rows(plan, 0, plan.num_rows), plan["epoch"].to_pylist()
    every = {Piece(**{k: v for k, v in piece.items() if k != "labels"}) for piece in pieces.to_pylist()}
    assert epochs == sorted(epochs)
    for epoch in range(max(epochs)):
        placed = [piece for number, row in zip(epochs, rows, strict=True) if number == epoch for piece in row]
        assert len(placed) == len(every)
        assert set(placed) == every


def test_a_plan_has_the_rows_asked_for_within_budget_and_adds_up(pieces: pa.Table, mix: MixSettings) -> None:
    labels = {(piece["shard"], piece["row"], piece["start"]): piece["labels"] for piece in pieces.to_pylist()}
    plan = make_plan(pieces, mix, 150)
    assert plan.schema == PLAN
    assert plan.num_rows == 600
    for row in plan.to_pylist():
        row_pieces = [Piece(**piece) for piece in row["pieces"]]
        assert row["tokens"] == sum(piece.tokens for piece in row_pieces) <= mix.row_tokens
        assert row["images"] == sum(piece.images for piece in row_pieces) <= mix.row_images
        assert row["labels"] == sum(labels[piece.shard, piece.row, piece.start] for piece in row_pieces)


def test_a_plan_is_a_pure_function_and_longer_plans_begin_with_shorter(pieces: pa.Table, mix: MixSettings) -> None:
    assert make_plan(pieces, mix, 300).equals(make_plan(pieces, mix, 300))
    assert make_plan(pieces, mix, 300).slice(0, 40 * 4).equals(make_plan(pieces, mix, 40))
    assert not make_plan(pieces, mix.model_copy(update={"seed": 4}), 40).equals(make_plan(pieces, mix, 40))


def test_a_plan_does_not_depend_on_how_the_pieces_are_chunked(pieces: pa.Table, mix: MixSettings) -> None:
    rejoined = pa.concat_tables([pieces.slice(0, 7), pieces.slice(7)])
    assert make_plan(rejoined, mix, 40).equals(make_plan(pieces.combine_chunks(), mix, 40))


def test_order_is_random_although_the_largest_are_placed_first() -> None:
    random = np.random.default_rng(0)
    pieces = table_of(random.integers(8, 129, 4000).tolist())
    settings = MixSettings(row_tokens=128, row_images=1, rows_per_batch=1, pieces_per_block=1000)
    plan = make_plan(pieces, settings, 2000)
    first = [row[0].tokens for row in pieces_of_rows(plan, 0, 500)]
    assert abs(float(np.corrcoef(np.arange(500), first)[0, 1])) < 0.15
    epochs = [[row[0].row for row in pieces_of_rows(plan, 0, 2000)], plan["epoch"].to_pylist()]
    assert epochs[0][:50] != epochs[0][epochs[1].index(0) + 1 :][:50]


def test_blocks_are_packed_apart() -> None:
    settings = MixSettings(row_tokens=10, row_images=1, rows_per_batch=1, pieces_per_block=1)
    assert {len(row) for row in pieces_of_rows(make_plan(table_of([2] * 8), settings, 8), 0, 8)} == {1}
    together = settings.model_copy(update={"pieces_per_block": 100})
    assert {len(row) for row in pieces_of_rows(make_plan(table_of([2] * 10), together, 2), 0, 2)} == {5}


def test_a_plan_survives_parquet(plan: pa.Table, tmp_path: Path) -> None:
    pq.write_table(plan, tmp_path / "plan.parquet")
    assert pq.read_table(tmp_path / "plan.parquet").equals(plan)


def test_facts_of_a_plan() -> None:
    settings = MixSettings(row_tokens=10, row_images=2, rows_per_batch=2)
    facts = describe_plan(make_plan(table_of([10, 6, 4], [1, 1, 0]), settings, 2), settings)
    assert (facts.rows, facts.batches, facts.pieces, facts.tokens, facts.images) == (4, 2, 6, 40, 4)
    assert (facts.label_tokens, facts.fill, facts.label_share, facts.epochs_begun) == (34, 1.0, 0.85, 2)


def test_real_pages_fill_their_rows(plan: pa.Table, mix: MixSettings) -> None:
    facts = describe_plan(plan, mix)
    assert facts.batches == 200
    assert facts.fill > 0.97
    assert 0.6 < facts.label_share < facts.fill


def test_an_empty_plan_is_a_plan(pieces: pa.Table, mix: MixSettings) -> None:
    plan = make_plan(pieces, mix, 0)
    assert (plan.num_rows, plan.schema) == (0, PLAN)
    assert describe_plan(plan, mix).fill == 0.0


def test_without_pieces_there_is_no_plan(mix: MixSettings) -> None:
    with pytest.raises(InputError, match="no pieces to plan with"):
        make_plan(PIECES.empty_table(), mix, 1)


def test_pieces_of_other_settings_are_refused(mix: MixSettings) -> None:
    with pytest.raises(InputError, match="cut with other settings"):
        make_plan(table_of([mix.row_tokens + 1]), mix, 1)
    with pytest.raises(InputError, match="cut with other settings"):
        make_plan(table_of([9], [mix.row_images + 1]), mix, 1)

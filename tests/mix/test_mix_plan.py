from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mix_samples import MIX, PICTURES, SOURCE, pieces_of_shards, png, real_tokenizer, row_of, write_real_shards

from carnac.core.batch import Piece
from carnac.core.errors import InputError, RecordError
from carnac.mix.plan import PIECES, PLAN, make_plan, pieces_of_rows, pieces_of_sample
from carnac.mix.settings import MixSettings, SourceSettings
from carnac.sequence.layout import Sample, lay_out, sample_from_row
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import LoadedTokenizer

Shards = dict[str, Path]

PLACE = {"source": "skimage", "shard": "00000-a", "row": 0, "group": 0}
ONE = [SourceSettings(name="s", shards=Path("shards"))]


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
    return make_plan(pieces, [SOURCE], MIX, 800)


def table_of(tokens: list[int], images: list[int] | None = None) -> pa.Table:
    images = images or [0] * len(tokens)
    rows: list[dict[str, Any]] = [
        {
            "source": "s",
            "shard": "a",
            "row": row,
            "start": 0,
            "stop": stop,
            "images": count,
            "labels": stop - 1,
            "text_tokens": stop,
            "group": row // 16,
        }
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
    plan = make_plan(pieces, [SOURCE], mix.model_copy(update={"pieces_per_block": 200}), 3600)
    placed = [piece for row in pieces_of_rows(plan, 0, plan.num_rows) for piece in row]
    fields = Piece.__slots__
    every = {Piece(**{name: piece[name] for name in fields}) for piece in pieces.to_pylist()}
    # What one row holds waits from block to block, so an epoch ends up to that many pieces late.
    late = max(len(row) for row in pieces_of_rows(plan, 0, plan.num_rows))
    epochs = plan["epoch"].to_pylist()
    assert epochs == sorted(epochs)
    assert epochs[-1] >= 2
    first = [piece for row in pieces_of_rows(plan, 0, epochs.index(1)) for piece in row]
    assert len(set(first)) == len(first) >= len(every) - late
    counts = Counter(placed)
    assert set(counts) == every
    assert max(counts.values()) - min(counts.values()) <= 2


def test_a_plan_has_the_rows_asked_for_within_budget_and_adds_up(pieces: pa.Table, mix: MixSettings) -> None:
    sizes = {(piece["shard"], piece["row"], piece["start"]): piece for piece in pieces.to_pylist()}
    plan = make_plan(pieces, [SOURCE], mix, 601)
    assert plan.schema == PLAN
    assert plan.num_rows == 601
    for row in plan.to_pylist():
        row_pieces = [Piece(**piece) for piece in row["pieces"]]
        assert row["tokens"] == sum(piece.tokens for piece in row_pieces) <= mix.row_tokens
        assert row["images"] == sum(piece.images for piece in row_pieces) <= mix.row_images
        for name in ("labels", "text_tokens"):
            assert row[name] == sum(sizes[piece.shard, piece.row, piece.start][name] for piece in row_pieces)


def test_text_tokens_are_all_but_the_pictures(pieces: pa.Table, pictures: PictureSettings) -> None:
    for piece in pieces.to_pylist():
        assert piece["text_tokens"] == piece["stop"] - piece["start"] - pictures.square_tokens * piece["images"]
        assert piece["labels"] <= piece["text_tokens"]


def test_a_plan_is_a_pure_function_and_longer_plans_begin_with_shorter(pieces: pa.Table, mix: MixSettings) -> None:
    small = mix.model_copy(update={"pieces_per_block": 100})
    for settings in (mix, small):
        longest = make_plan(pieces, [SOURCE], settings, 2000)
        assert make_plan(pieces, [SOURCE], settings, 2000).equals(longest)
        for rows in (0, 1, 160, 999):
            assert longest.slice(0, rows).equals(make_plan(pieces, [SOURCE], settings, rows))
    other = mix.model_copy(update={"seed": 4})
    assert not make_plan(pieces, [SOURCE], other, 40).equals(make_plan(pieces, [SOURCE], mix, 40))


def test_a_plan_does_not_depend_on_how_the_pieces_are_chunked(pieces: pa.Table, mix: MixSettings) -> None:
    encoded = [pieces.slice(0, 7), pieces.slice(7)]
    for name in ("source", "shard"):
        encoded = [
            part.set_column(part.schema.get_field_index(name), name, part[name].dictionary_encode()) for part in encoded
        ]
    whole = make_plan(pieces.combine_chunks(), [SOURCE], mix, 160)
    assert make_plan(pa.concat_tables([pieces.slice(0, 7), pieces.slice(7)]), [SOURCE], mix, 160).equals(whole)
    assert make_plan(pa.concat_tables(encoded), [SOURCE], mix, 160).equals(whole)


def test_order_is_random_although_the_largest_are_placed_first() -> None:
    random = np.random.default_rng(0)
    pieces = table_of(random.integers(8, 129, 4000).tolist())
    settings = MixSettings(row_tokens=128, row_images=1, rows_per_batch=1, pieces_per_block=1000)
    plan = make_plan(pieces, ONE, settings, 2500)
    first = [row[0].tokens for row in pieces_of_rows(plan, 0, 500)]
    assert abs(float(np.corrcoef(np.arange(500), first)[0, 1])) < 0.15
    rows, epochs = [row[0].row for row in pieces_of_rows(plan, 0, 2500)], plan["epoch"].to_pylist()
    assert rows[:50] != rows[epochs.index(1) : epochs.index(1) + 50]


def test_a_block_is_packed_apart_but_for_what_does_not_fill_a_row() -> None:
    settings = MixSettings(row_tokens=10, row_images=1, rows_per_batch=1, pieces_per_block=16)
    plan = make_plan(table_of([2] * 64), ONE, settings, 12)
    rows = pieces_of_rows(plan, 0, 12)
    assert {len(row) for row in rows} == {5}
    groups = [{piece.row // 16 for piece in row} for row in rows]
    assert all(len(group) <= 2 for group in groups)
    assert sum(len(group) == 1 for group in groups) >= 8


def test_a_piece_that_is_all_there_is_fills_rows_by_itself() -> None:
    settings = MixSettings(row_tokens=10, row_images=1, rows_per_batch=1)
    assert {len(row) for row in pieces_of_rows(make_plan(table_of([3]), ONE, settings, 4), 0, 4)} == {3}


def test_the_last_rows_are_given_too_where_epochs_are_limited() -> None:
    settings = MixSettings(row_tokens=10, row_images=1, rows_per_batch=1, pieces_per_block=16)
    twice = [ONE[0].model_copy(update={"max_epochs": 2})]
    pieces = table_of([3] * 40)
    rows = pieces_of_rows(make_plan(pieces, twice, settings, 27), 0, 27)
    assert Counter(piece.row for row in rows for piece in row) == dict.fromkeys(range(40), 2)
    with pytest.raises(InputError, match=r"needs 28 rows, but its sources end after 27 \(max_epochs of s\)"):
        make_plan(pieces, twice, settings, 28)


def test_a_plan_survives_parquet(plan: pa.Table, tmp_path: Path) -> None:
    pq.write_table(plan, tmp_path / "plan.parquet")
    assert pq.read_table(tmp_path / "plan.parquet").equals(plan)


def test_without_pieces_there_is_no_plan(mix: MixSettings) -> None:
    with pytest.raises(InputError, match="no pieces to plan with"):
        make_plan(PIECES.empty_table(), ONE, mix, 1)
    with pytest.raises(InputError, match="no pieces to plan with in other:"):
        make_plan(table_of([3]), [*ONE, SourceSettings(name="other", shards=Path("o"))], mix, 1)


def test_pieces_of_other_settings_are_refused(mix: MixSettings) -> None:
    with pytest.raises(InputError, match="cut with other settings"):
        make_plan(table_of([mix.row_tokens + 1]), ONE, mix, 1)
    with pytest.raises(InputError, match="cut with other settings"):
        make_plan(table_of([9], [mix.row_images + 1]), ONE, mix, 1)

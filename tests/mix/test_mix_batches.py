from __future__ import annotations

import itertools
import pickle
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mix_samples import (
    MIX,
    PICTURES,
    SOURCE,
    image_segments,
    pieces_of_shards,
    real_samples,
    real_tokenizer,
    write_plan,
    write_real_shards,
    write_shard,
)

from carnac.core.batch import IGNORED, Batch
from carnac.core.errors import InputError
from carnac.mix.assemble import batch_of_samples
from carnac.mix.batches import BatchReader
from carnac.mix.plan import make_plan, pieces_of_rows
from carnac.mix.settings import MixSettings
from carnac.sequence.layout import Sample, lay_out
from carnac.sequence.pixels import grey_pixels, load_pixels
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import LoadedTokenizer, ready, train_tokenizer

Shards = dict[str, Path]


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


@pytest.fixture(scope="module", name="table")
def fixture_table(shards: Shards) -> pa.Table:
    return make_plan(pieces_of_shards(shards), [SOURCE], MIX, 800)


@pytest.fixture(scope="module", name="plan")
def fixture_plan(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plan(tmp_path_factory.mktemp("plan") / "rows.parquet", table)


@pytest.fixture
def reader(
    plan: Path, shards: Shards, tokenizer: LoadedTokenizer, pictures: PictureSettings, mix: MixSettings
) -> BatchReader:
    return BatchReader(plan, shards, tokenizer, pictures, mix)


def same(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Batch)]
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


def check(batch: Batch, tokenizer: LoadedTokenizer) -> None:
    """Hold a batch to what `core.batch.Batch` promises, position by position."""
    assert {a.dtype for a in (batch.input_ids, batch.labels, batch.positions, batch.segment)} == {np.dtype(np.int64)}
    assert batch.image_of_token.dtype == batch.image_slots.dtype == np.int64
    assert batch.pixels.dtype == np.float32
    assert len(batch.pixels) == len(batch.image_slots)
    slot_of = np.full(batch.input_ids.shape, -1)
    for number, (row, first, length) in enumerate(batch.image_slots.tolist()):
        assert (slot_of[row, first : first + length] == -1).all()
        slot_of[row, first : first + length] = number
        assert len(set(batch.segment[row, first : first + length].tolist())) == 1
    assert ((slot_of >= 0) == (batch.input_ids == tokenizer.image)).all()
    order = [tuple(slot) for slot in batch.image_slots[:, :2].tolist()]
    assert order == sorted(order)
    num_rows, width = batch.input_ids.shape
    for row, at in itertools.product(range(num_rows), range(width)):
        segment, label = batch.segment[row, at], batch.labels[row, at]
        begins = at == 0 or segment != batch.segment[row, at - 1]
        ends = at == width - 1 or segment != batch.segment[row, at + 1]
        assert batch.positions[row, at] == (0 if begins else batch.positions[row, at - 1] + 1)
        if segment == -1:
            assert (batch.input_ids[row, at], label, batch.image_of_token[row, at]) == (tokenizer.pad, IGNORED, -1)
            continue
        before = -1 if begins else batch.image_of_token[row, at - 1]
        assert batch.image_of_token[row, at] == max(before, slot_of[row, at])
        if ends or slot_of[row, at + 1] >= 0:
            assert label == IGNORED
        else:
            assert label in (batch.input_ids[row, at + 1], IGNORED)
    counts = np.bincount(batch.segment[batch.segment >= 0], minlength=len(batch.provenance))
    assert counts.tolist() == [piece.tokens for piece in batch.provenance]


def test_batches_keep_every_promise(reader: BatchReader, tokenizer: LoadedTokenizer) -> None:
    images = 0
    for n in range(0, 200, 12):
        batch = reader.batch(n)
        assert batch.input_ids.shape == (4, 256)
        check(batch, tokenizer)
        images += len(batch.pixels)
    assert images > 10


def test_pieces_hold_their_sample(
    reader: BatchReader, tokenizer: LoadedTokenizer, pictures: PictureSettings, table: pa.Table, mix: MixSettings
) -> None:
    for n in range(0, 200, 20):
        batch = reader.batch(n)
        for number, piece in enumerate(batch.provenance):
            sample = reader.sample(piece)
            layout = lay_out(sample, tokenizer, pictures)
            mine = batch.segment == number
            assert batch.input_ids[mine].tolist() == layout.ids[piece.start : piece.stop].tolist()
            if number not in batch.stand_ins:
                assert batch.labels[mine][:-1].tolist() == layout.labels[piece.start : piece.stop - 1].tolist()
            files = [image for image in sample.images if image]
            inside = [place for place, (start, _) in enumerate(layout.slots) if piece.start <= start < piece.stop]
            got = batch.pixels[image_segments(batch) == number]
            for place, pixels in zip(inside, got, strict=True):
                if number not in batch.stand_ins:
                    assert np.array_equal(pixels[None], load_pixels(files[place], pictures))
        labels = sum(table["labels"].to_pylist()[n * 4 : n * 4 + 4])
        assert batch.label_tokens == labels or batch.stand_ins


def test_a_batch_is_the_same_cold_and_warm_in_any_order(
    reader: BatchReader, plan: Path, shards: Shards, tokenizer: LoadedTokenizer, mix: MixSettings
) -> None:
    pictures = PictureSettings(size_px=32, patch_px=8)
    for n in (130, 3, 77, 3, 199):
        assert same(reader.batch(n), BatchReader(plan, shards, tokenizer, pictures, mix).batch(n))


def test_pieces_left_out_keep_their_place_and_lose_their_labels(reader: BatchReader) -> None:
    batch = reader.batch(5)
    left_out = batch.provenance[1]
    without = reader.batch(5, without=[left_out])
    mine = batch.segment == 1
    assert (batch.labels[mine] != IGNORED).any()
    assert (without.labels[mine] == IGNORED).all()
    assert same(replace(without, labels=batch.labels), batch)
    assert np.array_equal(without.labels[~mine], batch.labels[~mine])


def test_a_picture_that_does_not_decode_becomes_grey_and_its_piece_silent(
    shards: Shards, pictures: PictureSettings, tokenizer: LoadedTokenizer, tmp_path: Path
) -> None:
    table = make_plan(pieces_of_shards(shards), [SOURCE], MIX, 1200)  # more than an epoch
    plan = write_plan(tmp_path / "rows.parquet", table)
    rows = [{(piece.shard, piece.row) for piece in row} for row in pieces_of_rows(table, 0, table.num_rows)]
    n = next(number for number, row in enumerate(rows) if ("00000-a", 0) in row) // MIX.rows_per_batch
    batch = BatchReader(plan, shards, tokenizer, pictures, MIX).batch(n)
    check(batch, tokenizer)
    (number,) = batch.stand_ins
    assert (batch.provenance[number].shard, batch.provenance[number].row) == ("00000-a", 0)
    assert (batch.labels[batch.segment == number] == IGNORED).all()
    assert np.array_equal(batch.pixels[image_segments(batch) == number][0], grey_pixels(pictures))
    assert batch.label_tokens > 0


@pytest.mark.parametrize("n", [-1, 200])
def test_batches_outside_the_plan_are_an_error(reader: BatchReader, n: int) -> None:
    with pytest.raises(InputError, match=rf"no batch {n}: the plan holds batches 0 to 199\."):
        reader.batch(n)


def test_rows_without_images_have_empty_pixels(
    tokenizer: LoadedTokenizer, pictures: PictureSettings, tmp_path: Path
) -> None:
    batch = batch_of_samples([Sample(texts=("only text",), images=(None,))], tokenizer, pictures, 64)
    assert batch.pixels.shape == (0, 3, 32, 32)
    assert batch.image_slots.shape == (0, 3)
    check(batch, tokenizer)


def test_another_tokenizer_or_picture_size_is_noticed(
    plan: Path, shards: Shards, tokenizer: LoadedTokenizer, mix: MixSettings
) -> None:
    larger = BatchReader(plan, shards, tokenizer, PictureSettings(size_px=64, patch_px=8), mix)
    bytes_only = ready(train_tokenizer([], TokenizerSettings()))
    other = BatchReader(plan, shards, bytes_only, PictureSettings(size_px=32, patch_px=8), mix)
    for reader in (larger, other):
        with pytest.raises(InputError, match="plan again"):
            _ = [reader.batch(n) for n in range(reader.num_batches)]


def test_missing_and_damaged_shards_are_named(
    plan: Path,
    shards: Shards,
    tokenizer: LoadedTokenizer,
    pictures: PictureSettings,
    mix: MixSettings,
    tmp_path: Path,
) -> None:
    junk, table = tmp_path / "junk.parquet", tmp_path / "table.parquet"
    junk.write_bytes(b"PAR1 no")
    pq.write_table(pa.table({"a": [1]}), table)
    short = write_shard(tmp_path / "short.parquet", [Sample(texts=("a",), images=(None,))])
    empty = write_shard(tmp_path / "empty.parquet", [])
    wrong = {
        junk: "cannot be read",
        tmp_path / "no": "cannot be read",
        table: "lacks",
        short: "no row",
        empty: "no row",
    }
    for path, message in wrong.items():
        reader = BatchReader(plan, dict.fromkeys(shards, path), tokenizer, pictures, mix)
        with pytest.raises(InputError, match=message) as caught:
            reader.batch(0)
        assert str(path) in str(caught.value)
    with pytest.raises(InputError, match="which is not among the 0 given"):
        BatchReader(plan, {}, tokenizer, pictures, mix).batch(0)


def test_a_file_that_is_no_plan_is_refused(
    shards: Shards, tokenizer: LoadedTokenizer, pictures: PictureSettings, mix: MixSettings, tmp_path: Path
) -> None:
    other, junk = write_plan(tmp_path / "other.parquet", pa.table({"a": [1]})), tmp_path / "junk.parquet"
    junk.write_bytes(b"PAR1 no")
    for path, message in ((other, "not a plan"), (junk, "cannot be read"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(InputError, match=message) as caught:
            BatchReader(path, shards, tokenizer, pictures, mix).batch(0)
        assert str(path) in str(caught.value)


def test_a_plan_of_longer_rows_is_refused(
    plan: Path, shards: Shards, tokenizer: LoadedTokenizer, pictures: PictureSettings, mix: MixSettings
) -> None:
    with pytest.raises(InputError, match="row_tokens is 128"):
        BatchReader(plan, shards, tokenizer, pictures, mix.model_copy(update={"row_tokens": 128})).batch(0)


def test_batches_grow_as_the_ramp_says_and_a_later_stage_goes_on_where_one_ended(
    plan: Path, shards: Shards, tokenizer: LoadedTokenizer, pictures: PictureSettings, mix: MixSettings
) -> None:
    stretches = [{"steps": 3, "rows_per_batch": 1}, {"steps": 2, "rows_per_batch": 2}]
    ramp = MixSettings.model_validate({**mix.model_dump(), "ramp": stretches})
    reader = BatchReader(plan, shards, tokenizer, pictures, ramp)
    batches = [reader.batch(n) for n in range(7)]
    assert [len(batch.input_ids) for batch in batches] == [1, 1, 1, 2, 2, 4, 4]
    assert reader.num_batches == 5 + (800 - 7) // 4
    rows = np.concatenate([batch.input_ids for batch in batches])
    later = BatchReader(plan, shards, tokenizer, pictures, mix, first_row=7)
    assert np.array_equal(later.batch(0).input_ids, rows[7:11])
    assert later.num_batches == (800 - 7) // 4


def test_a_reader_is_sent_to_another_process_as_what_it_was_made_of(reader: BatchReader) -> None:
    reader.batch(3)
    sent = pickle.loads(pickle.dumps(reader))  # noqa: S301 -- made in this line
    assert same(sent.batch(3), reader.batch(3))


def test_row_groups_are_read_once_where_a_block_fits_in_memory(
    plan: Path, table: pa.Table, shards: Shards, tokenizer: LoadedTokenizer, pictures: PictureSettings
) -> None:
    for megabytes, is_once in ((1000, True), (1, False)):
        mix = MixSettings.model_validate({**MIX.model_dump(), "cache_mb": megabytes})
        reader = BatchReader(plan, shards, tokenizer, pictures, mix)
        for n in range(60):
            reader.batch(n)
        groups = sum(pq.ParquetFile(path).num_row_groups for path in shards.values())
        assert (reader._samples.groups_read <= groups) == is_once
        assert reader._samples._groups.num_bytes <= megabytes * 1_000_000 or len(reader._samples._groups._values) == 1


def test_a_far_batch_is_read_like_the_first(
    table: pa.Table, shards: Shards, tokenizer: LoadedTokenizer, pictures: PictureSettings, tmp_path: Path
) -> None:
    """One million batches: of the plan, the one row group that holds the batch is read."""
    many = pa.concat_tables([table] * 1250)  # 1,000,000 rows
    path = write_plan(tmp_path / "rows.parquet", many, row_group_size=4096)
    mix = MixSettings.model_validate({**MIX.model_dump(), "rows_per_batch": 1})
    seconds = {}
    for n in (0, 999_999):
        times = []
        for _ in range(3):
            began = time.process_time()
            reader = BatchReader(path, shards, tokenizer, pictures, mix)
            batch = reader.batch(n)
            times.append(time.process_time() - began)
        assert len(reader._open()._groups._values) == 1
        assert batch.provenance == tuple(pieces_of_rows(many, n, n + 1)[0])
        seconds[n] = min(times)
    assert seconds[999_999] < 3 * seconds[0] + 0.05


def test_documents_alone_fill_rows_of_their_own(tokenizer: LoadedTokenizer, pictures: PictureSettings) -> None:
    samples = [sample for sample in real_samples() if sum(image is not None for image in sample.images) > 2][:3]
    batch = batch_of_samples(samples, tokenizer, pictures, 200)
    check(batch, tokenizer)
    assert all(len(set(row[row >= 0].tolist())) == 1 for row in batch.segment)
    assert batch.input_ids.shape[1] <= 200
    for number, sample in enumerate(samples):
        layout = lay_out(sample, tokenizer, pictures)
        mine = [place for place, piece in enumerate(batch.provenance) if piece.row == number]
        ids = np.concatenate([batch.input_ids[batch.segment == place] for place in mine])
        assert ids.tolist() == layout.ids.tolist()
        assert {batch.provenance[place].shard for place in mine} == {sample.id}
        assert np.isin(image_segments(batch), mine).sum() == len(layout.slots)
    short = batch_of_samples([Sample(texts=("ab",), images=(None,))], tokenizer, pictures, 512)
    assert short.input_ids.shape[1] == len(tokenizer.encode("ab")) + 2
    assert batch_of_samples([], tokenizer, pictures, 512).input_ids.shape == (0, 0)

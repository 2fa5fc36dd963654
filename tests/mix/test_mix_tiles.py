"""Rows with pictures of many squares: tiles and the whole, with Idefics3's marks and without."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from mix_samples import SOURCE, image_segments, png, real_samples, row_of, write_plan, write_shard
from PIL import Image

from carnac.core.batch import IGNORED, Batch
from carnac.core.errors import InputError, RecordError
from carnac.mix.assemble import batch_of_samples
from carnac.mix.batches import BatchReader
from carnac.mix.plan import PIECES, make_plan, pieces_of_sample
from carnac.mix.settings import MixSettings
from carnac.sequence.layout import Sample, lay_out
from carnac.sequence.marks import mark_names
from carnac.sequence.pixels import grey_pixels, load_pixels, picture_size
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tiles import tiling
from carnac.sequence.tokenizer import LoadedTokenizer, ready, train_tokenizer

PLAIN = PictureSettings(size_px=16, patch_px=8, tokens=2, max_tiles=3)
MARKED = PLAIN.model_copy(update={"marks": "idefics3"})
MIX = MixSettings(row_tokens=256, row_images=24, rows_per_batch=4, seed=3)


@pytest.fixture(scope="module", name="samples")
def fixture_samples() -> list[Sample]:
    broken = Sample(texts=(None, "after a broken one"), images=(png((9, 9, 9), (50, 30))[:-30], None), id="broken")
    lost = Sample(texts=("before", None, "after"), images=(None, b"<html>", None), id="lost")
    with_images = [sample for sample in real_samples() if any(sample.images)]
    # Texts cut short, so that most windows hold pictures.
    short = [replace(sample, texts=tuple(text and text[:30] for text in sample.texts)) for sample in with_images[:30]]
    return [broken, lost, *short]


@pytest.fixture(scope="module", name="tokenizer")
def fixture_tokenizer(samples: list[Sample]) -> LoadedTokenizer:
    texts = (text for sample in samples for text in sample.texts if text)
    return ready(train_tokenizer(texts, TokenizerSettings(vocabulary_size=700), mark_names(MARKED)))


def reader_of(
    samples: list[Sample], tokenizer: LoadedTokenizer, pictures: PictureSettings, folder: Path
) -> BatchReader:
    rows: list[dict[str, Any]] = []
    for number, sample in enumerate(samples):
        place = {"source": "skimage", "shard": "a", "row": number, "group": 0}
        with contextlib.suppress(RecordError):
            rows += pieces_of_sample(row_of(sample), place, tokenizer, pictures, MIX).rows
    plan = make_plan(pa.Table.from_pylist(rows, PIECES), [SOURCE], MIX, 80 * 4)
    path = write_plan(folder / "plan.parquet", plan)
    return BatchReader(path, {"a": write_shard(folder / "a.parquet", samples)}, tokenizer, pictures, MIX)


def check(batch: Batch, tokenizer: LoadedTokenizer, pictures: PictureSettings, samples: list[Sample]) -> None:
    covered = np.zeros(batch.input_ids.shape, dtype=bool)
    for row, start, length in batch.image_slots.tolist():
        assert length == pictures.square_tokens
        assert not covered[row, start : start + length].any()
        covered[row, start : start + length] = True
    assert (covered == (batch.input_ids == tokenizer.image)).all()
    assert len(batch.pixels) == len(batch.image_slots)
    marks = [tokenizer.image, *tokenizer.marks.values()]
    assert not np.isin(batch.labels, marks).any()
    owners = image_segments(batch)
    for number, piece in enumerate(batch.provenance):
        layout = lay_out(samples[piece.row], tokenizer, pictures)
        mine = batch.segment == number
        assert batch.input_ids[mine].tolist() == layout.ids[piece.start : piece.stop].tolist()
        if number not in batch.stand_ins:
            assert batch.labels[mine][:-1].tolist() == layout.labels[piece.start : piece.stop - 1].tolist()
        files = [image for image in samples[piece.row].images if image is not None]
        inside = [place for place, (start, _) in enumerate(layout.slots) if piece.start <= start < piece.stop]
        assert all(sum(layout.slots[place]) <= piece.stop for place in inside)
        assert piece.images == (owners == number).sum() == sum(len(layout.tiles[place]) for place in inside)
        if number not in batch.stand_ins and inside:
            wanted = np.concatenate([load_pixels(files[place], pictures) for place in inside])
            assert np.array_equal(batch.pixels[owners == number], wanted)
    for row in range(len(batch.input_ids)):
        assert sum(slot[0] == row for slot in batch.image_slots.tolist()) <= MIX.row_images


@pytest.mark.parametrize("pictures", [PLAIN, MARKED], ids=["plain", "marked"])
def test_batches_of_tiled_pictures_keep_every_promise(
    pictures: PictureSettings, samples: list[Sample], tokenizer: LoadedTokenizer, tmp_path: Path
) -> None:
    reader = reader_of(samples, tokenizer, pictures, tmp_path)
    counts = []
    for n in range(0, 80, 4):
        batch = reader.batch(n)
        check(batch, tokenizer, pictures, samples)
        counts.append(len(batch.pixels))
    assert sum(counts) > 100


def test_a_broken_picture_is_grey_in_every_square_that_was_planned(tokenizer: LoadedTokenizer) -> None:
    broken = Sample(texts=(None, "after"), images=(png((9, 9, 9), (50, 30))[:-30], None))
    batch = batch_of_samples([broken], tokenizer, MARKED, 256)
    assert batch.stand_ins == (0,)
    assert len(batch.pixels) == 3 * 2 + 1 == tiling((50, 30), MARKED).squares
    assert all(np.array_equal(square, grey_pixels(MARKED)) for square in batch.pixels)
    assert (batch.labels == IGNORED).all()
    nothing = replace(broken, images=(b"<html>", None))
    assert len(batch_of_samples([nothing], tokenizer, MARKED, 256).pixels) == 1


def test_the_last_image_of_a_token_is_a_square(tokenizer: LoadedTokenizer) -> None:
    sample = Sample(texts=("a", None, "b"), images=(None, png((1, 2, 3), (50, 30)), None))
    batch = batch_of_samples([sample], tokenizer, MARKED, 256)
    starts = batch.image_slots[:, 1]
    for at in range(batch.input_ids.shape[1]):
        assert batch.image_of_token[0, at] == (starts <= at).sum() - 1


def test_a_picture_of_more_squares_than_a_row_holds_stops_the_plan(tokenizer: LoadedTokenizer) -> None:
    row = row_of(Sample(texts=(None, "a"), images=(png((1, 2, 3)), None)))
    place = {"source": "s", "shard": "a", "row": 0}
    with pytest.raises(InputError, match=r"shown as 7 squares .* a row only holds 6"):
        pieces_of_sample(row, place, tokenizer, PLAIN, MIX.model_copy(update={"row_images": 6}))


def test_other_tiles_than_planned_are_noticed(
    samples: list[Sample], tokenizer: LoadedTokenizer, tmp_path: Path
) -> None:
    reader = reader_of(samples, tokenizer, PLAIN, tmp_path)
    fewer = PLAIN.model_copy(update={"max_tiles": 2})
    other = BatchReader(reader._plan, {"a": tmp_path / "a.parquet"}, tokenizer, fewer, MIX)
    with pytest.raises(InputError, match="plan again"):
        _ = [other.batch(n) for n in range(other.num_batches)]


def test_a_picture_that_lies_about_its_way_up_fills_the_tiles_that_were_planned(tokenizer: LoadedTokenizer) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (60, 20)).save(buffer, "JPEG", exif=exif)
    assert picture_size(buffer.getvalue()) == (20, 60)
    batch = batch_of_samples([Sample(texts=(None, "x"), images=(buffer.getvalue(), None))], tokenizer, MARKED, 256)
    assert (batch.stand_ins, len(batch.pixels)) == ((), 4)

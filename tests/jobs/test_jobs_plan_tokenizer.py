"""Plans with the tokenizer of another model, and with marks around pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from jobs_model import PICTURES, WORDS, DoneHere, document, runner, write_shards
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from carnac.core.errors import InputError
from carnac.engine.manifest import read_manifest
from carnac.jobs.plan import Plan, PlanSettings, PlanSource, make_plan_folder
from carnac.mix.batches import BatchReader
from carnac.mix.settings import MixSettings, SourceSettings
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import load_tokenizer

TILES = PictureSettings(size_px=16, patch_px=8, tokens=1, max_tiles=2, marks="idefics3")
MIX = MixSettings(row_tokens=64, row_images=10, rows_per_batch=2)


def their_folder(folder: Path, *, lower: bool = False) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS.lower()], trainer)
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    return folder


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards", [document(number) for number in range(4)])


def plan(shards: Path, tokenizer: TokenizerSettings, pictures: PictureSettings = TILES) -> Plan:
    settings = PlanSettings(tokenizer=tokenizer, pictures=pictures, mix=MIX, steps=2)
    source = PlanSource(settings=SourceSettings(name="web", shards=shards), manifest=read_manifest(shards, "shards"))
    return make_plan_folder([source], shards.parent / "plan", settings, runner()[0])


def test_another_models_tokenizer_is_taken_over_with_what_it_lacks(shards: Path, tmp_path: Path) -> None:
    theirs = their_folder(tmp_path / "theirs")
    rows = Tokenizer.from_file(str(theirs / "tokenizer.json")).get_vocab_size()
    made = plan(shards, TokenizerSettings(folder=theirs))
    tokenizer = load_tokenizer(made.tokenizer_file)
    assert (tokenizer.begin, tokenizer.end) == (None, 0)
    # Padding, image, three marks and four tiles.
    assert tokenizer.added_ids == tuple(range(rows, rows + 9))
    batch = BatchReader(made.rows.path, made.shards, tokenizer, TILES, MIX).batch(0)
    assert len(batch.pixels) == len(batch.image_slots) > 1
    assert batch.input_ids.max() == max(tokenizer.marks.values())
    made.publish()
    counts = read_manifest(shards.parent / "plan" / "tokenizer").counts
    assert counts["tokens"] == tokenizer.vocabulary_size


def test_it_is_taken_over_once_and_again_when_its_file_changes(shards: Path, tmp_path: Path, done: DoneHere) -> None:
    theirs = their_folder(tmp_path / "theirs")
    before = plan(shards, TokenizerSettings(folder=theirs))
    done.units.clear()
    assert plan(shards, TokenizerSettings(folder=theirs)) == before
    assert done.units == []
    # The same vocabulary and merges, another normaliser: other ids for the same text.
    their_folder(theirs, lower=True)
    os.utime(theirs / "tokenizer.json", (0, 0))
    after = plan(shards, TokenizerSettings(folder=theirs))
    assert done.units == ["tokenizer/tokenizer", "pieces/web-00000-a"]  # pieces of equal lengths: the rows stay
    assert after.digest != before.digest


def test_a_moved_folder_is_the_same_tokenizer(shards: Path, tmp_path: Path, done: DoneHere) -> None:
    before = plan(shards, TokenizerSettings(folder=their_folder(tmp_path / "theirs")))
    moved = (tmp_path / "theirs").rename(tmp_path / "elsewhere")
    done.units.clear()
    assert plan(shards, TokenizerSettings(folder=moved)).digest == before.digest
    assert done.units == []


def test_marks_are_part_of_a_tokenizer_that_is_trained_here(shards: Path, done: DoneHere) -> None:
    words = TokenizerSettings(vocabulary_size=320)
    tokenizer = load_tokenizer(plan(shards, words).tokenizer_file)
    assert len(tokenizer.marks) == 3 + 4
    assert tokenizer.begin == 0
    done.units.clear()
    plan(shards, words, TILES.model_copy(update={"max_tiles": 3}))
    assert "tokenizer/tokenizer" in done.units
    done.units.clear()
    plan(shards, words, PICTURES)
    assert "tokenizer/tokenizer" in done.units
    done.units.clear()
    plan(shards, words, PICTURES.model_copy(update={"resample": "lanczos", "normalisation": "given"}))
    assert done.units == []  # how pictures are resized moves no token


def test_a_folder_without_a_tokenizer_stops_before_any_unit(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing/tokenizer\.json: missing\. Wanted a folder as transformers saves"):
        plan(shards, TokenizerSettings(folder=tmp_path / "nothing"))


def test_the_plans_file_is_read_by_transformers_once_our_part_is_taken_out(shards: Path, tmp_path: Path) -> None:
    made = plan(shards, TokenizerSettings(folder=their_folder(tmp_path / "theirs")))
    parts = json.loads(made.tokenizer_file.read_text())
    assert parts.pop("carnac")["added"][:2] == ["<|pad|>", "<image>"]
    assert Tokenizer.from_str(json.dumps(parts)).to_str() == load_tokenizer(made.tokenizer_file).tokenizer.to_str()
    table = pq.read_table(next(made.tokenizer_file.parent.glob("*.parquet")))
    assert table["id"].to_pylist()[:3] == [0, 1, 2]

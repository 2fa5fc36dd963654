"""What is done again when a setting changes, counted by the parts on disk and the units done."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from jobs_model import PICTURES, WORDS, DoneHere, document, picture, row, runner, write_shards

from carnac.engine.manifest import read_manifest
from carnac.engine.run import EarlyEnd
from carnac.jobs.plan import Plan, PlanSettings, make_plan_folder
from carnac.mix.settings import MixSettings
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import load_tokenizer

SETTINGS = PlanSettings(
    tokenizer=TokenizerSettings(vocabulary_size=320),
    pictures=PICTURES,
    mix=MixSettings(row_tokens=64, row_images=2, rows_per_batch=2),
    num_batches=3,
)


def changed(**fields: object) -> PlanSettings:
    values = {name: getattr(SETTINGS, name) for name in PlanSettings.__slots__}
    return PlanSettings(**{**values, **fields})


def mix(**fields: object) -> MixSettings:
    return MixSettings(**{**SETTINGS.mix.model_dump(), **fields})


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    broken = row("broken", [WORDS])
    broken["texts"] = [None]
    first = [document(0), row("images alone", [picture(9)] * 30), broken]
    return write_shards(tmp_path / "shards", first, [document(number) for number in range(1, 4)])


def plan(shards: Path, settings: PlanSettings) -> Plan:
    return make_plan_folder(read_manifest(shards, "shards"), shards.parent / "plan", settings, runner()[0])


def parts(shards: Path) -> dict[str, int]:
    folder = shards.parent / "plan"
    return {name: len(list((folder / name).glob("*.parquet"))) for name in ("tokenizer", "pieces", "rows")}


def test_a_plan_of_two_shards(shards: Path, done: DoneHere) -> None:
    made = plan(shards, SETTINGS)
    assert not list(shards.parent.joinpath("plan").rglob("manifest.json"))
    made.publish()
    assert done.units == ["tokenizer/tokenizer", "pieces/00000-a", "pieces/00001-a", "plan/rows"]
    assert parts(shards) == {"tokenizer": 1, "pieces": 2, "rows": 1}
    assert made.table().num_rows == 6
    assert load_tokenizer(made.tokenizer_file).encode(WORDS)
    vocabulary = pq.read_table(next((shards.parent / "plan" / "tokenizer").glob("*.parquet")))
    tokens = vocabulary.num_rows - vocabulary["id"].null_count
    assert tokens == load_tokenizer(made.tokenizer_file).vocabulary_size
    assert vocabulary["merge"].null_count == tokens
    counts = read_manifest(shards.parent / "plan" / "pieces").counts
    assert counts["lost.bad_block"] == 1
    # 30 pictures in windows of two: the last one holds the end token, which is a label; the others hold none.
    assert counts["without_labels"] == 14
    facts = read_manifest(shards.parent / "plan" / "rows").counts
    assert facts["tokens"] == sum(made.table()["tokens"].to_pylist())
    assert 0 < facts["fill_per_mille"] <= 1000


def test_done_is_done(shards: Path, done: DoneHere) -> None:
    first = plan(shards, SETTINGS)
    done.units.clear()
    again = plan(shards, SETTINGS)
    assert done.units == []
    assert again == first


@pytest.mark.parametrize(
    ("settings", "redone"),
    [
        (changed(mix=mix(rows_per_batch=4)), {"rows"}),
        (changed(mix=mix(seed=1)), {"rows"}),
        (changed(mix=mix(pieces_per_block=3)), {"rows"}),
        (changed(num_batches=4), {"rows"}),
        (changed(mix=mix(row_tokens=24)), {"pieces", "rows"}),
        (changed(mix=mix(row_images=3)), {"pieces", "rows"}),
        (changed(pictures=PictureSettings(size_px=48, patch_px=16)), {"pieces", "rows"}),
        (changed(tokenizer=TokenizerSettings(vocabulary_size=300)), {"tokenizer", "pieces", "rows"}),
        (changed(tokenizer=TokenizerSettings(vocabulary_size=320, min_frequency=5)), {"tokenizer", "pieces", "rows"}),
    ],
    ids=[
        "rows per batch",
        "seed",
        "block",
        "batches",
        "row tokens",
        "row images",
        "pictures",
        "vocabulary",
        "frequency",
    ],
)
def test_a_changed_setting_redoes_what_depends_on_it(
    shards: Path, done: DoneHere, settings: PlanSettings, redone: set[str]
) -> None:
    before = plan(shards, SETTINGS)
    once = parts(shards)
    assert plan(shards, settings).digest != before.digest
    # The old parts stay beside the new ones: twice as many where a stage was done again.
    assert parts(shards) == {name: number * (2 if name in redone else 1) for name, number in once.items()}
    done.units.clear()
    assert plan(shards, SETTINGS) == before
    assert done.units == []


def test_another_shard_redoes_the_tokenizer_and_all_that_follows(shards: Path, done: DoneHere) -> None:
    plan(shards, SETTINGS)
    done.units.clear()
    shutil.rmtree(shards)
    write_shards(shards, [row("new", ["zig zag " * 9])], [document(number) for number in range(1, 4)])
    plan(shards, SETTINGS)
    counted = Counter(name.partition("/")[0] for name in done.units)
    assert counted == {"tokenizer": 1, "pieces": 2, "plan": 1}


def test_another_tokenizer_is_another_plan_even_with_equal_rows(tmp_path: Path, done: DoneHere) -> None:
    """One merge makes the text two tokens shorter: only the last window changes, and the single row has another one."""
    shards = write_shards(tmp_path / "shards", [row("a", ["ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 zq zq"])])
    first, second = (
        plan(shards, changed(mix=mix(row_tokens=8, rows_per_batch=1), num_batches=1, tokenizer=tokenizer))
        for tokenizer in (TokenizerSettings(vocabulary_size=260), TokenizerSettings(vocabulary_size=261))
    )
    assert [load_tokenizer(made.tokenizer_file).vocabulary_size for made in (first, second)] == [260, 261]
    assert first.table().equals(second.table())
    assert first.digest != second.digest


def test_a_tokenizer_that_comes_out_equal_stops_the_cascade(shards: Path, done: DoneHere) -> None:
    """The pieces hang on what the tokenizer is, not on the setting that made it: these texts fill no larger one."""
    full = changed(tokenizer=TokenizerSettings(vocabulary_size=5000))
    plan(shards, full)
    done.units.clear()
    plan(shards, changed(tokenizer=TokenizerSettings(vocabulary_size=6000)))
    assert done.units == ["tokenizer/tokenizer"]


def test_a_dry_run_writes_nothing(shards: Path, done: DoneHere) -> None:
    dry, out = runner(dry_run=True)
    with pytest.raises(EarlyEnd):
        make_plan_folder(read_manifest(shards), shards.parent / "plan", SETTINGS, dry)
    assert "tokenizer: 1 units, 0 done, 1 to do" in out.getvalue()
    assert not (shards.parent / "plan").exists()
    assert done.units == []

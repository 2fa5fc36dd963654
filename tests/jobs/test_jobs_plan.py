"""What is done again when a setting changes, counted by the parts on disk and the units done."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs_model import PICTURES, WORDS, DoneHere, document, picture, row, runner, write_shards

from carnac.core.errors import InputError
from carnac.engine.manifest import read_manifest
from carnac.engine.run import EarlyEnd
from carnac.jobs.plan import Plan, PlanSettings, PlanSource, make_plan_folder
from carnac.mix.batches import BatchReader
from carnac.mix.rows import PlanRows
from carnac.mix.settings import MixSettings, SourceSettings, Windows
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import load_tokenizer

SETTINGS = PlanSettings(
    tokenizer=TokenizerSettings(vocabulary_size=320),
    pictures=PICTURES,
    mix=MixSettings(row_tokens=64, row_images=2, rows_per_batch=2),
    steps=3,
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
    return make_plan_folder([source(shards)], shards.parent / "plan", settings, runner()[0])


def source(
    shards: Path,
    name: str = "web",
    weight: float | None = None,
    *,
    max_epochs: int | None = None,
    windows: Windows = "all",
) -> PlanSource:
    settings = SourceSettings(name=name, shards=shards, weight=weight, max_epochs=max_epochs, windows=windows)
    return PlanSource(settings=settings, manifest=read_manifest(shards, "shards"))


def table(made: Plan) -> pa.Table:
    return pq.read_table(made.rows.path).replace_schema_metadata(None)


def parts(shards: Path) -> dict[str, int]:
    folder = shards.parent / "plan"
    return {name: len(list((folder / name).glob("*.parquet"))) for name in ("tokenizer", "pieces", "rows")}


def test_a_plan_of_two_shards(shards: Path, done: DoneHere) -> None:
    made = plan(shards, SETTINGS)
    assert not list(shards.parent.joinpath("plan").rglob("manifest.json"))
    made.publish()
    assert done.units == ["tokenizer/tokenizer", "pieces/web-00000-a", "pieces/web-00001-a", "plan/rows"]
    assert parts(shards) == {"tokenizer": 1, "pieces": 2, "rows": 1}
    assert table(made).num_rows == made.facts.rows == 6
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
    assert facts["tokens"] == sum(table(made)["tokens"].to_pylist())
    assert facts["fill_per_mille"] == round(1000 * made.facts.fill)
    assert made.lines()[1].startswith("  web: 100.00% of the text tokens, 100.00% of the positions, ")


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
        (changed(first_row=5), {"rows"}),
        (changed(mix=mix(seed=1)), {"rows"}),
        (changed(mix=mix(pieces_per_block=3)), {"rows"}),
        (changed(steps=4), {"rows"}),
        (changed(mix=mix(row_tokens=24)), {"pieces", "rows"}),
        (changed(mix=mix(row_images=3)), {"pieces", "rows"}),
        (changed(pictures=PictureSettings(size_px=48, patch_px=16)), {"pieces", "rows"}),
        (changed(tokenizer=TokenizerSettings(vocabulary_size=300)), {"tokenizer", "pieces", "rows"}),
        (changed(tokenizer=TokenizerSettings(vocabulary_size=320, min_frequency=5)), {"tokenizer", "pieces", "rows"}),
    ],
    ids=[
        "rows per batch",
        "first row",
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
        plan(shards, changed(mix=mix(row_tokens=8, rows_per_batch=1), steps=1, tokenizer=tokenizer))
        for tokenizer in (TokenizerSettings(vocabulary_size=260), TokenizerSettings(vocabulary_size=261))
    )
    assert [load_tokenizer(made.tokenizer_file).vocabulary_size for made in (first, second)] == [260, 261]
    assert table(first).equals(table(second))
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
        make_plan_folder([source(shards)], shards.parent / "plan", SETTINGS, dry)
    assert "tokenizer: 1 units, 0 done, 1 to do" in out.getvalue()
    assert not (shards.parent / "plan").exists()
    assert done.units == []


def test_settings_of_the_run_alone_plan_nothing_again(shards: Path, done: DoneHere) -> None:
    """Twice the rows in half the batches is the same plan; who reads it, and how, is no matter of rows."""
    before = plan(shards, changed(mix=mix(rows_per_batch=2), steps=4))
    done.units.clear()
    after = plan(shards, changed(mix=mix(rows_per_batch=4, workers=3, cache_mb=7, max_bad_samples=5), steps=2))
    assert done.units == []
    assert after.digest == before.digest
    assert (before.facts.steps, after.facts.steps) == (4, 2)


def two_sources(folder: Path) -> tuple[Path, Path]:
    web = write_shards(folder / "web", [document(number) for number in range(12)], [document(20)])
    talk = [row(f"t{number}", [WORDS[number:] * 2]) for number in range(6)]
    return web, write_shards(folder / "talk", talk)


def mixed(folder: Path, sources: Sequence[PlanSource], settings: PlanSettings = SETTINGS) -> Plan:
    return make_plan_folder(sources, folder / "plan", settings, runner()[0])


def test_sources_are_mixed_by_their_weights_and_share_one_tokenizer(tmp_path: Path, done: DoneHere) -> None:
    web, talk = two_sources(tmp_path)
    settings = changed(steps=200)
    sources = [source(web, "web pages", 0.75), source(talk, "talk", 0.25)]
    made = mixed(tmp_path, sources, settings)
    assert done.units == [
        "tokenizer/tokenizer",
        "pieces/web_pages-00000-a",
        "pieces/web_pages-00001-a",
        "pieces/talk-00000-a",
        "plan/rows",
    ]
    assert sorted(made.shards) == ["talk/00000-a", "web pages/00000-a", "web pages/00001-a"]
    first, second = made.facts.sources
    assert first.text_share == pytest.approx(0.75, rel=0.01)
    assert second.text_share == pytest.approx(0.25, rel=0.03)
    assert first.position_share > first.text_share
    reader = BatchReader(made.rows.path, made.shards, load_tokenizer(made.tokenizer_file), PICTURES, settings.mix)
    names = {piece.source for n in range(20) for piece in reader.batch(n).provenance}
    assert names == {"web pages", "talk"}
    first_row, second_row = PlanRows(made.rows.path).pieces(0, 2)
    assert reader.batch(0).provenance == (*first_row, *second_row)
    done.units.clear()
    other = mixed(tmp_path, [source(web, "web pages", 0.5), source(talk, "talk", 0.5)], settings)
    assert done.units == ["plan/rows"]
    assert other.digest != made.digest


def test_a_source_that_runs_out_is_named_with_its_step(tmp_path: Path, done: DoneHere) -> None:
    web, talk = two_sources(tmp_path)
    made = mixed(tmp_path, [source(web, "web", 0.5), source(talk, "talk", 0.5, max_epochs=1)], changed(steps=60))
    ended = made.facts.sources[1].ran_out_at
    assert ended is not None
    assert f"talk: {made.facts.sources[1].text_share:.2%} of the text tokens (wanted 50.00%)" in made.lines()[2]
    assert made.lines()[2].endswith(
        f"1.00 epochs; it runs out at step {ended}, from then on the others share its place"
    )
    done.units.clear()
    assert (
        mixed(tmp_path, [source(web, "web", 0.5), source(talk, "talk", 0.5, max_epochs=1)], changed(steps=60)) == made
    )
    assert done.units == []
    with pytest.raises(InputError, match=r"needs 120 rows, but its sources end after \d+ \(max_epochs of talk\)"):
        mixed(tmp_path, [source(talk, "talk", max_epochs=1)], changed(steps=60))


def test_windows_are_each_sources_own(tmp_path: Path, done: DoneHere) -> None:
    long = [row("long", [WORDS * 9, picture(1), WORDS * 9])]
    shards = write_shards(tmp_path / "shards", long)
    plain = mixed(tmp_path, [source(shards, "a")])
    done.units.clear()
    mixed(tmp_path, [source(shards, "a", windows="images")]).publish()
    assert done.units == ["pieces/a-00000-a", "plan/rows"]
    counts = read_manifest(tmp_path / "plan" / "pieces").counts
    assert counts["positions_left_out"] > 0.7 * plain.facts.tokens / max(1, plain.facts.sources[0].epochs)
    assert len(pq.read_table(read_manifest(tmp_path / "plan" / "pieces").parts[0].path)) == 1


def test_two_sources_of_the_same_shards_are_two_sources(tmp_path: Path, done: DoneHere) -> None:
    web, _ = two_sources(tmp_path)
    made = mixed(tmp_path, [source(web, "a/b", 0.5), source(web, "a_b", 0.5)], changed(steps=40))
    assert [one.name for one in made.facts.sources] == ["a/b", "a_b"]
    assert len(made.shards) == 4
    assert "pieces/a_b~2-00000-a" in done.units


def test_a_later_stage_takes_the_tokenizer_and_goes_on_where_the_earlier_ended(tmp_path: Path, done: DoneHere) -> None:
    web, _ = two_sources(tmp_path)
    first = mixed(tmp_path, [source(web)], changed(steps=20))
    done.units.clear()
    settings = changed(steps=10, first_row=40)
    second = make_plan_folder(
        [source(web)], tmp_path / "second", settings, runner()[0], tokenizer_file=first.tokenizer_file
    )
    assert "tokenizer/tokenizer" not in done.units
    assert not (tmp_path / "second" / "tokenizer").exists()
    assert table(second).slice(0, 40).equals(table(first))
    assert (second.facts.rows, second.facts.steps) == (20, 10)
    second.publish()
    assert sorted(file.parent.name for file in (tmp_path / "second").rglob("manifest.json")) == ["pieces", "rows"]
    with pytest.raises(InputError, match="cannot be read"):
        make_plan_folder([source(web)], tmp_path / "third", settings, runner()[0], tokenizer_file=tmp_path / "none")


def conversation(name: str, exchanges: int) -> dict[str, object]:
    blocks: list[str | bytes] = [picture(3)]
    for number in range(exchanges):
        blocks += [f"What is {number}?", f"It is {number}."]
    roles = ["user", *["user", "assistant"] * exchanges]
    return {**row(name, blocks), "roles": roles}


def test_a_conversation_longer_than_a_row_keeps_its_first_exchanges(tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "shards", [conversation("short", 1), conversation("long", 30)])
    made = mixed(tmp_path, [source(shards, "talk")])
    made.publish()
    pieces = pq.read_table(read_manifest(tmp_path / "plan" / "pieces").parts[0].path).to_pylist()
    assert [(piece["row"], piece["start"], piece["images"]) for piece in pieces] == [(0, 0, 1), (1, 0, 1)]
    assert pieces[0]["labels"] < pieces[1]["labels"] < pieces[1]["stop"] <= 64
    assert read_manifest(tmp_path / "plan" / "pieces").counts["exchanges_left_out"] > 20
    tokenizer = load_tokenizer(made.tokenizer_file)
    reader = BatchReader(made.rows.path, made.shards, tokenizer, PICTURES, SETTINGS.mix)
    batch = reader.batch(0)
    long = next(number for number, piece in enumerate(batch.provenance) if piece.row == 1)
    text = tokenizer.decode(batch.input_ids[batch.segment == long].tolist())
    assert text.count("What is") == text.count("It is") >= 2
    answers = tokenizer.decode([int(label) for label in batch.labels[batch.segment == long] if label >= 0])
    assert answers.count("It is") == text.count("It is")
    assert "What" not in answers


def test_conversations_whose_first_answers_fit_no_row_are_a_sentence(tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "shards", [conversation("long", 1)])
    settings = changed(mix=mix(row_tokens=8))
    with pytest.raises(InputError, match="no pieces to plan with: no sample holds a label that fits a row of 8 tokens"):
        make_plan_folder([source(shards, "talk")], tmp_path / "plan", settings, runner()[0])

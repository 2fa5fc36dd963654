"""Judging real pages again and again: what it opens, what is measured anew, and that nothing else changes a mask."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from story_runs import ROOT

from carnac.core.document import Kind
from carnac.core.places import Place
from carnac.core.schema import document_from_row
from carnac.curate.masks import Masks, Reasons
from carnac.curate.rules import judge_rules
from carnac.curate.settings import RulesPass
from carnac.curate.signals.frame import Frame
from carnac.curate.signals.measure import measure_document, measure_texts_again
from carnac.engine import aligned, tables
from carnac.engine.ledger import read_ledger
from carnac.engine.manifest import Manifest, PartEntry, collect_parts, find_done, read_manifest
from carnac.engine.part import Part
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.storage import list_files, make_folder
from carnac.engine.tables import read_table
from carnac.engine.unit import Stage, Unit
from carnac.jobs import curate_judge, curate_kept, curate_sources
from carnac.jobs.crawl import CrawlRecipe
from carnac.jobs.crawl import run as crawl
from carnac.jobs.curate_judge import judge
from carnac.jobs.curate_kept import MEASURED_AGAIN, remeasure
from carnac.jobs.curate_measure import measure_images, measure_texts
from carnac.jobs.curate_sources import Sources
from carnac.jobs.images import ImagesRecipe
from carnac.jobs.images import run as get_images
from carnac.jobs.images_found import read_found

PARAGRAPH: tuple[Kind, ...] = ("paragraph",)
ARCHIVES = tuple(str(ROOT / "recipes" / "tiny" / "data" / f"skimage-0000{number}.warc.gz") for number in range(2))


def rules(name: str, *given: dict[str, Any]) -> RulesPass:
    return RulesPass.model_validate({"name": name, "kind": "rules", "rules": given}, strict=False)


BLOCKS = rules(
    "blocks",
    {"on": "text", "signal": "num_words", "min": 4, "kinds": ["paragraph"]},
    {"on": "text", "signal": "special_character_ratio", "max": 0.3},
    {"on": "text", "signal": "punctuation_ratio", "min": 0.001, "when": {"signal": "num_words", "min": 12}},
    {"on": "image", "signal": "width", "min": 64},
)
DOCUMENTS = rules(
    "documents",
    {"on": "document", "signal": "num_words", "min": 50},
    {"on": "document", "signal": "num_images", "min": 1},
    {"on": "document", "signal": "word_repetition", "max": 0.2},
    {"on": "document", "signal": "duplicate_line_ratio", "max": 0.3},
    {"on": "document", "signal": "language", "one_of": ["en"]},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerHere(Runner):
    """Does units in this process, in any order: a process per unit of many small stages would take minutes."""

    done: list[str] = field(default_factory=list)
    shuffled: bool = False

    def do(self, stage: Stage, units: Sequence[Unit], folder: Place) -> tuple[PartEntry, ...]:
        make_folder(folder)
        found = find_done(folder, units, list_files(folder))
        missing = [unit for unit in units if found[unit.name] is None]
        if self.shuffled:
            random.Random(3).shuffle(missing)
        for unit in missing:
            assert stage.work is not None
            with Part(stage, unit, folder) as part:
                stage.work(unit, part)
            self.done.append(f"{stage.name} {unit.name}")
        return collect_parts(folder, units)


def here(*, shuffled: bool = False) -> RunnerHere:
    return RunnerHere(reporter=TerminalReporter(io.StringIO()), shuffled=shuffled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Real pages, crawled and measured."""

    folder: Path
    documents: Manifest
    sources: Sources


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("judging")
    crawl(CrawlRecipe(job="crawl", warcs=ARCHIVES, output=folder / "documents"), here())
    get_images(ImagesRecipe(job="images", documents=folder / "documents", output=folder / "images"), here())
    documents = read_manifest(folder / "documents", "documents")
    signals = measure_texts(here(), folder, documents, None)
    images = measure_images(here(), folder, documents, read_found(folder / "images"))
    sources = Sources(signals=signals, images=images, kept=None, last=None, hits=None)
    return Measured(folder=folder, documents=documents, sources=sources)


def judged(runner: Runner, sources: Sources, steps: Sequence[RulesPass], folder: Path) -> Manifest:
    """Judge by the last of `steps`."""
    return judge(runner, sources, steps[-1], Reasons.of(steps), folder / steps[-1].name)


def rows(manifest: Manifest) -> list[dict[str, Any]]:
    return [row for part in manifest.parts for row in read_table(part.path).to_pylist()]


def reasons_of(manifest: Manifest) -> list[tuple[str | None, ...]]:
    """Return by document the names of its reason and of its blocks' reasons, empty where kept."""
    found = []
    for part in manifest.parts:
        table = read_table(part.path)
        names = Reasons.from_table(table).names
        for whole, blocks in zip(table["reason"].to_pylist(), table["block_reason"].to_pylist(), strict=True):
            found.append(tuple(None if code is None else names[code] for code in (whole, *blocks)))
    return found


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every part that is opened, in this process."""
    paths: list[Path] = []
    plain = tables.open_part

    def tracing(part: Place) -> Any:
        paths.append(Path(str(part)))
        return plain(part)

    for module in (tables, curate_kept):
        monkeypatch.setattr(module, "open_part", tracing)
    return paths


def test_both_passes_keep_some_pages_and_drop_some(measured: Measured, tmp_path: Path) -> None:
    blocks = judged(here(), measured.sources, [BLOCKS], tmp_path)
    documents = judged(here(), replace(measured.sources, last=blocks), [BLOCKS, DOCUMENTS], tmp_path)
    kept = [row["keep"] for row in rows(documents)]
    assert len(kept) == measured.documents.rows
    assert 0 < sum(kept) < len(kept)
    assert {name for names in reasons_of(blocks) for name in names} == {None, *BLOCKS.reasons()} - {"signals_failed"}


def test_masks_are_those_of_the_rules_on_the_whole_part(measured: Measured, tmp_path: Path) -> None:
    blocks = judged(here(), measured.sources, [BLOCKS], tmp_path)
    documents = judged(here(), replace(measured.sources, last=blocks), [BLOCKS, DOCUMENTS], tmp_path)
    assert measured.sources.images is not None
    for entry in measured.sources.signals.parts:
        stored = read_table(entry.path), read_table(measured.sources.images.part(entry.unit).path)
        frame = Frame.of(*stored)
        failed = np.zeros(frame.num_documents, np.bool_)
        masks = Masks.keeping_all(stored[0].column("id"), frame.starts)
        for steps, manifest in (([BLOCKS], blocks), ([BLOCKS, DOCUMENTS], documents)):
            reasons = Reasons.of(steps)
            whole = judge_rules(frame.with_kept(masks.keep_block), masks, failed, steps[-1].rules, reasons)
            masks = whole.masks
            part = manifest.part(entry.unit)
            assert masks.to_table(reasons).equals(read_table(part.path))
            counts = read_ledger(part.path).counts
            for name, kills in whole.kills.items():
                assert (counts[f"own.{name}"], counts[f"marginal.{name}"]) == (kills.own, kills.marginal)


def test_neither_order_nor_batches_nor_workers_change_a_mask(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = judged(here(), measured.sources, [BLOCKS], tmp_path / "a")
    plain_documents = judged(here(), replace(measured.sources, last=plain), [BLOCKS, DOCUMENTS], tmp_path / "a")
    two = Runner(reporter=TerminalReporter(io.StringIO()), workers=2)
    by_two = judged(two, measured.sources, [BLOCKS], tmp_path / "b")
    by_two_documents = judged(two, replace(measured.sources, last=by_two), [BLOCKS, DOCUMENTS], tmp_path / "b")
    monkeypatch.setattr(curate_sources, "ROWS_JUDGED", 7)
    monkeypatch.setattr(curate_judge, "ROWS_BY_VALUES", 11)
    small = judged(here(shuffled=True), measured.sources, [BLOCKS], tmp_path / "c")
    small_documents = judged(
        here(shuffled=True), replace(measured.sources, last=small), [BLOCKS, DOCUMENTS], tmp_path / "c"
    )
    assert rows(plain) == rows(by_two) == rows(small)
    assert rows(plain_documents) == rows(by_two_documents) == rows(small_documents)
    assert [part.digest for part in plain.parts] == [part.digest for part in by_two.parts]


def test_judging_reads_no_document_and_no_image(measured: Measured, tmp_path: Path, opened: list[Path]) -> None:
    shutil.copytree(measured.folder, tmp_path / "copy")
    for name in ("documents", "images"):
        shutil.rmtree(tmp_path / "copy" / name)
    sources = replace(
        measured.sources,
        signals=read_manifest(tmp_path / "copy" / "signals", "signals"),
        images=read_manifest(tmp_path / "copy" / "image_signals", "image_signals"),
    )
    blocks = judged(here(), sources, [BLOCKS], tmp_path)
    judged(here(), replace(sources, last=blocks), [BLOCKS, DOCUMENTS], tmp_path)
    assert {path.parent.name for path in opened} == {"signals", "image_signals", "blocks", "values"}
    two = Runner(reporter=TerminalReporter(io.StringIO()), workers=2)
    assert judged(two, sources, [BLOCKS], tmp_path / "again").rows == measured.documents.rows


def test_judging_documents_by_other_thresholds_reads_no_signals(
    measured: Measured, tmp_path: Path, opened: list[Path]
) -> None:
    blocks = judged(here(), measured.sources, [BLOCKS], tmp_path)
    sources = replace(measured.sources, last=blocks)
    judged(here(), sources, [BLOCKS, DOCUMENTS], tmp_path)
    opened.clear()
    stricter = [
        rule.model_copy(update={"min": 200.0}) if rule.signal == "num_words" else rule for rule in DOCUMENTS.rules
    ]
    runner = here()
    masks = judged(runner, sources, [BLOCKS, DOCUMENTS.model_copy(update={"rules": tuple(stricter)})], tmp_path)
    assert {path.parent.name for path in opened} == {"blocks", "values"}
    assert {done.split()[0] for done in runner.done} == {"masks"}
    assert any("document.num_words < 200" in names for names in reasons_of(masks))


def test_what_is_judged_already_is_not_judged_again(measured: Measured, tmp_path: Path) -> None:
    blocks = judged(here(), measured.sources, [BLOCKS], tmp_path)
    sources = replace(measured.sources, last=blocks)
    judged(here(), sources, [BLOCKS, DOCUMENTS], tmp_path)
    runner = here()
    judged(runner, sources, [BLOCKS, DOCUMENTS], tmp_path)
    assert runner.done == []


def again(runner: Runner, measured: Measured, last: Manifest, folder: Path) -> Manifest:
    columns = ("character_repetition", "word_repetition", "duplicate_line_ratio")
    return remeasure(runner, folder / "kept_signals", measured.documents, measured.sources.signals, last, columns)


def test_what_does_not_add_up_is_measured_again_over_what_is_kept(measured: Measured, tmp_path: Path) -> None:
    last = judged(here(), measured.sources, [BLOCKS], tmp_path)
    kept = again(here(), measured, last, tmp_path)
    plain = {row["id"]: row for row in rows(measured.sources.signals)}
    num_again = 0
    for page, mask, values in zip(rows(measured.documents), rows(last), rows(kept), strict=True):
        assert page["id"] == mask["id"] == values["id"]
        document = document_from_row(page)
        texts = [text for text, is_kept in zip(document.texts, mask["keep_block"], strict=True) if is_kept and text]
        lost_text = texts != [text for text in document.texts if text]
        num_again += lost_text and mask["keep"]
        if mask["keep"] and lost_text:
            left = replace(
                document,
                texts=tuple(texts),
                images=(None,) * len(texts),
                kinds=PARAGRAPH * len(texts),
                image_nodes=(None,) * len(texts),
            )
            fresh = measure_document(left)
            assert values == {name: fresh[name] for name in values} | {"id": page["id"]}
        else:
            assert values == {name: plain[page["id"]][name] for name in values}
    assert num_again == sum(read_ledger(part.path).counts[MEASURED_AGAIN] for part in kept.parts) > 20
    changed = [row["word_repetition"] != plain[row["id"]]["word_repetition"] for row in rows(kept)]
    assert any(changed)


def test_the_next_pass_judges_what_was_measured_again(measured: Measured, tmp_path: Path) -> None:
    last = judged(here(), measured.sources, [BLOCKS], tmp_path)
    kept = again(here(), measured, last, tmp_path)
    lines = rules("lines", {"on": "document", "signal": "word_repetition", "max": 0.05})
    sources = replace(measured.sources, last=last, kept=kept)
    masks = judged(here(), sources, [BLOCKS, lines], tmp_path)
    name = "document.word_repetition > 0.05"
    for before, values, names in zip(rows(last), rows(kept), reasons_of(masks), strict=True):
        assert (names[0] == name) == (before["keep"] and values["word_repetition"] > 0.05)


def test_where_no_text_was_dropped_no_document_is_opened(
    measured: Measured, tmp_path: Path, opened: list[Path]
) -> None:
    pictures = rules("pictures", {"on": "image", "signal": "width", "min": 64})
    last = judged(here(), measured.sources, [pictures], tmp_path)
    opened.clear()
    kept = again(here(), measured, last, tmp_path)
    assert {path.parent.name for path in opened} == {"signals", "pictures"}
    assert all(read_ledger(part.path).counts[MEASURED_AGAIN] == 0 for part in kept.parts)


def test_only_row_groups_with_documents_that_lost_a_text_are_read(tmp_path: Path) -> None:
    stage = Stage(
        name="documents",
        version=1,
        schema=pa.schema([("id", pa.string()), ("texts", pa.list_(pa.string()))]),
        work=None,
        rows_per_group=10,
    )
    unit = stage.unit("a", None, settings={}, inputs=[])
    with Part(stage, unit, tmp_path) as part:
        for row in range(95):
            part.write({"id": str(row), "texts": [f"text {row}", None]})
    wanted = np.array([0, 9, 10, 41, 94])
    found = list(curate_kept._open(tmp_path / unit.file_name, wanted))
    assert found == [(row, str(row), [f"text {row}", None]) for row in wanted.tolist()]


def test_a_document_whose_measuring_is_lost_goes_with_a_reason(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = judged(here(), measured.sources, [BLOCKS], tmp_path)
    number = iter(range(10_000))

    def failing(texts: Sequence[str]) -> dict[str, float]:
        if next(number) == 3:
            raise ValueError("a text too strange")
        return measure_texts_again(texts)

    monkeypatch.setattr(curate_kept, "measure_texts_again", failing)
    kept = again(here(), measured, last, tmp_path)
    (lost,) = [row for row in rows(kept) if row["failed"] is not None]
    assert lost["word_repetition"] is None
    assert sum(read_ledger(part.path).counts.get("lost.raised", 0) for part in kept.parts) == 1
    lines = rules("lines", {"on": "document", "signal": "word_repetition", "max": 1})
    masks = judged(here(), replace(measured.sources, last=last, kept=kept), [BLOCKS, lines], tmp_path)
    whole = {row["id"]: names[0] for row, names in zip(rows(masks), reasons_of(masks), strict=True)}
    assert whole[lost["id"]] == "signals_failed"


def test_measuring_again_is_the_same_by_two_workers(measured: Measured, tmp_path: Path) -> None:
    last = judged(here(), measured.sources, [BLOCKS], tmp_path)
    two = Runner(reporter=TerminalReporter(io.StringIO()), workers=2)
    assert rows(again(two, measured, last, tmp_path / "a")) == rows(again(here(), measured, last, tmp_path / "b"))


def test_batches_of_aligned_tables_are_as_long_as_asked_for(measured: Measured) -> None:
    (first, *_) = measured.sources.signals.parts
    read = list(aligned.read_aligned_tables({"signals": (first.path, ["id"])}, 30))
    assert [start for start, _ in read] == list(range(0, first.rows, 30))

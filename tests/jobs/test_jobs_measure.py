"""Signals of real pages, measured by real workers."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs_crawls import CrawlHere

from carnac.core.document import Document
from carnac.core.errors import InputError, RecordError
from carnac.core.schema import document_from_row
from carnac.curate.signals.measure import SIGNALS, Measured, measure, signals_table
from carnac.curate.signals.settings import MeasureSettings
from carnac.curate.texts.lexicon import Lexicon
from carnac.engine.manifest import Manifest, read_manifest
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.tables import read_table
from carnac.jobs import curate_measure
from carnac.jobs.curate_measure import PRELOAD, measure_texts

DATA = Path(__file__).parents[2] / "recipes/tiny/data"
LIMIT = 25  # pages of each of the two archives


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    here = CrawlHere(output=tmp_path_factory.mktemp("measure") / "documents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("carnac.engine.run.run_units", here.run_units)
        here(warcs=[str(path) for path in sorted(DATA.glob("*.warc.gz"))], limit=LIMIT)
    return read_manifest(here.output)


def rows_of(documents: Manifest) -> list[Document]:
    return [document_from_row(row) for entry in documents.parts for row in read_table(entry.path).to_pylist()]


def measured(documents: Manifest, out: Path, *, workers: int = 2, **given: Any) -> Manifest:
    """Measure with real processes."""
    runner = Runner(reporter=TerminalReporter(io.StringIO()), workers=workers, preload=PRELOAD)
    return measure_texts(runner, out, documents, given.pop("limit", None), MeasureSettings(**given))


def table_of(signals: Manifest, documents: Manifest) -> pa.Table:
    return pa.concat_tables([read_table(signals.part(entry.unit).path) for entry in documents.parts])


def test_signals_are_those_of_the_documents_whatever_the_workers_and_the_order_of_units(
    documents: Manifest, tmp_path: Path
) -> None:
    assert len(documents.parts) > 1
    signals = measured(documents, tmp_path / "two", workers=2)
    turned = dataclasses.replace(documents, parts=tuple(reversed(documents.parts)))
    other = measured(turned, tmp_path / "one", workers=1)
    assert {each.unit: each.digest for each in other.parts} == {each.unit: each.digest for each in signals.parts}
    table = table_of(signals, documents)
    assert table.schema.equals(SIGNALS)
    # Floats are compared by their bytes: the same code measured them.
    assert table.equals(signals_table([measure(document, Lexicon()) for document in rows_of(documents)]))


def test_where_tables_are_cut_changes_no_row(
    documents: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = table_of(measured(documents, tmp_path / "whole"), documents)
    here = CrawlHere(output=tmp_path)
    monkeypatch.setattr("carnac.engine.run.run_units", here.run_units)
    monkeypatch.setattr(curate_measure, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(curate_measure, "BLOCKS_AT_ONCE", 50)
    cut = measured(documents, tmp_path / "cut")
    assert table_of(cut, documents).equals(whole)
    assert pq.ParquetFile(cut.parts[0].path).num_row_groups > 1


def test_rows_beyond_the_limit_and_lost_records_stay_as_nulls(
    documents: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = rows_of(documents)[1]

    def refuse_one(document: Document, lexicon: Lexicon) -> Measured:
        if document.id == lost.id:
            raise RecordError("too_odd", "a page that cannot be measured")
        return measure(document, lexicon)

    here = CrawlHere(output=tmp_path)
    monkeypatch.setattr("carnac.engine.run.run_units", here.run_units)
    monkeypatch.setattr(curate_measure, "measure", refuse_one)
    signals = measured(documents, tmp_path / "curated", limit=3)
    first = documents.parts[0]
    rows = read_table(signals.part(first.unit).path).to_pylist()
    assert len(rows) == first.rows > 3
    assert [row["failed"] for row in rows[:4]] == [None, "not_measured", None, "beyond_limit"]
    assert rows[1]["id"] == lost.id
    assert rows[1]["text_digest"] is None
    assert rows[1]["block_num_words"] == [None] * len(lost.kinds)
    assert signals.part(first.unit).counts["lost.too_odd"] == 1


def test_another_list_of_common_words_is_another_measure(documents: Manifest, tmp_path: Path) -> None:
    words = tmp_path / "common_words.txt"
    words.write_text("the\nand\n")
    without = measured(documents, tmp_path / "curated")
    with_two = measured(documents, tmp_path / "curated", common_words=words)
    words.write_text("the\nand\nof\n")
    with_three = measured(documents, tmp_path / "curated", common_words=words)
    assert len({each.parts[0].path for each in (without, with_two, with_three)}) == 3
    counts = [table_of(each, documents).column("block_num_common_words") for each in (without, with_two, with_three)]
    none, two, three = (sum(filter(None, column.combine_chunks().flatten().to_pylist())) for column in counts)
    assert 0 == none < two < three


def test_a_missing_file_is_told_before_any_work(documents: Manifest, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.txt: cannot be read"):
        measured(documents, tmp_path / "curated", common_words=tmp_path / "missing.txt")
    assert not (tmp_path / "curated").exists()

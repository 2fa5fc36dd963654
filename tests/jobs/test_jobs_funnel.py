"""The funnel of real pages: crawled, curated by the job, drawn by real workers."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from jobs_funnel import Curated, curate_sample

from carnac.core.errors import RunError
from carnac.engine.manifest import read_manifest
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.jobs.curate_funnel import FUNNEL, PassTables, draw_funnel


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Curated:
    return curate_sample(tmp_path_factory.mktemp("funnel"))


def test_what_went_in_is_what_was_taken_and_what_came_out(curated: Curated, tmp_path: Path) -> None:
    steps = curated.draw(tmp_path)["steps"]
    assert [step["name"] for step in steps] == ["(input)", "blocks", "pages", "repeats"]
    assert steps[0]["kept"]["documents"] == 50
    assert 0 < steps[-1]["kept"]["documents"] < 50
    for before, after in pairwise(steps):
        for name, number in before["kept"].items():
            assert number == after["kept"][name] + sum(taken["amount"][name] for taken in after["taken"])
    for step in steps[1:3]:
        own = {taken["reason"]: taken["own"] for taken in step["taken"]}
        for rule in step["rules"]:
            dropped = sum(number for _, _, number in rule["bins"])
            assert dropped == sum(own[reason] for reason in rule["reasons"])


def test_samples_show_what_lies_in_the_documents(curated: Curated, tmp_path: Path) -> None:
    steps = curated.draw(tmp_path)["steps"]
    texts = {
        row["id"]: [" ".join((text or url).split()) for text, url in zip(row["texts"], row["images"], strict=True)]
        for part in curated.documents.parts
        for row in pq.read_table(part.path).to_pylist()
    }
    samples = [sample for step in steps for taken in step["taken"] for sample in taken["samples"]]
    for step in steps:
        for bound in (bound for rule in step["rules"] for bound in rule["bounds"]):
            samples += [*bound["just_kept"], *bound["just_dropped"]]
    assert len(samples) > 20
    for sample in samples:
        assert any(text.startswith(sample["excerpt"]) for text in texts[sample["id"]]), sample


def test_the_order_of_units_and_the_number_of_workers_change_nothing(curated: Curated, tmp_path: Path) -> None:
    assert curated.draw(tmp_path / "a", workers=1) == curated.draw(tmp_path / "b", workers=2, order=(1, 0))


def test_a_second_drawing_does_nothing_and_a_lost_funnel_is_written_again(curated: Curated, tmp_path: Path) -> None:
    first = curated.draw(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert curated.draw(tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    (tmp_path / FUNNEL).write_text('{"steps"')
    assert curated.draw(tmp_path) == first


def test_no_document_is_opened_but_for_the_samples_that_are_left(curated: Curated, tmp_path: Path) -> None:
    hidden = {part.path: part.path.with_suffix(".hidden") for part in curated.documents.parts}
    manifest = (curated.folder / "documents" / "manifest.json").read_bytes()
    documents = curated.documents
    for path, away in hidden.items():
        Path(str(path)).rename(str(away))
    try:
        masks = [read_manifest(curated.folder / "curated" / "masks" / step.name) for step in curated.steps]
        passes = [
            PassTables(step=step, images=None, kept=None, masks=each)
            for step, each in zip(curated.steps, masks, strict=True)
        ]
        runner = Runner(reporter=TerminalReporter(io.StringIO()))
        with pytest.raises(RunError, match="funnel_excerpts"):
            draw_funnel(runner, passes, documents, read_manifest(curated.folder / "curated" / "signals"), tmp_path)
        assert read_manifest(tmp_path / "funnel", "funnel").rows > 10
    finally:
        for path, away in hidden.items():
            Path(str(away)).rename(str(path))
    assert (curated.folder / "documents" / "manifest.json").read_bytes() == manifest

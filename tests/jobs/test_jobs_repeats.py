"""The search for repeats as the job wires it: parts in, buckets on disk, parts out; nothing twice."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs_model import DoneHere, runner
from story_runs import RECIPES, all_rows, carnac, command, digests, kill_tree
from upath import UPath

from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.core.schema import DOCUMENTS, MASKS, REPEATS
from carnac.curate.settings import RepeatKind, RepeatsPass
from carnac.curate.verdicts import Reasons
from carnac.engine.aligned import read_aligned_tables
from carnac.engine.manifest import Manifest, PartEntry, collect_parts, find_done, manifest_of
from carnac.engine.part import Part
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.storage import list_files, make_folder
from carnac.engine.tables import read_table
from carnac.engine.unit import Stage, Unit
from carnac.jobs.curate import PassTask, judge_unit
from carnac.jobs.repeats import SearchLimits, found_between, found_in, search_repeats

# The columns that the search reads; a document is (URL, text, whether it is still kept), None where it has no digest.
SIGNALS = Stage(
    name="signals",
    version=1,
    schema=pa.schema([(name, pa.string()) for name in ("id", "url_digest", "text_digest")]),
    work=None,
    rows_per_group=4,
)
KEPT = Stage(
    name="masks", version=1, schema=pa.schema([("id", pa.string()), ("keep", pa.bool_())]), work=None, rows_per_group=3
)
Page = tuple[str | None, str | None, bool]
Crawl = dict[str, list[Page]]
Found = set[tuple[str, str, str, str, int, str]]
BY: tuple[RepeatKind, ...] = ("url", "text")
PAGES = st.tuples(st.sampled_from([None, *"1234"]), st.sampled_from([None, *"abcd"]), st.booleans())
CRAWLS = st.dictionaries(st.sampled_from(["a", "B", "a~2", "z-9", "10"]), st.lists(PAGES, max_size=8), max_size=4)
KINDS = st.permutations(BY).flatmap(lambda kinds: st.sampled_from([tuple(kinds), tuple(kinds[:1])]))


def scan(crawl: Crawl, by: Sequence[RepeatKind]) -> Found:
    """Find what the search must find, by a scan in the order of units and rows, kind after kind."""
    left = [
        (unit, row, page) for unit in sorted(crawl) for row, page in enumerate(crawl[unit]) if page[2]
    ]  # what still competes
    found: Found = set()
    for kind in by:
        roots: dict[str, str] = {}
        stays = []
        for unit, row, page in left:
            name, key = f"{unit}:{row}", page[0] if kind == "url" else page[1]
            if key is not None and roots.setdefault(key, name) != name:
                found.add((kind, key, name, unit, row, roots[key]))
            else:
                stays.append((unit, row, page))
        left = stays
    return found


class RunnerHere(Runner):
    """Does units in this process: a process per unit of a hundred small searches would take minutes."""

    def do(self, stage: Stage, units: Sequence[Unit], folder: Place) -> tuple[PartEntry, ...]:
        make_folder(folder)
        found = find_done(folder, units, list_files(folder))
        for unit in (unit for unit in units if found[unit.name] is None):
            assert stage.work is not None
            with Part(stage, unit, folder) as part:
                stage.work(unit, part)
        return collect_parts(folder, units)


HERE = RunnerHere(reporter=TerminalReporter(io.StringIO()))


def written(folder: Place, stage: Stage, rows: Mapping[str, Sequence[Mapping[str, object]]]) -> Manifest:
    folder = folder / stage.name
    make_folder(folder)
    units = [stage.unit(name, None, settings={}, inputs=[str(rows[name])]) for name in rows]
    for unit in units:
        with Part(stage, unit, folder) as part:
            for row in rows[unit.name]:
                part.write(dict(row))
    return manifest_of(stage, folder, collect_parts(folder, units), {}, {})


def inputs(folder: Place, crawl: Crawl) -> tuple[Manifest, Manifest]:
    signals, masks = {}, {}
    for unit, pages in crawl.items():
        names = [f"{unit}:{row}" for row in range(len(pages))]
        signals[unit] = [
            {"id": name, "url_digest": url, "text_digest": text}
            for name, (url, text, _) in zip(names, pages, strict=True)
        ]
        masks[unit] = [{"id": name, "keep": keep} for name, (_, _, keep) in zip(names, pages, strict=True)]
    return written(folder, SIGNALS, signals), written(folder, KEPT, masks)


def search(
    folder: Place, crawl: Crawl, rows_per_bucket: int = 1000, by: Sequence[RepeatKind] = BY, here: Runner = HERE
) -> Manifest:
    signals, masks = inputs(folder, crawl)
    step = RepeatsPass(name="repeats", kind="repeats", by=tuple(by))
    limits = SearchLimits(max_memory_mb=100, rows_per_bucket=rows_per_bucket)
    # Where all are kept, the search must be the same before the first pass.
    last = masks if any(not page[2] for pages in crawl.values() for page in pages) else None
    return search_repeats(here, step, signals, last, folder / "repeats", limits)


def rows_of_parts(manifest: Manifest) -> list[dict[str, object]]:
    return [row for entry in manifest.parts for row in read_table(entry.path).to_pylist()]


@settings(max_examples=30)
@given(crawl=CRAWLS, by=KINDS, rows_per_bucket=st.sampled_from([1, 2, 5, 1000]))
def test_whatever_the_buckets_the_same_rows_are_found_as_by_a_scan(
    crawl: Crawl, by: tuple[RepeatKind, ...], rows_per_bucket: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        manifest = search(Path(folder), crawl, rows_per_bucket, by)
        rows = rows_of_parts(manifest)
        assert {tuple(row.values()) for row in rows} == scan(crawl, by)
        assert len(rows) == len(scan(crawl, by))
        num_rows = sum(len(pages) for pages in crawl.values())
        assert manifest.settings["num_buckets"] * rows_per_bucket >= num_rows
        assert len(manifest.parts) == len(by) * manifest.settings["num_buckets"]
        # Done once is done: of what is left, nothing repeats.
        gone = {(row["unit"], row["row"]) for row in rows}
        left = {
            unit: [(url, text, keep and (unit, row) not in gone) for row, (url, text, keep) in enumerate(pages)]
            for unit, pages in crawl.items()
        }
        if sorted(by) == sorted(BY):
            assert rows_of_parts(search(Path(folder) / "again", left, rows_per_bucket, by)) == []


CRAWL: Crawl = {
    "a": [("1", "one", True), ("2", "two", False), ("3", "three", True)],
    "b": [("1", "uno", True), ("2", "two", True), ("4", "three", True)],
    "c": [("5", "two", True), (None, None, True), (None, None, True), ("2", "deux", True)],
}


def test_each_part_lists_its_rows_by_unit_and_row(tmp_path: Path) -> None:
    manifest = search(tmp_path, CRAWL, rows_per_bucket=3)
    assert manifest.stage == "repeats"
    assert [entry.unit for entry in manifest.parts] == [f"{kind}-{n:05d}" for kind in BY for n in range(4)]
    for entry in manifest.parts:
        table = read_table(entry.path)
        assert table.schema.equals(REPEATS)
        places = list(zip(table["unit"].to_pylist(), table["row"].to_pylist(), strict=True))
        assert places == sorted(places)
    assert {(row["unit"], row["row"]): (row["kind"], row["root"]) for row in rows_of_parts(manifest)} == {
        ("b", 0): ("url", "a:0"),
        ("c", 3): ("url", "b:1"),
        ("b", 2): ("text", "a:2"),
        ("c", 0): ("text", "b:1"),
    }


def test_in_a_store_the_same_is_found(tmp_path: Path) -> None:
    there = search(UPath("memory://test-jobs-repeats"), CRAWL, rows_per_bucket=3)
    here = search(tmp_path, CRAWL, rows_per_bucket=3)
    assert [(entry.unit, entry.digest) for entry in there.parts] == [(e.unit, e.digest) for e in here.parts]


def test_what_was_found_is_read_by_unit_and_in_slices(tmp_path: Path) -> None:
    parts = [entry.path for entry in search(tmp_path, CRAWL, rows_per_bucket=1).parts]
    found = found_in(parts, "c")
    assert (found["row"].to_pylist(), found["kind"].to_pylist()) == ([0, 3], ["text", "url"])
    assert found_between(found, 0, 3) == {0: "text"}
    assert found_between(found, 2, 2) == {1: "url"}
    assert found_between(found, 4, 9) == {}
    assert found_in(parts, "a").num_rows == 0
    assert found_in([], "a").schema.names == ["unit", "row", "kind"]


@pytest.mark.parametrize("num_rows", [1, 3, 7, 100])
def test_parts_are_read_side_by_side_whatever_their_row_groups(tmp_path: Path, num_rows: int) -> None:
    crawl: Crawl = {"a": [(str(n), None, n % 3 == 0) for n in range(20)]}
    signals, masks = inputs(tmp_path, crawl)
    parts: dict[str, tuple[Place, Sequence[str] | None]] = {
        "signals": (signals.parts[0].path, None),
        "masks": (masks.parts[0].path, ["keep"]),
    }
    at, pairs = 0, list[tuple[str, bool]]()
    for first, tables in read_aligned_tables(parts, num_rows):
        assert first == at
        assert tables["signals"].num_rows == tables["masks"].num_rows == min(num_rows, 20 - first)
        at += tables["signals"].num_rows
        pairs += zip(tables["signals"]["url_digest"].to_pylist(), tables["masks"]["keep"].to_pylist(), strict=True)
    assert pairs == [(str(n), n % 3 == 0) for n in range(20)]


@pytest.mark.parametrize("other", [[], [("1", "x", True)], [("1", "x", True)] * 9])
def test_parts_of_other_lengths_are_refused(tmp_path: Path, other: list[Page]) -> None:
    signals, _ = inputs(tmp_path / "one", {"a": [("1", "x", True)] * 8})
    _, masks = inputs(tmp_path / "other", {"a": other})
    parts: dict[str, tuple[Place, Sequence[str] | None]] = {
        "signals": (signals.parts[0].path, None),
        "masks": (masks.parts[0].path, None),
    }
    with pytest.raises(InputError, match="wanted equal numbers"):
        list(read_aligned_tables(parts, 4))


def test_only_what_depends_on_a_change_is_done_again(tmp_path: Path, done: DoneHere) -> None:
    here, _ = runner()

    def units_done(crawl: Crawl, **changes: int) -> list[str]:
        signals, masks = inputs(tmp_path, crawl)
        limits = dataclasses.replace(SearchLimits(max_memory_mb=100, rows_per_bucket=3), **changes)
        step = RepeatsPass(name="repeats", kind="repeats", by=BY)
        done.units.clear()
        search_repeats(here, step, signals, masks, tmp_path / "repeats", limits)
        return sorted(done.units)

    keys = [f"repeat_keys/{unit}" for unit in "abc"]
    buckets = {kind: [f"repeats/{kind}-{n:05d}" for n in range(4)] for kind in BY}
    assert units_done(CRAWL) == sorted([*keys, *keys, *buckets["url"], *buckets["text"]])
    assert units_done(CRAWL) == []
    assert units_done(CRAWL, max_memory_mb=200) == []
    assert units_done(CRAWL, rows_per_bucket=4) == []  # as many buckets
    lost = next((tmp_path / "repeats").glob("url-00002-*.parquet"))
    lost.unlink()
    assert units_done(CRAWL) == ["repeats/url-00002"]
    # One more text in part c: its URLs are keyed again and searched, and nothing is found that was not; so is its text.
    more: Crawl = {**CRAWL, "c": [*CRAWL["c"], ("6", "six", True)]}
    assert units_done(more) == sorted(["repeat_keys/c"] * 2 + buckets["url"] + buckets["text"])
    assert len(units_done(CRAWL, rows_per_bucket=1000)) == 2 * (3 + 1)


def test_masks_are_those_of_their_rows_wherever_a_part_is_cut(tmp_path: Path) -> None:
    # More than are judged at once, than a row group holds, and than are read at once; each third page repeats row 0.
    ids = [f"{row:05d}" for row in range(2345)]
    crawl: Crawl = {"a": [("same" if row % 3 == 0 else f"{row}", None, True) for row in range(len(ids))]}
    parts = tuple(entry.path for entry in search(tmp_path, crawl, rows_per_bucket=500, by=["url"]).parts)
    schema = pa.schema([DOCUMENTS.field(name) for name in ("id", "kinds")])
    failed = pa.schema([("id", pa.string()), ("failed", pa.string())])
    signals = written(
        tmp_path,
        Stage(name="measured", version=1, schema=failed, work=None),
        {"a": [{"id": name, "failed": "not_measured" if row == 1501 else None} for row, name in enumerate(ids)]},
    )
    documents = written(tmp_path, Stage(name="documents", version=1, schema=schema, work=None), {"a": [
        {"id": name, "kinds": ["paragraph"] * (row % 4)} for row, name in enumerate(ids)
    ]})  # fmt: skip
    step = RepeatsPass(name="repeats", kind="repeats", by=("url",))
    reasons = Reasons.of([step])
    task = PassTask(
        unit="a",
        documents=documents.parts[0].path,
        signals=signals.parts[0].path,
        last=None,
        repeats=parts,
        step=step,
        reasons=reasons,
    )
    stage = Stage(name="masks", version=1, schema=MASKS.with_metadata(reasons.to_metadata()), work=judge_unit)
    (entry,) = HERE.do(stage, [stage.unit("a", task, settings={}, inputs=[])], tmp_path / "judged")
    masks = read_table(entry.path)
    assert masks["id"].to_pylist() == ids
    assert masks["keep"].to_pylist() == [(row % 3 != 0 and row != 1501) or row == 0 for row in range(len(ids))]
    assert [len(keep) for keep in masks["keep_block"].to_pylist()] == [row % 4 for row in range(len(ids))]


REPEATS_RECIPE = """
job = "curate"
documents = "out/tiny/documents"
output = "curated"
max_memory_mb = 100

[[pass]]
name = "repeats"
kind = "repeats"
by = ["url", "text"]
"""


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crawl of the tiny recipe's archives, one of them twice: each of its pages repeats another."""
    folder = tmp_path_factory.mktemp("crawled")
    archives = sorted((RECIPES / "data").glob("*.warc.gz"))
    for archive in archives:
        shutil.copy(archive, folder)
    shutil.copy(archives[0], folder / "again.warc.gz")
    carnac(folder, "run", str(RECIPES / "01-crawl.toml"), "--set", "warcs=['*.warc.gz']")
    (folder / "repeats.toml").write_text(REPEATS_RECIPE)
    return folder


def test_small_buckets_mask_as_one_large_one_does_in_real_processes(crawled: Path) -> None:
    carnac(crawled, "run", "repeats.toml", "--set", "output='one'")
    carnac(crawled, "run", "repeats.toml", "--set", "output='many'", "--set", "rows_per_bucket=40", "--workers", "2")
    one, many = digests(crawled / "one"), digests(crawled / "many")
    assert len(many["repeats/repeats"]) > len(one["repeats/repeats"]) == 2
    assert many["masks/repeats"] == one["masks/repeats"]
    found = [json.dumps(row) for row in all_rows(crawled / "many/repeats/repeats")]
    assert sorted(found) == sorted(json.dumps(row) for row in all_rows(crawled / "one/repeats/repeats"))
    documents = all_rows(crawled / "out/tiny/documents")
    assert len(found) >= sum(document["warc_file"] == "again.warc.gz" for document in documents) > 20


def any_file(folder: Path, pattern: str) -> bool:
    return any(folder.glob(pattern))


def test_a_search_killed_midway_ends_as_one_that_was_not(crawled: Path) -> None:
    arguments = ("run", "repeats.toml", "--set", "rows_per_bucket=80", "--workers", "2", "--set")
    carnac(crawled, *arguments, "output='whole'")
    for number, wanted in enumerate(("keys/url/*.parquet", "text-*.parquet")):
        folder = crawled / f"killed-{number}" / "repeats" / "repeats"
        process = command(crawled, *arguments, f"output='killed-{number}'")
        assert kill_tree(process, partial(any_file, folder, wanted)), wanted
        carnac(crawled, *arguments, f"output='killed-{number}'")
        assert digests(folder.parents[1]) == digests(crawled / "whole")
        assert not list(folder.rglob("*.tmp"))

"""The search for repeats as the job wires it: parts in, buckets on disk, parts out; nothing twice."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs_model import DoneHere, runner
from jobs_repeats import (
    CRAWLS,
    Crawl,
    Page,
    Scan,
    found_in,
    masks_after,
    repeats_pass,
    rows_of_parts,
    search,
    sources,
    written,
)
from upath import UPath

from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.core.schema import REPEATS
from carnac.curate.repeats.settings import Keep, RepeatKind
from carnac.engine.aligned import read_aligned_tables
from carnac.engine.tables import read_table
from carnac.engine.unit import Stage
from carnac.jobs.repeats import SearchLimits, search_repeats
from carnac.jobs.repeats_sources import naming, read_hits

DOCUMENTS: tuple[RepeatKind, ...] = ("url", "text", "image_set")
BLOCKS: tuple[RepeatKind, ...] = ("paragraph", "image_url", "image_sha256", "image_in_document")
KEEPS: tuple[Keep, ...] = ("first", "latest", "longest")
KINDS = st.lists(st.sampled_from((*DOCUMENTS, *BLOCKS)), min_size=1, max_size=4, unique=True)


@settings(max_examples=25, deadline=None)
@given(crawl=CRAWLS, by=KINDS, keep=st.sampled_from(KEEPS), rows_per_bucket=st.sampled_from([4, 1000]))
def test_whatever_the_buckets_the_same_is_found_as_by_a_scan(
    crawl: Crawl, by: list[RepeatKind], keep: Keep, rows_per_bucket: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = found_in(search(Path(folder), crawl, by, keep, rows_per_bucket))
    assert len(set(found)) == len(found)
    assert set(found) == Scan(crawl).search(by, keep)


@settings(max_examples=5, deadline=None)
@given(
    crawl=CRAWLS,
    blocks=st.permutations(BLOCKS),
    documents=st.permutations(DOCUMENTS),
    keep=st.sampled_from(KEEPS),
)
def test_doing_it_twice_is_doing_it_once(
    crawl: Crawl, blocks: list[RepeatKind], documents: list[RepeatKind], keep: Keep
) -> None:
    by = [*blocks, *documents]
    with tempfile.TemporaryDirectory() as folder:
        after = masks_after(Path(folder) / "once", crawl, by, keep)
        again = search(Path(folder) / "again", after, by, keep)
        assert rows_of_parts(again) == []
        # Buckets and the order of units leave no trace in the masks.
        turned = dict(reversed(crawl.items()))
        assert masks_after(Path(folder) / "turned", turned, by, keep, rows_per_bucket=40) == after


def text_page(url: str, text: str, *, kept: bool = True) -> Page:
    return Page(f"http://a.example/{url}", (text,), kept=() if kept else (False,))


CRAWL: Crawl = {
    "a": [text_page("1", "one"), text_page("2", "two", kept=False), text_page("3", "three")],
    "b": [text_page("1", "uno"), text_page("2", "two"), text_page("4", "three")],
    "c": [text_page("5", "two"), Page("http://c.example/", ()), text_page("2", "deux")],
}
BY: tuple[RepeatKind, ...] = ("url", "text")


def test_each_part_lists_its_rows_by_unit_and_row(tmp_path: Path) -> None:
    manifest = search(tmp_path, CRAWL, BY, rows_per_bucket=3)
    assert manifest.stage == "repeats"
    assert [entry.unit for entry in manifest.parts] == [f"{kind}-{n:05d}" for kind in BY for n in range(4)]
    for entry in manifest.parts:
        table = read_table(entry.path)
        assert table.schema.equals(REPEATS)
        places = list(zip(table["unit"].to_pylist(), table["row"].to_pylist(), strict=True))
        assert places == sorted(places)
    rows = {(row["unit"], row["row"]): row for row in rows_of_parts(manifest)}
    assert {place: (row["kind"], row["root"], row["reason"]) for place, row in rows.items()} == {
        ("b", 0): ("url", "a:0", "repeat.url"),
        ("c", 2): ("url", "b:1", "repeat.url"),
        ("b", 2): ("text", "a:2", "repeat.text"),
        ("c", 0): ("text", "b:1", "repeat.text"),
    }
    assert rows["b", 0]["id"] == "b:0"
    assert rows["b", 0]["key"] != rows["c", 2]["key"]


@pytest.mark.parametrize(("keep", "stays"), [("first", ("a", 0)), ("latest", ("b", 0)), ("longest", ("a", 1))])
def test_the_document_that_stays_is_chosen_by_the_recipe(keep: Keep, stays: tuple[str, int], tmp_path: Path) -> None:
    crawl: Crawl = {
        "a": [
            Page("http://a.example/", ("one",), "2023-01-01T00:00:00Z"),
            Page("http://a.example/", ("three words now", "two words"), "not a time"),
        ],
        "b": [
            Page("http://a.example/", ("three words now",), "2023-01-01T00:00:00.001Z"),
            # The wordiest of all, but for a block that is not kept.
            Page("http://a.example/", ("two words", "four of the words"), None, kept=(True, True, False)),
        ],
    }
    found = found_in(search(tmp_path, crawl, ["url"], keep))
    places = {(unit, row) for unit, pages in crawl.items() for row in range(len(pages))}
    assert {(unit, row) for _, unit, row, _, _ in found} == places - {stays}
    assert {root for *_, root in found} == {f"{stays[0]}:{stays[1]}"}


def test_a_paragraph_goes_everywhere_in_its_domain_and_nowhere_else(tmp_path: Path) -> None:
    hosts = ["a.example", "A.EXAMPLE:8080", "user@a.example.", "b.example", "sub.a.example", "b.example"]
    crawl: Crawl = {"a": [Page(f"http://{host}/{n}", ("Share this", f"text {n}")) for n, host in enumerate(hosts)]}
    found = found_in(search(tmp_path, crawl, ["paragraph"]))
    assert set(found) == {("paragraph", "a", row, 0, None) for row in (0, 1, 2)}


def test_an_emptied_document_neither_competes_nor_stays(tmp_path: Path) -> None:
    crawl: Crawl = {"a": [Page("http://a.example/", ("Share this",) * 3), Page("http://a.example/", ("one",))]}
    found = found_in(search(tmp_path, crawl, ["paragraph", "url"]))
    assert {kind for kind, *_ in found} == {"paragraph"}
    assert {row for _, _, row, _, _ in found} == {0}


def test_image_files_that_nobody_knows_are_asked_for(tmp_path: Path) -> None:
    read = sources(tmp_path, CRAWL, images=False)
    here, _ = runner()
    limits = SearchLimits(max_memory_mb=100, rows_per_bucket=10)
    with pytest.raises(InputError, match=r"pass 'repeats': repeats by image_sha256 need image files"):
        search_repeats(here, repeats_pass(["image_sha256"]), read, tmp_path / "repeats", limits)


def test_within_a_document_urls_are_compared_where_no_file_is_known(tmp_path: Path, done: DoneHere) -> None:
    crawl: Crawl = {"a": [Page("http://a.example/", (("i", "x"), ("j", "x"), ("i", None)))]}
    here, _ = runner()
    limits = SearchLimits(max_memory_mb=100, rows_per_bucket=10)
    step = repeats_pass(["image_in_document"])
    for images, blocks in ((False, [2]), (True, [1, 2])):
        folder = tmp_path / str(images)
        found = search_repeats(here, step, sources(folder, crawl, images=images), folder / "repeats", limits)
        assert [row["block"] for row in rows_of_parts(found)] == blocks
    assert done.units == ["repeats/image_in_document-a"] * 2


def test_in_a_store_the_same_is_found(tmp_path: Path) -> None:
    by: Sequence[RepeatKind] = ("paragraph", *BY)
    there = search(UPath("memory://test-jobs-repeats"), CRAWL, by, rows_per_bucket=3)
    here = search(tmp_path, CRAWL, by, rows_per_bucket=3)
    assert [(entry.unit, entry.digest) for entry in there.parts] == [(e.unit, e.digest) for e in here.parts]


def test_what_was_found_is_read_by_unit_in_order_from_those_parts_that_may_name_it(tmp_path: Path) -> None:
    crawl: Crawl = {**CRAWL, "c": [*CRAWL["c"], Page("http://d.example/", (("i", None), ("i", None)))]}
    manifest = search(tmp_path, crawl, [*BY, "image_in_document"], rows_per_bucket=1)
    hits = read_hits([entry.path for entry in manifest.parts], "c")
    assert hits.row.tolist() == [0, 2, 3]
    assert hits.block.tolist() == [-1, -1, 1]
    assert list(hits.reason) == ["repeat.text", "repeat.url", "repeat.image_in_document"]
    assert read_hits([], "a").row.tolist() == []
    named = naming(manifest.parts, "c")
    assert len(named) < len(manifest.parts)
    assert read_hits([entry.path for entry in named], "c").row.tolist() == [0, 2, 3]
    assert not any(entry.unit.startswith("image_in_document") for entry in naming(manifest.parts, "a"))


NUMBERS = Stage(name="numbers", version=1, schema=pa.schema([("n", pa.int64())]), work=None, rows_per_group=4)
FLAGS = Stage(name="flags", version=1, schema=pa.schema([("keep", pa.bool_())]), work=None, rows_per_group=3)


def aligned(folder: Path, num_numbers: int, num_flags: int) -> dict[str, tuple[Place, Sequence[str] | None]]:
    numbers = written(folder, NUMBERS, {"a": [{"n": n} for n in range(num_numbers)]})
    flags = written(folder, FLAGS, {"a": [{"keep": n % 3 == 0} for n in range(num_flags)]})
    return {"numbers": (numbers.parts[0].path, None), "flags": (flags.parts[0].path, ["keep"])}


@pytest.mark.parametrize("num_rows", [1, 3, 7, 100])
def test_parts_are_read_side_by_side_whatever_their_row_groups(tmp_path: Path, num_rows: int) -> None:
    at, pairs = 0, list[tuple[int, bool]]()
    for first, tables in read_aligned_tables(aligned(tmp_path, 20, 20), num_rows):
        assert first == at
        assert tables["numbers"].num_rows == tables["flags"].num_rows == min(num_rows, 20 - first)
        at += tables["numbers"].num_rows
        pairs += zip(tables["numbers"]["n"].to_pylist(), tables["flags"]["keep"].to_pylist(), strict=True)
    assert pairs == [(n, n % 3 == 0) for n in range(20)]


@pytest.mark.parametrize("other", [0, 1, 9])
def test_parts_of_other_lengths_are_refused(tmp_path: Path, other: int) -> None:
    with pytest.raises(InputError, match="wanted equal numbers"):
        list(read_aligned_tables(aligned(tmp_path, 8, other), 4))


def test_only_what_depends_on_a_change_is_done_again(tmp_path: Path, done: DoneHere) -> None:
    here, _ = runner()
    by: tuple[RepeatKind, ...] = ("url", "paragraph")

    def units_done(crawl: Crawl, keep: Keep = "first", **changes: int) -> list[str]:
        limits = dataclasses.replace(SearchLimits(max_memory_mb=100, rows_per_bucket=3), **changes)
        read = sources(tmp_path, crawl)
        done.units.clear()
        search_repeats(here, repeats_pass(by, keep), read, tmp_path / "repeats", limits)
        return sorted(done.units)

    keys = [f"repeat_keys/{unit}" for unit in "abc"]
    buckets = {kind: [f"repeats/{kind}-{n:05d}" for n in range(4 if kind == "url" else 16)] for kind in by}
    assert units_done(CRAWL) == sorted([*keys, *keys, *buckets["url"], *buckets["paragraph"]])
    assert units_done(CRAWL) == []
    assert units_done(CRAWL, max_memory_mb=200) == []
    assert units_done(CRAWL, rows_per_bucket=4) == [] if sum(map(len, CRAWL.values())) > 12 else True
    lost = next((tmp_path / "repeats").glob("url-00002-*.parquet"))
    lost.unlink()
    assert units_done(CRAWL) == ["repeats/url-00002"]
    # Which of equals stays is no matter of blocks: their keys are made anew only where others stay.
    assert "repeats/paragraph-00000" not in units_done(CRAWL, "longest")
    assert not set(units_done(CRAWL, rows_per_bucket=1000)) & set(buckets["url"][1:])

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from curate_pages import documents_table, page, sample_pages, signals_table
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.core.document import Document
from carnac.core.errors import InputError, RunError
from carnac.core.schema import REPEATS
from carnac.curate.repeats import competing_rows, find_in_bucket, judge_repeats, judge_repeats_part
from carnac.curate.settings import RepeatKind, RepeatsPass
from carnac.curate.signals import SIGNALS, failed_row
from carnac.curate.verdicts import Reasons, Verdict, keep_all, masks_table
from carnac.engine.buckets import KEY, bucket_of, open_database

BY: tuple[RepeatKind, ...] = ("url", "text")
PASS = RepeatsPass(name="repeats", kind="repeats", by=BY)
REASONS = Reasons.of([PASS])
CHUNK = 3  # rows of a part that are looked at together
Units = dict[str, list[Document]]


def find(
    units: Units, by: tuple[RepeatKind, ...] = BY, keep: dict[str, list[bool]] | None = None, buckets: int = 1
) -> pa.Table:
    signals = {unit: signals_table(documents) for unit, documents in units.items()}
    masks = None
    if keep is not None:
        masks = {unit: masked([document.id for document in units[unit]], keep[unit]) for unit in units}
    return find_in_signals(signals, by, masks, buckets)


def masked(ids: list[str], keep: list[bool]) -> pa.Table:
    dropped = Verdict(keep=False, reason=0, keep_block=(True,), block_reason=(None,))
    return masks_table(ids, [keep_all(1) if kept else dropped for kept in keep], REASONS)


def find_in_signals(
    signals: dict[str, pa.Table],
    by: tuple[RepeatKind, ...] = BY,
    masks: dict[str, pa.Table] | None = None,
    buckets: int = 1,
    max_memory_mb: int = 200,
) -> pa.Table:
    """Search as the job does, but in memory: kind after kind, what competes of each part, bucket by bucket."""
    found: list[pa.Table] = [REPEATS.empty_table()]
    units = list(signals)
    for kind in by:
        earlier = pa.concat_tables(found)
        keys = []
        for unit in units:
            gone = earlier.filter(pc.equal(earlier["unit"], unit))["row"].to_numpy()
            tables = [
                competing_rows(table, None if masks is None else masks[unit].slice(first, CHUNK), kind, gone, first)
                for first, table in chunks(signals[unit])
            ]
            keys.append(pa.concat_tables(tables) if tables else None)
        for bucket in range(buckets):
            rows = [
                (place, batch)
                for place, table in enumerate(keys)
                if table is not None
                for batch in table.filter(pa.array(in_bucket(table, bucket, buckets), pa.bool_())).to_batches()
            ]
            with open_database(max_memory_mb) as database:
                found += list(find_in_bucket(rows, units, kind, database))
    return pa.concat_tables(found)


def chunks(table: pa.Table) -> Sequence[tuple[int, pa.Table]]:
    size = CHUNK if table.num_rows < 1000 else table.num_rows
    return [(first, table.slice(first, size)) for first in range(0, table.num_rows, size)]


def in_bucket(table: pa.Table, bucket: int, buckets: int) -> list[bool]:
    return [buckets == 1 or bucket_of(key, buckets) == bucket for key in table[KEY].to_pylist()]


def places(repeats: pa.Table) -> list[tuple[str, str, int]]:
    return [(row["kind"], row["unit"], row["row"]) for row in repeats.to_pylist()]


def copy(url: str, text: str) -> Document:
    return page(text, url=f"http://a.example/{url}")


def test_the_smallest_unit_and_row_is_the_root() -> None:
    units = {
        "b": [copy("1", "one"), copy("2", "two"), copy("2", "deux")],
        "a": [copy("9", "nine"), copy("1", "un"), copy("8", "Two ")],
    }
    repeats = find(units)
    assert repeats.schema == REPEATS
    assert places(repeats) == [("url", "b", 0), ("url", "b", 2), ("text", "b", 1)]
    roots = [units["a"][1].id, units["b"][1].id, units["a"][2].id]
    assert repeats["root"].to_pylist() == roots
    assert repeats["id"].to_pylist() == [units["b"][0].id, units["b"][2].id, units["b"][1].id]
    assert len(set(repeats["key"].to_pylist())) == 3


def test_what_repeats_by_url_takes_no_other_with_it_by_text() -> None:
    units = {"a": [copy("1", "old"), copy("1", "new"), copy("2", "new")]}
    assert places(find(units)) == [("url", "a", 1)]
    assert places(find(units, by=("text", "url"))) == [("text", "a", 2), ("url", "a", 1)]
    assert places(find(units, by=("text",))) == [("text", "a", 2)]


def test_only_what_is_still_kept_competes() -> None:
    units = {"a": [copy("1", "x"), copy("1", "y")], "b": [copy("1", "z")]}
    assert places(find(units, keep={"a": [False, True], "b": [True]})) == [("url", "b", 0)]
    assert places(find(units, keep={"a": [False, False], "b": [True]})) == []


def test_pages_without_text_and_failed_ones_repeat_nothing() -> None:
    pictures = [page(("image", "http://a.example/i.png"), url=f"http://a.example/{n}") for n in range(2)]
    assert find({"a": pictures}).num_rows == 0
    failed = pa.Table.from_pylist([failed_row(copy("1", "x"), "broken")] * 2, schema=SIGNALS)
    assert find_in_signals({"a": failed}).num_rows == 0


def test_nothing_in_gives_an_empty_table() -> None:
    assert find({}).schema == REPEATS
    assert find({"a": []}).num_rows == 0


def test_masks_of_other_documents_are_refused() -> None:
    masks = masks_table(["other"], [keep_all(1)], REASONS)
    with pytest.raises(InputError, match="different documents"):
        competing_rows(signals_table([copy("1", "x")]), masks, "url", np.array([], np.int64), 0)


UNITS = st.lists(
    st.lists(st.tuples(st.sampled_from("12345"), st.sampled_from("abcde")), max_size=6), min_size=1, max_size=4
)


@settings(max_examples=20)
@given(recipe=UNITS, seed=st.randoms(use_true_random=False), buckets=st.sampled_from([1, 2, 4]))
def test_units_in_any_order_and_any_buckets_give_what_a_scan_gives(
    recipe: list[list[tuple[str, str]]], seed: random.Random, buckets: int
) -> None:
    units = {f"u{n}": [copy(*pair) for pair in unit] for n, unit in enumerate(recipe)}
    repeats = find(units, buckets=buckets)
    shuffled = list(units.items())
    seed.shuffle(shuffled)
    assert find(dict(shuffled), buckets=buckets).equals(repeats)
    order = [("kind", "descending"), ("unit", "ascending"), ("row", "ascending")]
    assert find(units).equals(repeats.sort_by(order).combine_chunks())
    expected: dict[tuple[str, int], tuple[str, str]] = {}
    for kind, part in (("url", 0), ("text", 1)):
        roots: dict[str, str] = {}
        gone = set(expected)
        for unit, pairs in zip(units, recipe, strict=True):
            for row, pair in enumerate(pairs):
                if (unit, row) not in gone and roots.setdefault(pair[part], f"{unit}:{row}") != f"{unit}:{row}":
                    expected[unit, row] = (kind, roots[pair[part]])
    got = {(row["unit"], row["row"]): (row["kind"], row["root"]) for row in repeats.to_pylist()}
    name = {f"{unit}:{row}": document.id for unit, documents in units.items() for row, document in enumerate(documents)}
    assert got == {place: (kind, name[root]) for place, (kind, root) in expected.items()}
    kept = {unit: [(unit, row) not in got for row in range(len(units[unit]))] for unit in units}
    assert find(units, keep=kept).num_rows == 0  # twice is once


def test_verdicts_of_a_part_name_the_kind_and_leave_earlier_drops() -> None:
    units = {"a": [copy("1", "x"), copy("1", "y"), copy("2", "x")], "b": [copy("1", "z")]}
    repeats = find(units)
    verdicts = judge_repeats([1] * 3, [None] * 3, None, rows_of("a", repeats), REASONS)
    assert [verdict.reason for verdict in verdicts] == [None, REASONS.code("repeat.url"), REASONS.code("repeat.text")]
    assert [verdict.keep for verdict in verdicts] == [True, False, False]
    assert all(verdict.keep_block == (True,) for verdict in verdicts)
    gone = Verdict(keep=False, reason=1, keep_block=(False,), block_reason=(0,))
    assert judge_repeats([1], [None], [gone], rows_of("b", repeats), REASONS) == [gone]
    documents, signals = documents_table(units["a"]), signals_table(units["a"])
    part = judge_repeats_part(documents, signals, None, rows_of("a", repeats), REASONS)
    assert part["keep"].to_pylist() == [True, False, False]
    assert judge_repeats_part(documents, signals, part, rows_of("a", repeats), REASONS).equals(part)


def rows_of(unit: str, repeats: pa.Table) -> dict[int, RepeatKind]:
    mine = repeats.filter(pc.equal(repeats["unit"], unit))
    return dict(zip(mine["row"].to_pylist(), mine["kind"].to_pylist(), strict=True))


def test_what_could_not_be_measured_is_dropped_with_a_reason_of_its_own() -> None:
    documents = [copy("1", "x"), copy("1", "y"), copy("2", "z")]
    signals = pa.Table.from_pylist([failed_row(document, "beyond_limit") for document in documents], schema=SIGNALS)
    assert find_in_signals({"a": signals}).num_rows == 0
    part = judge_repeats_part(documents_table(documents), signals, None, {}, REASONS)
    assert part["keep"].to_pylist() == [False] * 3
    assert part["reason"].to_pylist() == [REASONS.code("signals_failed")] * 3
    assert REASONS.names == ("signals_failed", "repeat.url", "repeat.text")


def test_real_pages_given_twice_are_found_once() -> None:
    documents, _ = sample_pages()
    first = find({"a": list(documents)})
    twice = find({"a": list(documents), "b": list(documents)})
    assert twice.slice(0, 0).schema == REPEATS
    assert twice.num_rows == first.num_rows + len(documents)


def synthetic(num_rows: int, unit: str) -> pa.Table:
    """A part of digests only, half of which another part shares."""
    url = [f"{unit if row % 2 else 'same'}{row:060d}" for row in range(num_rows)]
    columns = {"id": [f"{unit}{row:030d}" for row in range(num_rows)], "url_digest": url, "text_digest": url[::-1]}
    return pa.table(columns)


def test_a_memory_smaller_than_the_digests_is_enough() -> None:
    parts = {unit: synthetic(40_000, unit) for unit in "abcdefgh"}  # 43 MB in DuckDB, before any search
    repeats = find_in_signals(parts, max_memory_mb=40)
    # Half of the rows of each later part repeat the first one's URLs, the other half its texts.
    assert repeats.num_rows == 7 * 40_000
    assert set(repeats["unit"].to_pylist()) == set("bcdefgh")
    assert repeats["kind"].to_pylist() == ["url"] * 140_000 + ["text"] * 140_000


def test_a_memory_that_is_too_small_is_said_so() -> None:
    with pytest.raises(RunError, match="max_memory_mb = 1"):
        find_in_signals({"a": synthetic(50_000, "a")}, max_memory_mb=1)

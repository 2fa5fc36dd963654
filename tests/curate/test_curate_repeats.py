"""One bucket searched: which documents go and which stays, which blocks are too frequent, under what memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.core.errors import InputError, RunError
from carnac.core.schema import REPEATS
from carnac.curate.repeats.keys import BLOCK_KEYS, DOCUMENT_KEYS, WORST
from carnac.curate.repeats.search import ROWS_AT_ONCE, Bucket, cut, find_documents, find_frequent
from carnac.engine.buckets import BUCKET, open_database

Units = dict[str, list[tuple[int, ...]]]
TOP = 2**64 - 1
PREFERENCES = st.sampled_from([0, 1, 7, WORST - 1, WORST])
DOCUMENTS = st.dictionaries(
    st.sampled_from("abcd"),
    st.lists(st.tuples(st.sampled_from([0, 1, 2, TOP]), PREFERENCES), max_size=8),
    max_size=4,
)
BLOCKS = st.dictionaries(
    st.sampled_from("abcd"),
    st.lists(
        st.tuples(st.sampled_from([0, 1, 2, TOP]), st.integers(0, 3), st.integers(0, 2)),
        max_size=8,
        unique_by=lambda row: row[1:],
    ),
    max_size=4,
)


def bucket_of(schema: pa.Schema, units: dict[str, pa.Table], num_rows: int = 3) -> Bucket:
    def read(unit: str, columns: Sequence[str]) -> Iterable[pa.RecordBatch]:
        batches: list[pa.RecordBatch] = units[unit].select(columns).to_batches(max_chunksize=num_rows)
        return batches

    assert all(table.schema.names == [name for name in schema.names if name != BUCKET] for table in units.values())
    return Bucket(units=tuple(units), read=read)


def documents(units: Units) -> Bucket:
    """Rows are (key, preference); the id of a row is its unit and number."""
    return bucket_of(DOCUMENT_KEYS, {unit: documents_table(unit, rows) for unit, rows in units.items()})


def documents_table(unit: str, rows: Sequence[tuple[int, ...]]) -> pa.Table:
    keys, preferences = ([row[place] for row in rows] for place in range(2))
    numbers = range(len(rows))
    columns = [
        pa.array(keys, pa.uint64()),
        pa.array([f"{unit}:{row}" for row in numbers], pa.string()),
        pa.array(numbers, pa.int64()),
        pa.array(preferences, pa.int64()),
    ]
    return pa.table(columns, names=["key", "id", "row", "preference"])


def blocks(units: Units) -> Bucket:
    """Rows are (key, row, block), by row."""
    tables = {}
    for unit in units:
        rows = sorted(units[unit], key=lambda row: row[1:])
        columns = [
            pa.array([key for key, _, _ in rows], pa.uint64()),
            pa.array([f"{unit}:{row}" for _, row, _ in rows], pa.string()),
            pa.array([row for _, row, _ in rows], pa.int64()),
            pa.array([block for _, _, block in rows], pa.int32()),
        ]
        tables[unit] = pa.table(columns, names=["key", "id", "row", "block"])
    return bucket_of(BLOCK_KEYS, tables)


def searched(bucket: Bucket, max_copies: int | None = None, max_memory_mb: int = 100) -> pa.Table:
    with open_database(max_memory_mb) as database:
        if max_copies is None:
            tables = list(find_documents(bucket, "url", database))
        else:
            tables = list(find_frequent(bucket, "paragraph", max_copies, database))
    assert all(table.schema.equals(REPEATS) for table in tables)
    return pa.concat_tables([REPEATS.empty_table(), *tables])


@settings(max_examples=60, deadline=None)
@given(units=DOCUMENTS)
def test_of_each_set_of_equals_the_preferred_stays_and_the_others_name_it(units: Units) -> None:
    found = searched(documents(units)).to_pylist()
    sets: dict[int, list[tuple[int, str, int]]] = {}
    for unit, rows in units.items():
        for row, (key, preference) in enumerate(rows):
            sets.setdefault(key, []).append((preference, unit, row))
    expected: dict[tuple[str, int], tuple[str, str]] = {}
    for key, members in sets.items():
        _, first_unit, first_row = min(members)
        expected |= {(unit, row): (f"{first_unit}:{first_row}", f"{key:016x}") for _, unit, row in members}
        del expected[first_unit, first_row]
    assert {(row["unit"], row["row"]): (row["root"], row["key"]) for row in found} == expected
    assert [(row["unit"], row["row"]) for row in found] == sorted(expected)
    assert all((row["id"], row["block"]) == (f"{row['unit']}:{row['row']}", None) for row in found)
    assert {(row["kind"], row["reason"]) for row in found} <= {("url", "repeat.url")}


@settings(max_examples=60, deadline=None)
@given(units=BLOCKS, max_copies=st.integers(1, 4))
def test_what_is_there_more_often_than_it_may_be_goes_everywhere(units: Units, max_copies: int) -> None:
    found = searched(blocks(units), max_copies).to_pylist()
    copies = Counter(key for rows in units.values() for key, _, _ in rows)
    expected = {(unit, row, block) for unit in units for key, row, block in units[unit] if copies[key] > max_copies}
    places = [(row["unit"], row["row"], row["block"]) for row in found]
    assert set(places) == expected
    assert len(places) == len(expected)
    assert [place[:2] for place in places] == sorted(place[:2] for place in places)
    assert all((row["id"], row["root"]) == (f"{row['unit']}:{row['row']}", None) for row in found)
    assert {(row["kind"], row["reason"]) for row in found} <= {("paragraph", "repeat.paragraph")}


@pytest.mark.parametrize("cuts", [[], [0], [1], [ROWS_AT_ONCE], [ROWS_AT_ONCE - 1, 2, 3], [3 * ROWS_AT_ONCE, 0, 5]])
def test_rows_are_handed_over_in_equal_tables_however_they_came(cuts: list[int]) -> None:
    columns = {"id": pa.string(), "row": pa.int64()}
    first, tables = 0, []
    for number in cuts:
        rows = pa.array(range(first, first + number), pa.int64())
        tables.append(pa.table({"id": rows.cast(columns["id"]), "row": rows}))
        first += number
    got = list(cut(tables))
    assert [table.num_rows for table in got[:-1]] == [ROWS_AT_ONCE] * (len(got) - 1)
    assert [row for table in got for row in table["row"].to_pylist()] == list(range(first))
    assert all(0 < table.num_rows <= ROWS_AT_ONCE for table in got)


def many(num_rows: int, unit: str) -> pa.Table:
    """Documents half of which another unit shares."""
    return documents_table(unit, [(row if row % 2 else row + (ord(unit) << 40), 0) for row in range(num_rows)])


def test_a_memory_smaller_than_the_keys_is_enough() -> None:
    units = {unit: many(40_000, unit) for unit in "abcdefgh"}  # 180,000 keys: 14 MB of state, and 8 more beside
    found = searched(bucket_of(DOCUMENT_KEYS, units, 10_000), max_memory_mb=20)
    assert Counter(found["unit"].to_pylist()) == dict.fromkeys("bcdefgh", 20_000)
    assert set(found["root"].to_pylist()) == {f"a:{row}" for row in range(1, 40_000, 2)}


def test_a_memory_that_is_too_small_is_said_so() -> None:
    with pytest.raises(RunError, match="max_memory_mb = 1"):
        searched(bucket_of(DOCUMENT_KEYS, {"a": many(50_000, "a")}, 10_000), max_memory_mb=1)


def test_a_part_that_cannot_be_read_is_said_so_and_not_in_the_words_of_the_database() -> None:
    def read(unit: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from documents_table(unit, [(1, 0)]).select(columns).to_batches()
        raise InputError("b.parquet: cannot be read")

    with pytest.raises(InputError, match=r"b\.parquet: cannot be read"):
        searched(Bucket(units=("b",), read=read))


def test_a_unit_may_not_be_given_twice() -> None:
    with pytest.raises(AssertionError, match="given twice"):
        searched(Bucket(units=("a", "a"), read=lambda _unit, _columns: iter(())))

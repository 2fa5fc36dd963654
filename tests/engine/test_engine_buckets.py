"""Rows put into buckets by map units and read back bucket by bucket; the database that searches one."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from carnac.core.errors import InputError, RunError
from carnac.core.places import Place
from carnac.engine.buckets import (
    BUCKET,
    KEY,
    BucketWriter,
    bucket_of,
    buckets_of,
    mix,
    num_buckets,
    open_database,
    read_bucket,
    read_equal,
)
from carnac.engine.ledger import read_ledger
from carnac.engine.part import Part
from carnac.engine.storage import host, scratch
from carnac.engine.unit import Stage

# A column of lists before the key: the place of a column among a footer's leaves is not its place in the schema.
SCHEMA = pa.schema([(BUCKET, pa.int32()), ("list", pa.list_(pa.int64())), (KEY, pa.string()), ("row", pa.int64())])
STAGE = Stage(name="map", version=1, schema=SCHEMA, work=None, rows_per_group=1000)


def table(keys: Sequence[str], first: int = 0) -> pa.Table:
    rows = [{"list": [row, row], "key": key, "row": row} for row, key in enumerate(keys, start=first)]
    return pa.Table.from_pylist(rows, schema=pa.schema(list(SCHEMA)[1:]))


def write(folder: Place, chunks: Sequence[Sequence[str]], buckets: int, rows_per_flush: int = 100) -> Place:
    unit = STAGE.unit(uuid.uuid4().hex, None, settings={}, inputs=[])
    with Part(STAGE, unit, folder) as part, BucketWriter(part, buckets, rows_per_flush) as writer:
        first = 0
        for chunk in chunks:
            writer.write(table(chunk, first))
            first += len(chunk)
    return folder / unit.file_name


def rows_in(part: Place, bucket: int) -> list[tuple[str, int]]:
    batches = read_bucket(part, bucket, [KEY, "row"])
    return [(row[KEY], row["row"]) for batch in batches for row in batch.to_pylist()]


@given(rows=st.integers(0, 10**12), rows_per_bucket=st.integers(1, 10**7))
def test_there_are_as_many_buckets_as_hold_the_rows_and_no_power_of_two_fewer(rows: int, rows_per_bucket: int) -> None:
    number = num_buckets(rows, rows_per_bucket)
    assert number.bit_count() == 1
    assert rows <= number * rows_per_bucket
    assert number == 1 or rows > number // 2 * rows_per_bucket


def test_the_bucket_of_a_key_is_what_it_always_was() -> None:
    # From RFC 7693's BLAKE2b with a digest of 8 bytes, read little-endian: parts on disk depend on it.
    assert [bucket_of(key, 2**20) for key in ("", "stone", "pierre lev\xe9e")] == [42724, 733923, 769666]
    counts = [0] * 8
    for number in range(8000):
        counts[bucket_of(f"http://stones.example/{number}", 8)] += 1
    assert max(counts) < 1.15 * min(counts)


def test_the_bucket_of_a_number_is_what_it_always_was() -> None:
    # From splitmix64: its first output for each number as the state. Parts on disk depend on it.
    assert mix(np.array([0, 1, 2**64 - 1], np.uint64)).tolist() == [splitmix64(n) for n in (0, 1, 2**64 - 1)]
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert mix(np.array([-1])).tolist() == [splitmix64(2**64 - 1)]
    for keys in (np.arange(8000), np.arange(8000) << 40, np.arange(8000) * 1024):
        counts = np.bincount(buckets_of(keys, 8), minlength=8)
        assert counts.max() < 1.2 * counts.min()


def splitmix64(state: int) -> int:
    """Restate the generator's step (Steele, Lea and Flood 2014) in whole numbers without an end."""
    mixed = state + 0x9E3779B97F4A7C15
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed %= 2**64
        mixed = (mixed ^ mixed >> shift) * factor
    mixed %= 2**64
    return mixed ^ mixed >> 31


@given(
    keys=st.lists(st.integers(0, 2**64 - 1), max_size=60),
    buckets=st.sampled_from([1, 2, 16]),
    rows_per_flush=st.integers(1, 40),
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whole_numbers_are_keys_too(keys: list[int], buckets: int, rows_per_flush: int, tmp_path: Path) -> None:
    schema = pa.schema([(BUCKET, pa.int32()), (KEY, pa.uint64()), ("row", pa.int64())])
    stage = Stage(name="map", version=1, schema=schema, work=None)
    unit = stage.unit(uuid.uuid4().hex, None, settings={}, inputs=[])
    with Part(stage, unit, tmp_path) as part, BucketWriter(part, buckets, rows_per_flush) as writer:
        writer.write(pa.table({KEY: pa.array(keys, pa.uint64()), "row": pa.array(range(len(keys)), pa.int64())}))
    wanted = buckets_of(np.array(keys, np.uint64), buckets).tolist()
    for bucket in range(buckets):
        batches = read_bucket(tmp_path / unit.file_name, bucket, [KEY, "row"])
        rows = [(row[KEY], row["row"]) for batch in batches for row in batch.to_pylist()]
        assert rows == [(key, row) for row, key in enumerate(keys) if wanted[row] == bucket]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chunks=st.lists(st.lists(st.text(max_size=3), max_size=30), max_size=6),
    buckets=st.sampled_from([1, 2, 4, 16]),
    rows_per_flush=st.integers(1, 40),
)
def test_each_row_is_in_the_bucket_of_its_key_once_however_the_rows_came(
    chunks: list[list[str]], buckets: int, rows_per_flush: int, tmp_path: Path
) -> None:
    part = write(tmp_path, chunks, buckets, rows_per_flush)
    keys = [key for chunk in chunks for key in chunk]
    got = []
    for bucket in range(buckets):
        rows = rows_in(part, bucket)
        assert [row for _, row in rows] == sorted(row for _, row in rows)
        assert all(bucket_of(key, buckets) == bucket for key, _ in rows)
        got += rows
    assert sorted(got, key=lambda pair: pair[1]) == [(key, row) for row, key in enumerate(keys)]
    assert read_ledger(write(tmp_path, [keys], buckets, rows_per_flush)).digest == read_ledger(part).digest
    metadata = pq.read_metadata(part)
    flushes = -(-len(keys) // rows_per_flush)
    assert metadata.num_row_groups <= flushes * buckets
    assert all(metadata.row_group(n).num_rows <= rows_per_flush for n in range(metadata.num_row_groups))


def test_a_bucket_is_read_though_the_bytes_of_all_others_are_damaged(tmp_path: Path) -> None:
    keys = [f"key {number}" for number in range(1000)]
    part = write(tmp_path, [keys], 8)
    assert isinstance(part, Path)
    want = rows_in(part, 3)
    assert len(want) > 80
    content, metadata = bytearray(part.read_bytes()), pq.read_metadata(part)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.column(0).statistics.min != 3:
            for column in (group.column(place) for place in range(group.num_columns)):
                start = column.dictionary_page_offset or column.data_page_offset
                content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    part.write_bytes(content)
    assert rows_in(part, 3) == want
    with pytest.raises(InputError, match="cannot be read"):
        rows_in(part, 4)


def test_parts_in_a_store_are_read_alike(tmp_path: Path) -> None:
    keys = [f"key {number % 50}" for number in range(300)]
    there = write(UPath(f"memory://{uuid.uuid4().hex}/map"), [keys], 4)
    here = write(tmp_path, [keys], 4)
    assert [rows_in(there, bucket) for bucket in range(4)] == [rows_in(here, bucket) for bucket in range(4)]


def test_rows_that_equal_a_value_are_found_among_neighbours(tmp_path: Path) -> None:
    unit = STAGE.unit("sorted", None, settings={}, inputs=[])
    with Part(STAGE, unit, tmp_path) as part:
        for row in range(5000):
            part.write({BUCKET: 0, "list": [], KEY: f"unit-{row // 700}", "row": row})
    path = tmp_path / unit.file_name
    for value, want in (("unit-2", range(1400, 2100)), ("unit-20", ()), ("unit-7", range(4900, 5000)), ("a", ())):
        batches = list(read_equal(path, KEY, value, ["row"], batch_rows=100))
        assert [row for batch in batches for row in batch.column("row").to_pylist()] == list(want)
        assert all(batch.num_rows <= 100 and batch.schema.names == ["row"] for batch in batches)
    with pytest.raises(InputError, match="cannot be read"):
        list(read_equal(tmp_path / "gone.parquet", KEY, "a", ["row"]))


def test_a_writer_left_by_an_error_leaves_no_part(tmp_path: Path) -> None:
    unit = STAGE.unit("broken", None, settings={}, inputs=[])

    def rows() -> Iterator[pa.Table]:
        yield table(["a", "b"])
        raise InputError("the rest cannot be read")

    with pytest.raises(InputError), Part(STAGE, unit, tmp_path) as part, BucketWriter(part, 4) as writer:
        list(map(writer.write, rows()))
    assert list(tmp_path.iterdir()) == []


def test_a_database_spills_and_leaves_nothing_behind() -> None:
    before = set(scratch().glob(".buckets.*"))
    with open_database(40) as database:
        database.execute("CREATE TABLE large AS SELECT sha256(range::VARCHAR) AS digest FROM range(1_000_000)")
        (folder,) = set(scratch().glob(f".buckets.{host()}.{os.getpid()}.*")) - before
        assert sum(file.stat().st_size for file in folder.iterdir()) > 10_000_000
        assert database.execute("SELECT count(DISTINCT digest[:3]) FROM large").fetchall() == [(4096,)]
        assert database.execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(False,)]
    assert not folder.exists()


def test_a_cap_that_is_too_small_is_a_sentence() -> None:
    with pytest.raises(RunError, match=r"max_memory_mb = 1 .*Raise it"), open_database(1) as database:
        database.execute("SELECT count(DISTINCT sha256(range::VARCHAR)) FROM range(1_000_000)").fetchall()


def test_what_a_killed_process_spilled_is_swept_and_a_living_one_is_left() -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], check=True, capture_output=True)
    name = uuid.uuid4().hex[:8]
    stray = scratch() / f".buckets.{host()}.{int(dead.stdout)}.{name}.tmp"
    living = scratch() / f".buckets.{host()}.{os.getppid()}.{name}.tmp"
    elsewhere = scratch() / f".buckets.another-host.{int(dead.stdout)}.{name}.tmp"
    for folder in (stray, living, elsewhere):
        folder.mkdir(parents=True)
        (folder / "duckdb_temp_storage-0.tmp").write_bytes(b"spilled")
    try:
        with open_database(100):
            assert [folder.exists() for folder in (stray, living, elsewhere)] == [False, True, True]
    finally:
        for folder in (living, elsewhere):
            (folder / "duckdb_temp_storage-0.tmp").unlink()
            folder.rmdir()


def test_the_engine_is_imported_without_duckdb() -> None:
    script = "import sys; sys.modules['duckdb'] = None; import carnac.engine.buckets"
    subprocess.run([sys.executable, "-c", script], check=True)

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from engine_stages import NUMBERS, SCHEMA, write_numbers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carnac.core.errors import InputError, OutputError
from carnac.engine import part as part_module
from carnac.engine import storage
from carnac.engine.ledger import Ledger, Quarantined, ledger_from, read_ledger
from carnac.engine.part import Part
from carnac.engine.storage import host, sweep, temporary_path, write_file
from carnac.engine.unit import Stage, Unit

UNIT = Unit(name="00000", key="ab" * 32, task=None)
Row = tuple[str | None, int | None]
ROWS = st.lists(st.tuples(st.none() | st.text(max_size=3), st.none() | st.integers(-3, 3)), max_size=7)
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)


def _write(folder: Path, rows: list[Row], stage: Stage = NUMBERS) -> Ledger:
    with Part(stage, UNIT, folder) as part:
        for name, number in rows:
            part.write({"id": name, "number": number})
    return read_ledger(folder / UNIT.file_name)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@in_one_folder
@given(ROWS, ROWS)
def test_equal_rows_and_only_they_have_equal_digests(tmp_path: Path, one: list[Row], other: list[Row]) -> None:
    digests = [_write(tmp_path, rows).digest for rows in (one, other)]
    assert (digests[0] == digests[1]) == (one == other)


@in_one_folder
@given(ROWS.filter(bool))
def test_rows_come_back_and_the_last_one_counts_in_the_digest(tmp_path: Path, rows: list[Row]) -> None:
    ledger = _write(tmp_path, rows)
    read = pq.read_table(tmp_path / UNIT.file_name).to_pylist()
    assert [(row["id"], row["number"]) for row in read] == rows
    assert ledger.rows == len(rows)
    assert ledger.digest != _write(tmp_path, [*rows[:-1], ("another", 99)]).digest
    assert ledger.digest != _write(tmp_path, [*rows, rows[-1]]).digest


def test_the_digest_is_the_same_in_another_process_at_another_time(tmp_path: Path) -> None:
    rows: list[Row] = [("a", 1), ("b", None), ("c", 3)]
    here = _write(tmp_path, rows)
    command = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import test_engine_part as test\n"
        f"print(test._write(Path(sys.argv[2]), {rows!r}).digest)"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arguments = [sys.executable, "-c", command, str(Path(__file__).parent), str(elsewhere)]
    there = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert there.stdout.strip() == here.digest


def test_other_columns_give_another_digest(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.string()), ("number", pa.int32())])
    narrow = Stage(name="numbers", version=1, schema=schema, work=write_numbers)
    assert _write(tmp_path, [], NUMBERS).digest != _write(tmp_path, [], narrow).digest


def test_write_table_keeps_the_order_of_calls(tmp_path: Path) -> None:
    with Part(NUMBERS, UNIT, tmp_path) as part:
        part.write({"id": "a", "number": 1})
        part.write_table(pa.table({"id": ["b", "c", "d"], "number": pa.array([2, 3, 4], pa.int8())}))
        part.write({"id": "e"})
    read = pq.read_table(tmp_path / UNIT.file_name)
    assert read["id"].to_pylist() == ["a", "b", "c", "d", "e"]
    assert read["number"].to_pylist() == [1, 2, 3, 4, None]
    assert read_ledger(tmp_path / UNIT.file_name).rows == 5
    assert pq.read_metadata(tmp_path / UNIT.file_name).num_row_groups == 4


QUARANTINED = st.builds(Quarantined, record=st.text(), reason=st.text(), detail=st.text())
LEDGERS = st.builds(
    Ledger,
    stage=st.text(),
    version=st.integers(),
    unit=st.text(),
    key=st.text(),
    digest=st.text(),
    rows_digest=st.text(),
    rows=st.integers(),
    seconds=st.floats(allow_nan=False),
    counts=st.dictionaries(st.text(), st.integers()),
    quarantine=st.lists(QUARANTINED).map(tuple),
)


@settings(deadline=None)
@given(LEDGERS)
def test_a_ledger_survives_its_footer(ledger: Ledger) -> None:
    import json

    assert ledger_from(json.loads(ledger.to_json())) == ledger


def test_counts_and_quarantine_lie_in_the_footer(tmp_path: Path) -> None:
    stage = Stage(name="numbers", version=3, schema=SCHEMA, work=write_numbers)
    with Part(stage, UNIT, tmp_path) as part:
        part.write({"id": "a", "number": 1})
        part.count("pages")
        part.count("pages", 2)
        part.quarantine("file@12", "truncated_gzip", "x" * 900)
        part.quarantine("file@40", "truncated_gzip")
    ledger = read_ledger(tmp_path / UNIT.file_name)
    assert (ledger.stage, ledger.version, ledger.unit, ledger.key) == ("numbers", 3, UNIT.name, UNIT.key)
    assert ledger.counts == {"pages": 3, "lost.truncated_gzip": 2}
    first, second = ledger.quarantine
    assert (first.record, first.reason, len(first.detail)) == ("file@12", "truncated_gzip", 500)
    assert second == Quarantined(record="file@40", reason="truncated_gzip", detail="")
    assert ledger.seconds >= 0


def test_nothing_is_visible_before_the_commit_and_an_abandoned_part_leaves_nothing(tmp_path: Path) -> None:
    def fail_after_rows() -> None:
        with Part(NUMBERS, UNIT, tmp_path) as part:
            for number in range(9):
                part.write({"id": "a", "number": number})
            part.beside(tmp_path / "packs", ".tar").write_bytes(b"half")
            assert [name for name in _names(tmp_path) if not name.startswith(".")] == ["packs"]
            raise ValueError("the ninth record")

    with pytest.raises(ValueError, match="ninth"):
        fail_after_rows()
    assert _names(tmp_path) == ["packs"]
    assert _names(tmp_path / "packs") == []


def test_the_file_beside_is_committed_before_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    committed = []
    commit = storage.commit

    def watched(temporary: Path, final: Path) -> None:
        commit(temporary, final)
        committed.append(final.relative_to(tmp_path).as_posix())

    monkeypatch.setattr(part_module, "commit", watched)
    with Part(NUMBERS, UNIT, tmp_path) as part:
        part.beside(tmp_path / "packs", ".tar").write_bytes(b"pack")
        part.write({"id": "a", "number": 1})
    assert committed == [f"packs/00000-{UNIT.key[:16]}.tar", UNIT.file_name]
    assert (tmp_path / committed[0]).read_bytes() == b"pack"


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = iter([True])

    def write(self: Any, data: Any) -> int:
        if not next(room, False):
            raise OSError(28, "No space left on device")
        return len(data)

    monkeypatch.setattr(part_module._DigestingFile, "write", write)
    with pytest.raises(OSError, match="No space"):
        _write(tmp_path, [("a", 1)] * 10)
    assert _names(tmp_path) == []


def test_a_row_that_does_not_fit_its_column_abandons_the_part(tmp_path: Path) -> None:
    with pytest.raises((pa.ArrowException, OverflowError)), Part(NUMBERS, UNIT, tmp_path) as part:
        part.write({"id": "a", "number": 2**70})
    assert _names(tmp_path) == []


def _be_host(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("os.uname", lambda: os.uname_result(("Linux", name, "6", "1", "x86_64")))


def test_sweep_removes_only_what_dead_processes_of_this_host_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    # Nobody fetches it before the end of the test: a zombie, as orphans are in a container without an init.
    zombie = subprocess.Popen(["true"])
    while Path(f"/proc/{zombie.pid}/stat").read_text().rpartition(") ")[2][0] != "Z":
        time.sleep(0.01)
    _be_host(monkeypatch, "stone")
    (tmp_path / "packs").mkdir()
    alive = temporary_path(tmp_path / "a.parquet")
    dead = tmp_path / f".a.parquet.{host()}.{process.pid}.0123abcd.tmp"
    dead_below = tmp_path / "packs" / f".a.tar.{host()}.{process.pid}.0123abcd.tmp"
    dead_too = tmp_path / f".b.parquet.{host()}.{zombie.pid}.0123abcd.tmp"
    kept = [
        alive,
        tmp_path / f".a.parquet.other.{process.pid}.0123abcd.tmp",
        tmp_path / f".a.parquet.mill{host()}.{process.pid}.0123abcd.tmp",
        tmp_path / f".a.parquet.mill.{host()}.x{process.pid}.0123abcd.tmp",
        tmp_path / ".editor.tmp",
        tmp_path / "a.tmp",
    ]
    for path in (dead, dead_below, dead_too, *kept):
        path.touch()
    assert sweep(tmp_path) == 3
    zombie.wait()
    assert not any(path.exists() for path in (dead, dead_below, dead_too))
    assert all(path.exists() for path in kept)


def test_sweep_does_not_take_a_longer_host_name_for_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _be_host(monkeypatch, "mill.stone")
    theirs = temporary_path(tmp_path / "a.parquet")
    mine = theirs.with_name(theirs.name.replace(f".{os.getpid()}.", ".4194999."))
    mine.touch()
    _be_host(monkeypatch, "stone")
    assert sweep(tmp_path) == 0
    _be_host(monkeypatch, "mill.stone")
    assert sweep(tmp_path) == 1


def test_write_file_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "manifest.json"
    write_file(target, b"one")

    def full(path: Path, data: bytes) -> int:
        with contextlib.suppress(FileExistsError):
            path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"manifest\.json: cannot be written \(No space left"):
        write_file(target, b"two")
    assert target.read_text() == "one"
    assert _names(tmp_path) == ["manifest.json"]


def test_write_file_below_a_file_ends_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Not a directory"):
        write_file(tmp_path / "file" / "recipe.toml", b"x")


def test_a_parquet_of_others_is_no_part(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="no ledger in its footer"):
        read_ledger(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="not a part"):
        read_ledger(tmp_path / "gone.parquet")


SPOTS = st.floats(0, 1, exclude_max=True)  # of the file's length, which differs from write to write by its seconds


@in_one_folder
@given(st.booleans(), st.lists(st.tuples(SPOTS, st.integers(1, 255)), min_size=1, max_size=4))
def test_a_damaged_part_gives_a_ledger_or_a_sentence(
    tmp_path: Path, cut: bool, changes: list[tuple[float, int]]
) -> None:
    _write(tmp_path, [("a", 1), ("b", 2)])
    content = bytearray((tmp_path / UNIT.file_name).read_bytes())
    for spot, change in changes:
        content[int(spot * len(content))] ^= change
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(content[: int(changes[0][0] * len(content))] if cut else content)
    with contextlib.suppress(InputError):
        assert isinstance(read_ledger(damaged), Ledger)

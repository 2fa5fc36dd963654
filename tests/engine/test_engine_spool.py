from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from engine_stages import NUMBERS, ListReporter, numbers_units
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carnac.core.errors import OutputError, RunError
from carnac.core.places import place_of
from carnac.engine import spool as spool_module
from carnac.engine.journal import Journal, Watch
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.spool import Spool, spool_path, sweep_spools
from carnac.engine.storage import STALE_SECONDS, scratch, sweep
from carnac.engine.unit import Unit
from carnac.recipe.settings import Limits

UNIT = Unit(name="00000", key="ab" * 32, task=None)
FACTS = st.dictionaries(st.text(max_size=5), st.none() | st.text(max_size=5) | st.integers(-9, 9), max_size=3)
RECORDS = st.lists(st.tuples(FACTS, st.binary(max_size=50)), max_size=6)
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
Records = list[tuple[dict[str, Any], bytes]]


def content(path: Path) -> Records:
    with Spool(path) as spool:
        return [(facts, spool.payload(place)) for facts, place in spool]


def write(path: Path, records: Records) -> None:
    with Spool(path) as spool:
        spool.add(records)


@in_one_folder
@given(st.lists(RECORDS, max_size=4))
def test_what_is_added_comes_back_in_order_at_the_places_that_were_told(tmp_path: Path, groups: list[Records]) -> None:
    path = tmp_path / "spool"
    path.unlink(missing_ok=True)
    every = [record for group in groups for record in group]
    with Spool(path) as spool:
        places = [place for group in groups for place in spool.add(group)]
        assert [spool.payload(place) for place in places] == [payload for _, payload in every]
        assert [(facts, place) for facts, place in spool] == [
            (facts, place) for (facts, _), place in zip(every, places, strict=True)
        ]
    assert content(path) == every


@in_one_folder
@given(RECORDS.filter(bool), st.data())
def test_of_a_file_cut_anywhere_the_whole_records_are_left(
    tmp_path: Path, records: Records, data: st.DataObject
) -> None:
    path = tmp_path / "spool"
    path.unlink(missing_ok=True)
    ends = [0]
    for record in records:
        write(path, [record])
        ends.append(path.stat().st_size)
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(path, cut)
    num_whole = sum(end <= cut for end in ends[1:])
    assert content(path) == records[:num_whole]
    assert path.stat().st_size == ends[num_whole]
    write(path, [({"after": 1}, b"more")])
    assert content(path) == [*records[:num_whole], ({"after": 1}, b"more")]


@in_one_folder
@given(RECORDS, st.binary(min_size=1, max_size=200))
def test_whatever_follows_the_records_is_cut_off(tmp_path: Path, records: Records, rest: bytes) -> None:
    """After a power cut, what was not flushed may be anything, zeros for example."""
    path = tmp_path / "spool"
    path.unlink(missing_ok=True)
    write(path, records)
    for garbage in (rest, bytes(len(rest)), b"\xc5spl" + rest):
        with path.open("ab") as file:
            file.write(garbage)
        assert content(path) == records


@pytest.mark.parametrize("place", range(0, 270, 7))
def test_a_changed_byte_costs_its_record_and_those_after_it(tmp_path: Path, place: int) -> None:
    path = tmp_path / "spool"
    records: Records = [({"number": number}, bytes([number]) * 60) for number in range(3)]
    write(path, records)
    damaged = bytearray(path.read_bytes())
    length = len(damaged) // 3
    assert 3 * length == len(damaged)
    damaged[place] ^= 0x10
    path.write_bytes(damaged)
    assert content(path) == records[: place // length]


def test_a_large_group_and_a_large_payload(tmp_path: Path) -> None:
    records: Records = [({"number": number}, b"x" * number) for number in range(2000)]
    records.append(({}, random.Random(0).randbytes(5_000_000)))
    write(tmp_path / "spool", records)
    assert content(tmp_path / "spool") == records


def test_a_system_that_writes_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev

    def stingy(file: int, buffers: list[Any], offset: int) -> int:
        return real(file, [memoryview(buffers[0])[:7]], offset)

    monkeypatch.setattr(os, "pwritev", stingy)
    records: Records = [({"number": number}, b"0123456789" * number) for number in range(10)]
    write(tmp_path / "spool", records)
    assert content(tmp_path / "spool") == records


def test_a_group_is_flushed_before_it_counts_and_flushed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    real = os.fdatasync

    def sync(file: int) -> None:
        flushed.append(os.fstat(file).st_size)
        real(file)

    monkeypatch.setattr(os, "fdatasync", sync)
    with Spool(tmp_path / "spool") as spool:
        spool.add([({}, b"1" * 100), ({}, b"2" * 100)])
        assert flushed == [(tmp_path / "spool").stat().st_size]


def test_what_the_disk_refused_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "spool"
    with Spool(path) as spool:
        spool.add([({"number": 0}, b"kept")])
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", _full)
            with pytest.raises(OSError, match="No space left"):
                spool.add([({"number": 1}, b"lost" * 100)])
        assert [facts for facts, _ in spool] == [{"number": 0}]
        spool.add([({"number": 2}, b"kept too")])
    assert content(path) == [({"number": 0}, b"kept"), ({"number": 2}, b"kept too")]


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_file_that_is_cut_while_it_is_in_use_is_no_silent_loss(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool") as spool:
        (place,) = spool.add([({}, b"x" * 100)])
        os.truncate(tmp_path / "spool", 50)
        with pytest.raises(RunError, match="cut short while it is in use"):
            spool.payload(place)


def test_two_at_once_are_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    script = "import sys; from pathlib import Path; from carnac.engine.spool import Spool\n"
    script += "with Spool(Path(sys.argv[1])): print('open', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "open\n"
    with pytest.raises(OutputError, match="another process is writing it"), Spool(path):
        pass
    os.kill(other.pid, signal.SIGKILL)
    other.communicate()
    write(path, [({}, b"free again")])


WRITER = """
import json, os, sys
from pathlib import Path
from carnac.engine.spool import Spool
with Spool(Path(sys.argv[1])) as spool:
    number = sum(1 for _ in spool)
    while True:
        group = [({"number": number + place}, bytes([number % 256]) * 3000) for place in range(number % 4 + 1)]
        spool.add(group)
        number += len(group)
        os.write(1, f"{number}\\n".encode())
"""


def test_of_a_killed_writer_everything_that_it_was_told_is_safe(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    draw = random.Random(0)
    safe = 0
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        told = [writer.stdout.readline()]
        time.sleep(draw.random() * 0.05)
        os.kill(writer.pid, signal.SIGKILL)
        told += [line for line in writer.communicate()[0].splitlines() if line]
        records = content(path)
        assert len(records) >= max(int(line) for line in told) > safe
        assert [facts["number"] for facts, _ in records] == list(range(len(records)))
        safe = len(records)


def test_the_spool_of_a_unit_survives_its_failure_and_a_sweep_and_goes_when_it_is_done(tmp_path: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), Part(NUMBERS, UNIT, tmp_path) as part:
        write(part.spool(), [({"kept": True}, b"")])
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == [f".{UNIT.stem}.spool"]
    sweep(tmp_path)
    sweep_spools(tmp_path, [f".{UNIT.stem}.spool", "other-0000.parquet"])
    with Part(NUMBERS, UNIT, tmp_path) as part:
        assert content(part.spool()) == [({"kept": True}, b"")]
        part.write({"id": "a", "number": 1})
    assert [path.name for path in tmp_path.iterdir()] == [UNIT.file_name]


def test_a_run_removes_the_spools_of_what_is_done_and_those_long_forgotten(tmp_path: Path) -> None:
    units = numbers_units(tmp_path / "log", [0, 10])
    runner = Runner(reporter=ListReporter())
    runner.do(NUMBERS, units, tmp_path / "out")
    done, fresh, old = (tmp_path / "out" / f".{stem}.spool" for stem in (units[0].stem, "fresh-00", "old-00"))
    for path in (done, fresh, old):
        write(path, [({}, b"x")])
    week_ago = time.time() - STALE_SECONDS - 60
    os.utime(old, (week_ago, week_ago))
    runner.do(NUMBERS, units, tmp_path / "out")
    assert [path.exists() for path in (done, fresh, old)] == [False, True, False]


def test_what_goes_to_a_store_is_spooled_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "scratch", lambda: tmp_path)
    one, other = (place_of(f"s3://bucket/{name}") for name in ("one", "other"))
    paths = [spool_path(folder / UNIT.file_name) for folder in (one, other)]
    assert {path.parent for path in paths} == {tmp_path}
    assert paths[0] != paths[1]
    for path in paths:
        write(path, [({}, b"x")])
    sweep_spools(one, [])
    assert [path.exists() for path in paths] == [True, True]
    sweep_spools(one, [UNIT.file_name])
    assert [path.exists() for path in paths] == [False, True]


def test_a_trial_of_one_record_leaves_no_spool(tmp_path: Path) -> None:
    watch = Watch(journal=Journal(), limits=Limits(), culprits={}, only=b"one")
    with Part(NUMBERS, UNIT, tmp_path, watch) as part:
        path = part.spool()
        assert path.parent == scratch()
        write(path, [({}, b"x")])
    assert not path.exists()
    assert not list(tmp_path.iterdir())


def test_a_trial_of_one_record_finds_what_its_unit_received(tmp_path: Path) -> None:
    watch = Watch(journal=Journal(), limits=Limits(), culprits={}, only=b"one")
    write(spool_path(tmp_path / UNIT.file_name), [({}, b"x")])
    with Part(NUMBERS, UNIT, tmp_path, watch) as part:
        assert part.spool() == spool_path(tmp_path / UNIT.file_name)
        assert (part.is_wanted("one"), part.is_wanted("other")) == (True, False)
    assert [path.name for path in tmp_path.iterdir()] == [f".{UNIT.stem}.spool"]


def test_facts_are_json_that_a_reader_understands(tmp_path: Path) -> None:
    write(tmp_path / "spool", [({"url": "http://h/\u00e9\ud800"}, b"")])
    assert (
        json.dumps({"url": "http://h/\u00e9\ud800"}, separators=(",", ":")).encode()
        in (tmp_path / "spool").read_bytes()
    )

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from engine_stages import NUMBERS, ListReporter, Obstacle, executions, numbers_units

from carnac.core.errors import OutputError, RunError
from carnac.engine.guard import Done
from carnac.engine.local import run_units
from carnac.engine.manifest import MANIFEST, read_manifest
from carnac.engine.run import EarlyEnd, Runner, available_workers
from carnac.engine.state import STATE
from carnac.engine.storage import host
from carnac.engine.unit import Unit


def _run(units: list[Unit], folder: Path, workers: int = 2, *, dry_run: bool = False) -> tuple[str, list[str]]:
    reporter = ListReporter()
    runner = Runner(reporter=reporter, workers=workers, dry_run=dry_run)
    entries = runner.do(NUMBERS, units, folder)
    return runner.publish(NUMBERS, folder, entries, {}, {}).digest, reporter.lines


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def test_one_and_three_workers_give_the_same_manifest(tmp_path: Path) -> None:
    units = numbers_units(tmp_path / "log", range(0, 70, 10))
    one, _ = _run(units, tmp_path / "one", workers=1)
    three, lines = _run(units, tmp_path / "three", workers=3)
    assert one == three
    assert lines[0] == "numbers: task of 7, 0 done"
    assert lines[1].startswith("numbers: 35 rows, 0.0 MB, 7 records lost (7 too_odd) (7 of 7 units done in ")
    assert _files(tmp_path / "one") == _files(tmp_path / "three") == {unit.file_name for unit in units} | {MANIFEST}


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    units = numbers_units(tmp_path / "log", [0, 10, 20])
    first, _ = _run(units[:2], tmp_path / "out")
    both, _ = _run(units, tmp_path / "out")
    again, lines = _run(units, tmp_path / "out")
    assert executions(tmp_path / "log") == {"00000": 1, "00001": 1, "00002": 1}
    assert lines == ["numbers: 15 rows, 0.0 MB, 3 records lost (3 too_odd) (3 units, all done before)"]
    assert first != both == again


def test_a_changed_setting_does_all_again_and_changing_it_back_does_nothing(tmp_path: Path) -> None:
    folder, log = tmp_path / "out", tmp_path / "log"
    before, _ = _run(numbers_units(log, [0, 10]), folder)
    changed, _ = _run(numbers_units(log, [0, 10], shift=1), folder)
    assert read_manifest(folder).digest == changed != before
    back, lines = _run(numbers_units(log, [0, 10]), folder)
    assert read_manifest(folder).digest == back == before
    assert len(lines) == 1
    assert executions(log) == {"00000": 2, "00001": 2}


def test_results_come_as_they_are_done_and_units_stay_in_order(tmp_path: Path) -> None:
    units = numbers_units(tmp_path / "log", range(0, 40, 10))
    slow = [Unit(name=units[0].name, key=units[0].key, task=replace(units[0].task, pause_seconds=5.0)), *units[1:]]
    folder = tmp_path / "out"
    folder.mkdir()
    ends = [event.unit for event in run_units(NUMBERS, slow, folder, workers=2) if isinstance(event, Done)]
    assert sorted(ends) == ["00000", "00001", "00002", "00003"]
    assert ends[-1] == "00000"
    runner = Runner(reporter=ListReporter())
    assert [entry.unit for entry in runner.do(NUMBERS, slow, folder)] == ["00000", "00001", "00002", "00003"]


@pytest.mark.parametrize(
    ("obstacle", "error", "message"),
    [
        (
            "disk_full",
            OutputError,
            r"numbers, unit 00001: No space left on device \(/somewhere/full\)\. Nothing of the",
        ),
        ("bad_input", RunError, r"1 of 5 units failed .* Unit 00001: the input of this unit cannot be read"),
        (
            "stray_record_error",
            RunError,
            r"numbers: 1 of 5 units failed \(00001\), the others are done\. Unit 00001: RecordError: not_an_image",
        ),
    ],
)
def test_an_obstacle_ends_in_a_sentence_and_the_next_run_does_the_rest(
    tmp_path: Path, obstacle: Obstacle, error: type[Exception], message: str
) -> None:
    folder, log = tmp_path / "out", tmp_path / "log"
    starts = range(0, 50, 10)
    # As in life: the obstacle goes away, the key of the unit stays.
    clear = numbers_units(log, starts)
    units = numbers_units(log, starts, obstacle=obstacle, obstacle_at=1)
    with pytest.raises(error, match=message):
        _run(units, folder, workers=1)
    assert not (folder / MANIFEST).exists()
    committed = {path.name for path in folder.glob("*.parquet")}
    assert units[0].file_name in committed
    assert units[1].file_name not in committed
    before = executions(log)
    digest, _ = _run(clear, folder, workers=2)
    assert digest == _run(clear, tmp_path / "uninterrupted")[0]
    assert _files(folder) == {unit.file_name for unit in clear} | {MANIFEST}
    for unit in clear:
        again = 0 if unit.file_name in committed else 1
        assert executions(log)[unit.name] == before.get(unit.name, 0) + again + 1  # and once for the uninterrupted run


def test_an_error_of_a_unit_leaves_nothing_half_written(tmp_path: Path) -> None:
    units = numbers_units(tmp_path / "log", [0], obstacle="disk_full")
    with pytest.raises(OutputError):
        _run(units, tmp_path / "out")
    assert _files(tmp_path / "out") == {STATE}


def test_a_worker_that_is_killed_is_followed_by_another(tmp_path: Path) -> None:
    units = numbers_units(tmp_path / "log", range(0, 50, 10), obstacle="kill_once", obstacle_at=1)
    digest, _ = _run(units, tmp_path / "out")
    assert executions(tmp_path / "log") == {unit.name: 2 if unit.name == "00001" else 1 for unit in units}
    assert digest == _run(numbers_units(tmp_path / "log", range(0, 50, 10)), tmp_path / "uninterrupted")[0]
    assert _files(tmp_path / "out") == {unit.file_name for unit in units} | {MANIFEST}


def test_an_output_below_a_file_ends_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    units = numbers_units(tmp_path / "log", [0])
    with pytest.raises(OutputError, match=r"file/out: cannot be created \(Not a directory\)\. Choose another output"):
        _run(units, tmp_path / "file" / "out")
    with pytest.raises(OutputError, match=r"file: cannot be created \(File exists\)"):
        _run(units, tmp_path / "file")
    assert executions(tmp_path / "log") == {}


def test_an_output_that_may_not_be_written_ends_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root, who runs tests in containers, may write anywhere.
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(OutputError, match="out: not writable by this user"):
        _run(numbers_units(tmp_path / "log", [0]), tmp_path / "out")


def test_a_dry_run_says_what_is_to_do_and_does_nothing(tmp_path: Path) -> None:
    units = numbers_units(tmp_path / "log", [0, 10])
    reporter = ListReporter()
    runner = Runner(reporter=reporter, dry_run=True)
    with pytest.raises(EarlyEnd):
        runner.do(NUMBERS, units, tmp_path / "out")
    assert reporter.lines == [f"numbers: 2 units, 0 done, 2 to do -> {tmp_path / 'out'}"]
    assert not (tmp_path / "out").exists()
    assert executions(tmp_path / "log") == {}


def test_a_dry_run_over_done_work_changes_no_file(tmp_path: Path) -> None:
    units = numbers_units(tmp_path / "log", [0, 10])
    digest, _ = _run(units, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / MANIFEST).unlink()
    dry, lines = _run(units, tmp_path / "out", dry_run=True)
    assert dry == digest
    assert lines == [f"numbers: 2 units, 2 done, 0 to do -> {tmp_path / 'out'}"]
    del before[tmp_path / "out" / MANIFEST]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_a_run_sweeps_what_a_dead_one_left(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    stray = folder / f".00000-x.parquet.{host()}.4194999.0123abcd.tmp"
    stray.touch()
    _run(numbers_units(tmp_path / "log", [0]), folder)
    assert not stray.exists()


def test_no_units_make_an_empty_manifest(tmp_path: Path) -> None:
    _run([], tmp_path / "out")
    assert read_manifest(tmp_path / "out", "numbers").parts == ()


def test_workers_are_the_cores_that_this_process_may_use() -> None:
    assert available_workers() == len(os.sched_getaffinity(0)) >= 1

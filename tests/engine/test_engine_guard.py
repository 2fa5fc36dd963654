"""Records that harm their process, in real children: each costs itself, and nothing else."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from engine_hazards import STAGE, begun, hazard_unit, record_unit, tries
from engine_stages import ListReporter

from carnac.core.errors import OutputError, RunError
from carnac.engine.guard import MAX_CULPRITS, MAX_DEATHS, culprits_file, read_culprits
from carnac.engine.ledger import Quarantined, read_ledger
from carnac.engine.local import MEMORY_SHARE, memory_bytes, with_memory
from carnac.engine.manifest import MANIFEST
from carnac.engine.run import MAX_FAILED_UNITS, Runner
from carnac.engine.state import STATE, read_state
from carnac.engine.storage import write_file
from carnac.engine.unit import Unit
from carnac.recipe.settings import Limits

PATIENCE_SECONDS = 60.0  # for what takes a second or two on a quiet machine; only a failure waits so long
# Tight in what a hazard takes without bounds, wide in the rest: on a busy machine two seconds of CPU take many, and to
# fill 500 MB has taken half a second.
LIMITS = Limits(cpu_seconds=2.0, wait_seconds=600, memory_mb=500)
WAITING = Limits(cpu_seconds=60, wait_seconds=2, memory_mb=500)
PATIENT = Limits(cpu_seconds=60, wait_seconds=600, memory_mb=2000)

# Hazard -> reason and detail in the ledger.
DEADLY = {
    "memory_error": ("out_of_memory", r"it asked for more memory than there was \(MemoryError\)"),
    "segfault": ("crashed", r"its process died \(SIGSEGV\)"),
    "exit": ("crashed", r"its process died \(exit 3\)"),
    "sys_exit": ("crashed", r"its process died \(exit 0\)"),
    "abort": ("crashed", r"its process died \(SIGABRT\)"),
    "spin": ("too_slow", r"it took more than 2 s of CPU time"),
    "spin_in_c": ("too_slow", r"it took more than 2 s of CPU time"),
    "spin_in_threads": ("too_slow", r"it took more than 2 s of CPU time"),
    "sleep": ("stuck", r"it was not done after 2 s"),
    "read_a_pipe": ("stuck", r"it was not done after 2 s"),
    "close_all_and_sleep": ("stuck", r"it was not done after 2 s"),
    "eat_fast": ("out_of_memory", r"its process took more than 500 MB"),
    "eat_slowly": ("out_of_memory", r"its process took more than 500 MB"),
    "killed_always": ("killed", r"its process was killed from outside, again and again; short of memory\?"),
}
RAISING = {
    "raises": ("raised", r"ValueError: invalid literal for int\(\) .*'three' \(engine_hazards\.py:\d+\)"),
    "record_error": ("too_odd", r"an odd record"),
    "cannot_decode": ("raised", r"OSError: cannot identify image file \(engine_hazards\.py:\d+\)"),
    "unprintable": ("raised", r"UnprintableError: its message raised KeyError \(engine_hazards\.py:\d+\)"),
}


def run(units: list[Unit], folder: Path, *, workers: int = 2, limits: Limits = PATIENT) -> tuple[str, list[str]]:
    """Do units in real children; return the manifest's digest and what was said."""
    reporter = ListReporter()
    runner = Runner(reporter=reporter, workers=workers, limits=limits)
    entries = runner.do(STAGE, units, folder)
    return runner.publish(STAGE, folder, entries, {}, {}).digest, reporter.lines


def rows(folder: Path, unit: Unit) -> list[str]:
    return [str(name) for name in pq.read_table(folder / unit.file_name)["record"].to_pylist()]


def quarantine(folder: Path, unit: Unit) -> dict[str, Quarantined]:
    return {lost.record: lost for lost in read_ledger(folder / unit.file_name).quarantine}


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def whole(units: list[Unit]) -> set[str]:
    return {MANIFEST, *(unit.file_name for unit in units)}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Say whether a process is dead, fetched or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@dataclass(frozen=True)
class Harmed:
    """A run over one unit per hazard, each record of it between sound ones."""

    units: list[Unit]
    folder: Path
    log: Path
    digest: str


def harm(root: Path, workers: int, backwards: bool = False) -> Harmed:
    units = [hazard_unit(root / "log", hazard, ["sound", hazard, "sound"]) for hazard in (*DEADLY, *RAISING)]
    # Each unit has deaths of its own to count.
    for unit in units:
        (root / "log" / unit.name).mkdir()
    units = [record_unit(root / "log" / unit.name, unit.name, unit.task.records) for unit in units]
    order = units[::-1] if backwards else units
    stuck = [unit for unit in order if DEADLY.get(unit.name, ("",))[0] == "stuck"]
    run(stuck, root / "out", workers=workers, limits=WAITING)
    digest, _ = run(order, root / "out", workers=workers, limits=LIMITS)
    return Harmed(units=units, folder=root / "out", log=root / "log", digest=digest)


@pytest.fixture(scope="module")
def harmed(tmp_path_factory: pytest.TempPathFactory) -> Harmed:
    """A run with two workers over every hazard."""
    return harm(tmp_path_factory.mktemp("harmed"), 2)


@pytest.mark.parametrize(("hazard", "reason", "detail"), [(hazard, *found) for hazard, found in DEADLY.items()])
def test_a_record_that_ends_its_process_is_named_and_costs_itself(
    harmed: Harmed, hazard: str, reason: str, detail: str
) -> None:
    unit = next(unit for unit in harmed.units if unit.name == hazard)
    lost = quarantine(harmed.folder, unit)
    assert list(lost) == [f"{hazard}@1"]
    assert lost[f"{hazard}@1"].reason == reason
    assert re.fullmatch(detail, lost[f"{hazard}@1"].detail)
    assert rows(harmed.folder, unit) == [f"{hazard}@0", f"{hazard}@2"]
    assert read_ledger(harmed.folder / unit.file_name).counts == {f"lost.{reason}": 1}
    assert tries(harmed.log / hazard, f"{hazard}-1") == (3 if reason == "killed" else 2), "once more, alone"


@pytest.mark.parametrize(("hazard", "reason", "detail"), [(hazard, *found) for hazard, found in RAISING.items()])
def test_a_record_that_raises_is_named_and_costs_itself_and_no_process(
    harmed: Harmed, hazard: str, reason: str, detail: str
) -> None:
    unit = next(unit for unit in harmed.units if unit.name == hazard)
    lost = quarantine(harmed.folder, unit)[f"{hazard}@1"]
    assert lost.reason == reason
    assert re.fullmatch(detail, lost.detail)
    assert rows(harmed.folder, unit) == [f"{hazard}@0", f"{hazard}@2"]
    assert begun(harmed.log / hazard, hazard) == 1


def test_after_all_that_nothing_stray_is_left(harmed: Harmed) -> None:
    assert files(harmed.folder) == whole(harmed.units)
    assert not [child for child in psutil.Process().children(recursive=True) if child.name() == "carnac"]


def test_another_order_of_units_and_number_of_workers_give_the_same_rows(harmed: Harmed, tmp_path: Path) -> None:
    other = harm(tmp_path, 3, backwards=True)
    for unit in harmed.units:
        here, there = (read_ledger(folder / unit.file_name) for folder in (harmed.folder, other.folder))
        assert (here.digest, here.quarantine, here.counts) == (there.digest, there.quarantine, there.counts)
    assert files(other.folder) == files(harmed.folder)


def test_culprits_known_beforehand_are_not_tried_and_the_rows_are_the_same(harmed: Harmed, tmp_path: Path) -> None:
    units = [record_unit(tmp_path / unit.name, unit.name, unit.task.records) for unit in harmed.units]
    folder = tmp_path / "out"
    folder.mkdir()
    for unit in units:
        if unit.name in DEADLY:
            lost = [asdict(culprit) for culprit in quarantine(harmed.folder, unit).values()]
            write_file(culprits_file(folder, unit), json.dumps(lost).encode())
    digest, _ = run(units, folder, limits=LIMITS)
    assert digest == harmed.digest
    assert files(folder) == whole(units)
    for unit in units:
        assert begun(tmp_path / unit.name, unit.name) == 1
        assert tries(tmp_path / unit.name, f"{unit.name}-1") == (0 if unit.name in DEADLY else 1)
        assert quarantine(folder, unit) == quarantine(harmed.folder, unit)


def test_a_disk_that_is_full_is_no_fault_of_the_record(tmp_path: Path) -> None:
    unit = hazard_unit(tmp_path / "log", "a", ["sound", "disk_full", "sound"])
    with pytest.raises(OutputError, match=r"hazards, unit a: No space left on device \(/somewhere/full\)\. Nothing of"):
        run([unit], tmp_path / "out")
    assert files(tmp_path / "out") == {STATE}


@pytest.fixture
def busy() -> Iterator[None]:
    """Twice as many processes as cores that do nothing but take time."""
    num_loops = 2 * len(os.sched_getaffinity(0))
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(num_loops)]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


@pytest.mark.usefixtures("busy")
def test_a_busy_machine_costs_no_record_its_time(tmp_path: Path) -> None:
    units = [hazard_unit(tmp_path / "log", name, ["sound", "half_a_second"]) for name in ("a", "b", "c", "d")]
    run(units, tmp_path / "out", workers=4, limits=Limits(cpu_seconds=1.0, wait_seconds=600))
    assert [rows(tmp_path / "out", unit) for unit in units] == [[f"{name}@0", f"{name}@1"] for name in "abcd"]
    assert [begun(tmp_path / "log", name) for name in "abcd"] == [1, 1, 1, 1]


@pytest.mark.parametrize(("hazard", "deaths"), [("killed_once", 1), ("killed_twice", 2), ("server_killed", 1)])
def test_a_kill_from_outside_costs_no_record(tmp_path: Path, hazard: str, deaths: int) -> None:
    unit = hazard_unit(tmp_path / "log", "a", ["sound", hazard, "sound"])
    run([unit], tmp_path / "out")
    assert rows(tmp_path / "out", unit) == ["a@0", "a@1", "a@2"]
    assert quarantine(tmp_path / "out", unit) == {}
    assert begun(tmp_path / "log", "a") == deaths + 1
    assert files(tmp_path / "out") == whole([unit])


def test_a_fork_server_that_dies_takes_other_units_with_it_and_nothing_is_lost(tmp_path: Path) -> None:
    units = [hazard_unit(tmp_path / name, name, ["sound", "half_a_second"]) for name in ("b", "c", "d")]
    units.insert(0, hazard_unit(tmp_path / "a", "a", ["server_killed"]))
    run(units, tmp_path / "out", workers=4)
    assert [rows(tmp_path / "out", unit) for unit in units] == [["a@0"]] + [[f"{n}@0", f"{n}@1"] for n in "bcd"]
    assert files(tmp_path / "out") == whole(units)


def test_three_culprits_in_one_unit(tmp_path: Path) -> None:
    unit = hazard_unit(tmp_path / "log", "a", ["segfault", "sound", "spin", "memory_error", "raises", "sound"])
    run([unit], tmp_path / "out", limits=LIMITS)
    lost = quarantine(tmp_path / "out", unit)
    assert {record: culprit.reason for record, culprit in lost.items()} == {
        "a@0": "crashed",
        "a@2": "too_slow",
        "a@3": "out_of_memory",
        "a@4": "raised",
    }
    assert list(lost) == ["a@0", "a@2", "a@3", "a@4"], "in the order of the records"
    assert rows(tmp_path / "out", unit) == ["a@1", "a@5"]


def test_a_sentence_that_a_unit_fails_with_ends_with_one_full_stop(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"Unit a: the input is wrong\. Mend it\. What is done is kept"):
        run([hazard_unit(tmp_path / "a", "a", ["sound"], between="input_error")], tmp_path / "out")


def test_a_unit_that_dies_between_records_fails_and_the_others_are_done(tmp_path: Path) -> None:
    units = [hazard_unit(tmp_path / name, name, ["sound", "exit"]) for name in ("a", "b", "c")]
    units[1] = hazard_unit(tmp_path / "b", "b", ["sound"], between="abort")
    with pytest.raises(RunError) as raised:
        run(units, tmp_path / "out")
    why = f"its process died {MAX_DEATHS} times outside any record: its process died (SIGABRT)"
    assert str(raised.value) == (
        f"hazards: 1 of 3 units failed (b), the others are done. Unit b: {why}. "
        "What is done is kept; the same command tries the failed ones again."
    )
    assert begun(tmp_path / "b", "b") == MAX_DEATHS
    assert files(tmp_path / "out") == {units[0].file_name, units[2].file_name, STATE}
    state = read_state(tmp_path / "out")
    assert state is not None
    assert [(failed.unit, failed.why) for failed in state.failed] == [("b", why)]
    assert (state.num_done, state.running) == (2, ())
    # As in life: what broke it goes away, the key of the unit stays.
    units[1] = hazard_unit(tmp_path / "b", "b", ["sound"])
    run(units, tmp_path / "out")
    assert files(tmp_path / "out") == whole(units)
    assert begun(tmp_path / "a", "a") == 3, "two deaths, and done: nothing of it again"


def test_of_a_stage_of_which_no_unit_works_the_rest_is_not_tried(tmp_path: Path) -> None:
    units = [hazard_unit(tmp_path / "log", f"u{n}", [], between="raises") for n in range(2 * MAX_FAILED_UNITS)]
    with pytest.raises(RunError, match=rf"hazards: {MAX_FAILED_UNITS} of 10 units failed .*, 5 were not tried\. Unit"):
        run(units, tmp_path / "out", workers=1)
    assert sum(begun(tmp_path / "log", unit.name) for unit in units) <= MAX_FAILED_UNITS + 1


def test_a_unit_of_too_many_bad_records_stops_the_run_and_says_why(tmp_path: Path) -> None:
    bad = ["raises"] * 3 + ["record_error"] * 2 + ["exit"] * 2 + ["segfault"]
    unit = hazard_unit(tmp_path / "log", "a", ["sound"] * 2 + bad + ["sound"] * 6)
    with pytest.raises(RunError) as raised:
        run([unit], tmp_path / "out", limits=Limits(max_lost_share=0.4, min_lost=8))
    sentence = str(raised.value)
    assert (
        "Unit a: 8 of 16 records were lost (3 raised, 3 crashed, 2 too_odd); at most 40% may be. Such as " in sentence
    )
    assert "Mend what is wrong, or raise limits.max_lost_share in the recipe." in sentence
    run([unit], tmp_path / "out", limits=Limits(max_lost_share=0.8, min_lost=8))
    assert len(rows(tmp_path / "out", unit)) == 8


def test_a_bad_beginning_does_not_condemn_a_unit_and_a_bad_tenfold_does_before_its_end(tmp_path: Path) -> None:
    limits = Limits(max_lost_share=0.5, min_lost=3)
    late = hazard_unit(tmp_path / "log", "a", ["raises"] * 20 + ["sound"] * 21)
    run([late], tmp_path / "out", limits=limits)
    assert len(rows(tmp_path / "out", late)) == 21
    early = hazard_unit(tmp_path / "log", "b", ["raises"] * 40 + ["sound"] * 100)
    with pytest.raises(RunError, match="30 of 30 records were lost"):
        run([early], tmp_path / "out", limits=limits)


def test_a_run_of_too_many_bad_records_stops_and_says_why(tmp_path: Path) -> None:
    units = [hazard_unit(tmp_path / "log", f"u{n}", ["sound", "raises", "record_error"]) for n in range(20)]
    with pytest.raises(RunError) as raised:
        run(units, tmp_path / "out", workers=1, limits=Limits(max_lost_share=0.5, min_lost=3))
    assert re.fullmatch(
        r"hazards: \d+ of \d+ records were lost \(\d+ .*, \d+ .*\); at most 50% may be\b.*", str(raised.value)
    )
    assert "raised" in str(raised.value)
    assert "too_odd" in str(raised.value)
    done = len(list((tmp_path / "out").glob("*.parquet")))
    assert 14 <= done < 20, "stopped when it was clear, not at the end"


def test_too_many_culprits_stop_the_run_and_say_how_to_look_at_one(tmp_path: Path) -> None:
    unit = hazard_unit(tmp_path / "log", "a", ["exit"] * (MAX_CULPRITS + 2) + ["sound"] * 30)
    with pytest.raises(RunError) as raised:
        run([unit], tmp_path / "out")
    assert (
        f"Unit a: more than {MAX_CULPRITS} records ended their process (21 crashed). One of them again: "
        f"carnac run RECIPE --record 'a@{MAX_CULPRITS}'. If their limits are too tight, raise them under [limits]; to "
        f"try them all again, remove {culprits_file(tmp_path / 'out', unit)}."
    ) in str(raised.value)
    assert len(read_culprits(tmp_path / "out", unit)) == MAX_CULPRITS + 1


def test_the_memory_of_a_worker_is_by_default_its_share_of_the_machine() -> None:
    limits = [with_memory(Limits(), workers).memory_mb for workers in (1, 4)]
    assert limits[0] is not None
    assert limits[1] is not None
    assert limits[0] * 1e6 == pytest.approx(memory_bytes() * MEMORY_SHARE, rel=0.01)
    assert limits[1] * 4 == pytest.approx(limits[0], rel=0.01)
    assert memory_bytes() <= psutil.virtual_memory().total
    assert with_memory(Limits(memory_mb=100), 4).memory_mb == 100


SCRIPT = Path(__file__).parent / "engine_script.py"


def start(output: Path, log: Path, *hazards: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, str(SCRIPT), "hazards", str(output), str(log), ",".join(hazards)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_culprits_found_before_a_kill_of_the_whole_run_need_not_be_found_again(tmp_path: Path) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    hazards = ("sound", "exit", "segfault", "wait", "sound")
    with start(output, log, *hazards) as process:
        wait_until(lambda: tries(log, "a-3") == 1)
        process.kill()
    unit = hazard_unit(log, "a", hazards)
    assert [culprit.record for culprit in read_culprits(output, unit).values()] == ["a@1", "a@2"]
    (log / "go").touch()
    digest, _ = run([unit], output)
    assert [tries(log, f"a-{number}") for number in (1, 2)] == [2, 2]
    assert files(output) == whole([unit])
    shutil.rmtree(log)
    (fresh := tmp_path / "fresh").mkdir()
    unit = hazard_unit(log, "a", hazards)
    (log / "go").touch()
    assert run([unit], fresh)[0] == digest


@pytest.mark.parametrize("hazard", ["spin_in_c", "sleep", "spin_in_threads"])
def test_no_orphan_works_on_after_a_kill_of_its_parent(tmp_path: Path, hazard: str) -> None:
    with start(tmp_path / "out", tmp_path / "log", "sound", hazard) as process:
        wait_until(lambda: tries(tmp_path / "log", "a-1") == 1)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 3, "a fork server, a resource tracker and a worker"
        process.kill()
    wait_until(lambda: all(is_gone(member.pid) for member in family))


def test_many_units_leave_no_file_open_and_no_process_behind(tmp_path: Path) -> None:
    warm = [hazard_unit(tmp_path / "warm", f"w{n}", ["sound"]) for n in range(4)]
    run(warm, tmp_path / "out", workers=2)
    me = psutil.Process()
    opened, family = me.num_fds(), len(me.children(recursive=True))
    servers = [child.num_fds() for child in me.children()]
    units = [hazard_unit(tmp_path / "log", f"u{n}", ["exit" if n % 20 == 0 else "sound"]) for n in range(100)]
    run(units, tmp_path / "out2", workers=2)
    assert me.num_fds() == opened
    assert len(me.children(recursive=True)) == family
    assert [child.num_fds() for child in me.children()] == servers
    assert multiprocessing.active_children() == []


def test_an_interrupt_from_outside_at_any_record_ends_its_children(tmp_path: Path) -> None:
    with start(tmp_path / "out", tmp_path / "log", "sound", "spin_in_c") as process:
        wait_until(lambda: tries(tmp_path / "log", "a-1") == 1)
        family = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGINT)
        said, complaints = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, said, complaints) == (130, "", "")
    wait_until(lambda: all(is_gone(member.pid) for member in family))
    assert files(tmp_path / "out") == {STATE}


def test_a_scratch_folder_of_any_length_will_do(tmp_path: Path) -> None:
    folder = tmp_path / ("y" * 100)
    folder.mkdir(parents=True)
    arguments = [sys.executable, str(SCRIPT), str(tmp_path / "out"), str(tmp_path / "log"), "2", "1", "0", "0"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    ran = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert list(folder.iterdir()) == []

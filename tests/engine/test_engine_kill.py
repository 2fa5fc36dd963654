"""Real runs in processes of their own, really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_stages import NUMBERS, ListReporter, executions, numbers_units

from carnac.engine.local import do_unit
from carnac.engine.manifest import MANIFEST, collect_parts, read_manifest
from carnac.engine.run import Runner

SCRIPT = Path(__file__).parent / "engine_script.py"
PATIENCE_SECONDS = 60.0  # for what takes a second or two on a quiet machine; only a failure waits so long


_Process = subprocess.Popen[str]


def _start(output: Path, log: Path, *, units: int, workers: int = 2, shift: int = 0, pause: float = 0.0) -> _Process:
    arguments = [sys.executable, str(SCRIPT), str(output), str(log), *map(str, (units, workers, shift, pause))]
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _digest(process: _Process) -> str:
    output, complaints = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, complaints
    return output.strip()


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _parent(pid: int) -> int | None:
    """Return the parent of a process; None for one that is gone or a zombie that nobody fetched."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(parent)


def _descendants(root: int) -> set[int]:
    parents = {int(path.name): _parent(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdecimal()}
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


def _uninterrupted(folder: Path, num_units: int, shift: int = 0) -> str:
    """Do in this process what the script does; return the digest."""
    folder.mkdir()
    units = numbers_units(folder.parent / "whole_log", range(0, 10 * num_units, 10), shift=shift)
    for unit in units:
        do_unit(NUMBERS, unit, folder)
    runner = Runner(reporter=ListReporter())
    return runner.publish(NUMBERS, folder, collect_parts(folder, units), {"shift": shift}, {}).digest


def _num_committed(output: Path) -> int:
    return len(list(output.glob("*.parquet")))


def test_a_killed_run_leaves_no_process_behind_and_the_next_one_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    whole = _uninterrupted(tmp_path / "whole", 6)
    with _start(output, log, units=6, pause=0.6) as process:
        _wait_until(lambda: _num_committed(output) >= 2 and len(executions(log)) > _num_committed(output))
        workers = _descendants(process.pid)
        assert len(workers) >= 3, "a fork server and two workers"
        process.kill()
        process.wait()
    _wait_until(lambda: not [pid for pid in workers if _parent(pid) is not None])
    done = _num_committed(output)
    time.sleep(1.0)  # longer than a unit: an orphan that went on would commit now
    assert _num_committed(output) == done < 6
    assert not (output / MANIFEST).exists()
    before = executions(log)

    assert _digest(_start(output, log, units=6)) == whole
    assert read_manifest(output).digest == whole
    assert sum(executions(log).values()) - sum(before.values()) == 6 - done
    assert {path.name for path in output.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_a_run_killed_again_and_again_at_any_moment_ends_right(tmp_path: Path) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    for delay in (0.4, 0.7, 1.0):
        with _start(output, log, units=5, pause=0.1) as process:
            time.sleep(delay)
            os.killpg(process.pid, signal.SIGKILL)
    whole = _uninterrupted(tmp_path / "whole", 5)
    assert _digest(_start(output, log, units=5)) == whole
    assert {path.name for path in output.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


@pytest.mark.parametrize("whole_group", [True, False], ids=["as Ctrl-C does", "the parent only"])
def test_an_interrupt_ends_the_run_at_once_and_silently(tmp_path: Path, whole_group: bool) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    with _start(output, log, units=4, pause=2 * PATIENCE_SECONDS) as process:
        _wait_until(lambda: len(executions(log)) == 2)
        workers = _descendants(process.pid)
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
        said, complaints = process.communicate(timeout=PATIENCE_SECONDS)  # a unit would take twice as long
    assert (process.returncode, said, complaints) == (130, "", "")
    _wait_until(lambda: not [pid for pid in workers if _parent(pid) is not None])
    assert len(executions(log)) == 2, "what was queued to a worker is not begun"
    assert _num_committed(output) == 0


def test_two_equal_runs_at_once_in_one_folder_both_end_right(tmp_path: Path) -> None:
    output = tmp_path / "out"
    whole = _uninterrupted(tmp_path / "whole", 4)
    runs = [_start(output, tmp_path / f"log{number}", units=4, pause=0.2) for number in range(2)]
    assert [_digest(run) for run in runs] == [whole, whole]
    assert read_manifest(output).digest == whole
    assert {path.name for path in output.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_two_different_runs_at_once_in_one_folder_both_end_right(tmp_path: Path) -> None:
    output = tmp_path / "out"
    wanted = [_uninterrupted(tmp_path / f"whole{shift}", 4, shift) for shift in (0, 1)]
    together = [_start(output, tmp_path / "log", units=4, shift=shift, pause=0.2) for shift in (0, 1)]
    assert [_digest(run) for run in together] == wanted
    assert wanted[0] != wanted[1]
    assert read_manifest(output).digest in wanted
    assert _num_committed(output) == 8
    assert list(output.glob(".*")) == []

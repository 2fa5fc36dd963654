"""Real runs in processes of their own, really killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_stages import NUMBERS, ListReporter, executions, numbers_units
from story_runs import RECIPES, command

from carnac.engine.child import do_unit
from carnac.engine.manifest import MANIFEST, collect_parts, read_manifest
from carnac.engine.run import Runner
from carnac.engine.state import STATE, read_state

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


def test_a_second_run_in_a_folder_says_so_and_the_first_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "out"
    whole = _uninterrupted(tmp_path / "whole", 4)
    first = _start(output, tmp_path / "log", units=4, pause=1.0)
    _wait_until((output / STATE).exists)
    for shift in (0, 1):  # equal settings or not
        second = _start(output, tmp_path / "other", units=4, shift=shift)
        said, complaints = second.communicate(timeout=PATIENCE_SECONDS)
        assert (second.returncode, said) == (1, "")
        assert f"another run works here: process {first.pid} on " in complaints
    assert executions(tmp_path / "other") == {}
    assert _digest(first) == whole
    assert {path.name for path in output.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_of_runs_that_begin_at_once_each_ends_right_or_says_so(tmp_path: Path) -> None:
    output = tmp_path / "out"
    whole = _uninterrupted(tmp_path / "whole", 4)
    runs = [_start(output, tmp_path / f"log{number}", units=4, pause=0.2) for number in range(3)]
    ends = [run.communicate(timeout=PATIENCE_SECONDS) for run in runs]
    for run, (said, complaints) in zip(runs, ends, strict=True):
        assert said.strip() == whole if run.returncode == 0 else "another run works here" in complaints
    assert 0 in [run.returncode for run in runs]
    assert read_manifest(output).digest == whole
    assert _digest(_start(output, tmp_path / "log", units=4)) == whole
    assert {path.name for path in output.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_what_a_dead_run_says_of_itself_stops_no_other(tmp_path: Path) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    with _start(output, log, units=4, pause=PATIENCE_SECONDS) as process:
        _wait_until(lambda: len(executions(log)) == 2)
        process.kill()
    state = read_state(output)
    assert state is not None
    assert not state.is_alive
    assert (state.process, state.num_units, state.num_done) == (process.pid, 4, 0)
    assert _digest(_start(output, log, units=4)) == _uninterrupted(tmp_path / "whole", 4)
    assert read_state(output) is None


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["terminated", "interrupted"]
)
@pytest.mark.parametrize("whole_group", [True, False], ids=["the group", "the parent only"])
def test_a_stopped_carnac_run_says_so_leaves_no_process_and_keeps_what_is_done(
    tmp_path: Path, number: signal.Signals, code: int, whole_group: bool
) -> None:
    (tmp_path / "warcs").mkdir()
    for copy in range(60):  # half a second each
        shutil.copyfile(RECIPES / "data/skimage-00001.warc.gz", tmp_path / f"warcs/{copy:02d}.warc.gz")
    output = tmp_path / "out/tiny/documents"
    with command(tmp_path, "run", str(RECIPES / "01-crawl.toml"), "--set", "warcs=['warcs/*']") as process:
        _wait_until(lambda: _num_committed(output) >= 1)
        family = _descendants(process.pid)
        assert len(family) >= 2, "a fork server and a worker"
        (os.killpg if whole_group else os.kill)(process.pid, number)
        said, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == code, said
    assert said.endswith("\nStopped. What was committed is kept; the same command goes on from there.\n"), said
    assert "Traceback" not in said
    _wait_until(lambda: not [pid for pid in family if _parent(pid) is not None])
    # All the rest would have taken longer than the patience above, or not been stopped.
    assert 1 <= _num_committed(output) < 60
    assert {path.name for path in output.iterdir() if path.suffix != ".parquet"} == {STATE}

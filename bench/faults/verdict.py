"""What a trial came to, and the one clean run after it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from faults.chain import OUT, Chain, Run, Subject
from faults.equal import differences

GONE_SECONDS = 10.0  # what a killed run may leave running, and for how long


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one trial ended: `wrong` is "" where all was right. `note` says what was done, for a reader of the log."""

    stage: str
    fault: str
    wrong: str = ""
    note: str = ""


class Wrong(Exception):  # noqa: N818 -- it is a finding, not an error
    """A trial found what must not be."""


def check(holds: bool, sentence: str) -> None:
    """Raise Wrong unless something holds."""
    if not holds:
        raise Wrong(sentence)


def check_clean_run(chain: Chain, subject: Subject, trial: Path, *, others: bool = False) -> None:
    """Run the recipe undisturbed and compare. Raises Wrong."""
    run = chain.start(trial, subject.recipe)
    check_end(run, 0)
    check_equal(chain, trial, others=others)


def check_equal(chain: Chain, trial: Path, *, others: bool = False) -> None:
    """Raise Wrong where the trial's output is not that of the uninterrupted run."""
    found = differences(chain.whole / OUT, trial / OUT, others=others)
    check(not found, "; ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else ""))


def check_end(run: Run, code: int, seconds: float = 120.0) -> None:
    """Raise Wrong unless the run ends by itself, in time, with this exit code and without a traceback."""
    try:
        exit_code = run.wait(seconds)
    except subprocess.TimeoutExpired:
        end_tree(run)
        raise Wrong(f"ran on after {seconds:g} s") from None
    check("Traceback" not in run.output, f"a traceback, exit {exit_code}: {run.last_line}")
    check(exit_code == code, f"exit {exit_code}, wanted {code}: {run.last_line}")


def check_sentence(run: Run, words: Iterable[str], seconds: float = 120.0) -> str:
    """Raise Wrong unless the run ends with exit 1 and one sentence that has all the words; return the sentence."""
    check_end(run, 1, seconds)
    check(run.last_line.startswith("carnac: "), f"no sentence at the end: {run.last_line}")
    missing = [word for word in words if word not in run.last_line]
    check(not missing, f"the sentence lacks {missing}: {run.last_line}")
    return run.last_line


def end_tree(run: Run) -> None:
    """Kill a run and all it started, and wait for it."""
    left = descendants(run)
    with_group(run, signal.SIGKILL)
    for process in left:
        _signal(process, signal.SIGKILL)
    run.process.wait()


def with_group(run: Run, number: int) -> None:
    """Send a signal to all processes of a run."""
    os.killpg(run.process.pid, number)


def descendants(run: Run) -> list[psutil.Process]:
    """Return all processes that a run has started."""
    try:
        return psutil.Process(run.process.pid).children(recursive=True)
    except psutil.Error:
        return []


def check_gone(processes: Iterable[psutil.Process]) -> None:
    """Raise Wrong when processes of a run that has ended live on; end them."""
    deadline = time.monotonic() + GONE_SECONDS
    left = [process for process in processes if _lives(process)]
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [process for process in left if _lives(process)]
    for process in left:
        _signal(process, signal.SIGKILL)
    check(not left, f"{len(left)} processes live on")


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return

"""Signals at random moments of a stage's own time, to one of the processes that do it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from faults.chain import Chain, Run, Subject, is_working
from faults.verdict import (
    Verdict,
    Wrong,
    check,
    check_clean_run,
    check_end,
    check_equal,
    check_gone,
    descendants,
    end_tree,
    with_group,
)

# Whom a signal goes to. All but the last are kill -9.
VICTIMS = ("worker", "fork server", "parent", "whole tree", "SIGTERM")
LOOP_VICTIMS = ("parent", "whole tree", "SIGTERM")
LOOK_SECONDS = 0.002
MAX_DRAWS = 8  # of a moment, until one falls into the stage
TERMINATED = 143


class Missed(Exception):  # noqa: N818 -- nothing is wrong, the moment is to be drawn again
    """The run was through, or had no such process, before the signal was sent."""


def victims_of(subject: Subject) -> tuple[str, ...]:
    """Return whom a signal can go to."""
    return LOOP_VICTIMS if subject.is_loop else VICTIMS


def measure_window(chain: Chain, subject: Subject) -> float:
    """Return the seconds that a run works on the stage, undisturbed. Raises Wrong when it does not end well."""
    trial = chain.trial(subject)
    run = chain.start(trial, subject.recipe)
    began = wait_for_work(run, trial, subject)
    last = began
    while run.process.poll() is None:
        if subject.is_loop or is_working(trial, subject):
            last = time.monotonic()
        time.sleep(LOOK_SECONDS)
    check_end(run, 0)
    check_equal(chain, trial)
    chain.discard(trial)
    return last - began


def kill(chain: Chain, subject: Subject, victim: str, window: float, draw: random.Random) -> Verdict:
    """Disturb one run of the stage by a signal to `victim`, then run it once more if it did not end well; compare."""
    wrong, share = "", 0.0
    for attempt in range(MAX_DRAWS):
        # A stage that was faster than the one measured is met earlier the next time.
        share = draw.random() * 0.85**attempt
        trial = chain.trial(subject)
        try:
            with _killed_after(chain.start(trial, subject.recipe), trial, subject, share * window) as run:
                _strike(run, trial, subject, victim, draw)
                _check_after(chain, subject, trial, run, victim)
        except Missed:
            chain.discard(trial)
            continue
        except Wrong as finding:
            wrong = f"{finding} (in {trial.name})"
        else:
            chain.discard(trial)
        break
    else:
        wrong = f"no moment of {MAX_DRAWS} fell into the stage"
    return Verdict(stage=subject.name, fault=victim, wrong=wrong, note=f"at {share:.0%} of {window:.2f} s")


@contextmanager
def _killed_after(run: Run, trial: Path, subject: Subject, seconds: float) -> Iterator[Run]:
    """Give the run when `seconds` of the stage have passed, and see that nothing of it is left in the end."""
    try:
        began = wait_for_work(run, trial, subject)
        while (left := began + seconds - time.monotonic()) > 0:
            if run.process.poll() is not None:
                raise Missed
            time.sleep(min(left, 0.02))
        yield run
    finally:
        if run.process.poll() is None:
            end_tree(run)


def wait_for_work(run: Run, trial: Path, subject: Subject) -> float:
    """Return the time at which the run began to work on the stage. Raises Missed when it ended without."""
    while not is_working(trial, subject):
        if run.process.poll() is not None:
            check_end(run, 0)
            raise Missed
        time.sleep(LOOK_SECONDS)
    return time.monotonic()


def _strike(run: Run, trial: Path, subject: Subject, victim: str, draw: random.Random) -> None:
    """Send the signal. Raises Missed when the stage is over, or nobody is there to get it."""
    target = None
    if victim in ("worker", "fork server"):
        target = _find(run, trial, subject, victim, draw)
    elif not (subject.is_loop or _is_under_way(run, trial, subject)):
        raise Missed
    everyone = descendants(run)
    if run.process.poll() is not None:
        raise Missed
    if target is not None:
        try:
            target.kill()
        except psutil.Error:
            raise Missed from None
        return
    if victim == "whole tree":
        with_group(run, signal.SIGKILL)
    else:
        os.kill(run.process.pid, signal.SIGTERM if victim == "SIGTERM" else signal.SIGKILL)
    exit_code = run.wait(20)
    check_gone(everyone)
    if victim == "SIGTERM":
        check("Traceback" not in run.output, f"a traceback: {run.last_line}")
        check(exit_code in (TERMINATED, 0), f"exit {exit_code} after SIGTERM: {run.last_line}")


def _is_under_way(run: Run, trial: Path, subject: Subject) -> bool:
    """Say whether the run is in the stage; between two folders of it there is a moment in which it says nothing."""
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline and run.process.poll() is None:
        if is_working(trial, subject):
            return True
        time.sleep(LOOK_SECONDS)
    return False


def _find(run: Run, trial: Path, subject: Subject, victim: str, draw: random.Random) -> psutil.Process:
    """Return the fork server or one of its children. Raises Missed when the stage is over before there is one."""
    look = _fork_servers if victim == "fork server" else _workers
    is_early = not look(run)
    while not (found := look(run)):
        # Between two units there is no worker, and while the fork server imports what they need.
        if not _is_under_way(run, trial, subject):
            raise Missed
        time.sleep(LOOK_SECONDS)
    if is_early:
        time.sleep(draw.random() * 0.05)  # not always in its first breath
        found = look(run) or found
    return draw.choice(found)


def _fork_servers(run: Run) -> list[psutil.Process]:
    try:
        children = psutil.Process(run.process.pid).children()
        return [child for child in children if any("multiprocessing.forkserver" in word for word in child.cmdline())]
    except psutil.Error:
        return []


def _workers(run: Run) -> list[psutil.Process]:
    try:
        return [worker for server in _fork_servers(run) for worker in server.children()]
    except psutil.Error:
        return []


def _check_after(chain: Chain, subject: Subject, trial: Path, run: Run, victim: str) -> None:
    """Raise Wrong unless all is well in the end: at once where the run can go on, else after the same command."""
    if victim in ("worker", "fork server"):
        check_end(run, 0)
        check_equal(chain, trial)
        return
    check_clean_run(chain, subject, trial)

"""Units on this machine: as many guarded children at once as there are workers."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path

import psutil

from carnac.core.places import Place
from carnac.engine.child import fork_server
from carnac.engine.guard import Done, Failed, GuardedUnit
from carnac.engine.journal import Journal
from carnac.engine.storage import sweep
from carnac.engine.unit import Stage, Unit
from carnac.recipe.settings import Limits

POLL_SECONDS = 0.1  # how far a record that eats 1 GB a second gets over its limit
MEMORY_SHARE = 0.8  # of the machine, over all workers: the rest is the parent's and the system's


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A unit that is being done: since when (seconds since the epoch), by which try, at which record."""

    unit: str
    since: float
    num_tries: int
    record: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """How far all workers are: records tried and lost and their bytes, over units done in this run and under way."""

    running: tuple[Running, ...]
    tried: int
    lost: int
    num_bytes: int


Event = Done | Failed | Beat


def run_units(
    stage: Stage,
    units: Sequence[Unit],
    folder: Place,
    workers: int,
    limits: Limits | None = None,
    preload: Sequence[str] = (),
) -> Generator[Event, None, None]:
    """Do `units` in up to `workers` processes at once; yield each end as it comes, and a Beat ten times a second.

    `preload` names modules that the fork server imports once: a child then starts in about 20 ms. It counts before the
    first unit of this process only. Closing the iterator ends the children within a second. Raises what a unit raised
    for the user; what was committed stays.
    """
    assert stage.work is not None, f"{stage.name} is not done by workers"
    # pyarrow looks for pandas at the first row that it converts, 0.2 s of CPU in every child; where there is none, the
    # fork server passes over it.
    context = fork_server(["pandas", stage.work.__module__, *preload])
    limits = with_memory(limits or Limits(), max(1, min(workers, len(units))))
    waiting = list(reversed(units))
    running: list[GuardedUnit] = []
    ended: list[Journal | _Sum] = []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                guarded = GuardedUnit(stage, waiting.pop(), folder, limits, context)
                running.append(guarded)
                guarded.start()
            wait([waitable for guarded in running for waitable in guarded.waitables], timeout=POLL_SECONDS)
            for guarded in list(running):
                end = guarded.poll()
                if end is not None:
                    running.remove(guarded)
                    ended = [_Sum.of([*ended, guarded.journal])]
                    yield end
            counts = _Sum.of([*ended, *(guarded.journal for guarded in running)])
            at = tuple(map(_running, running))
            yield Beat(running=at, tried=counts.tried, lost=counts.lost, num_bytes=counts.num_bytes)
    finally:
        for guarded in running:
            guarded.close()
        if running:
            _end_strays()
        # Also of a run that was killed a moment before this one began: its workers may have died only after the sweep
        # at the beginning.
        sweep(folder)


def _end_strays() -> None:
    """End what the fork server has started and nobody knows of: a signal came in the middle of a start."""
    server = vars(forkserver)["_forkserver"]._forkserver_pid  # noqa: SLF001 -- its children are not ours to the system
    with contextlib.suppress(psutil.Error):
        strays = psutil.Process(server).children() if server else []
        for stray in strays:
            with contextlib.suppress(psutil.Error):
                stray.kill()
        psutil.wait_procs(strays, timeout=5)


def with_memory(limits: Limits, workers: int) -> Limits:
    """Return `limits` with a number for the memory of each of `workers`."""
    if limits.memory_mb is not None:
        return limits
    return limits.model_copy(update={"memory_mb": int(memory_bytes() * MEMORY_SHARE / workers / 1_000_000)})


def memory_bytes() -> int:
    """Return the memory that this process may use: the machine's, or less where a control group says so."""
    limits = [int(psutil.virtual_memory().total)]
    for file in _memory_limits():
        with contextlib.suppress(OSError):
            text = file.read_text().strip()
            limits += [int(text)] if text.isdecimal() else []
    return min(limits)


def _memory_limits() -> Iterator[Path]:
    """Yield where control groups (version 2, version 1) may say so: that of this process and those above it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        group = Path(path.lstrip("/"))
        yield from (root / above / name for above in (group, *group.parents))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sum:
    """The counts of several journals."""

    tried: int
    lost: int
    num_bytes: int

    @classmethod
    def of(cls, journals: Sequence[Journal | _Sum]) -> _Sum:
        return cls(
            tried=sum(journal.tried for journal in journals),
            lost=sum(journal.lost for journal in journals),
            num_bytes=sum(journal.num_bytes for journal in journals),
        )


def _running(guarded: GuardedUnit) -> Running:
    return Running(
        unit=guarded.unit.name,
        since=guarded.started,
        num_tries=guarded.num_tries,
        record=guarded.journal.last_record,
    )

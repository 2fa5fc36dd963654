"""A stage whose records misbehave on demand, as real ones do: they raise, crash, spin, hang, eat memory."""

from __future__ import annotations

import collections
import ctypes
import itertools
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from carnac.core.errors import InputError, RecordError
from carnac.engine.part import LOST, Part
from carnac.engine.unit import Stage, Unit

SCHEMA = pa.schema([("record", pa.string()), ("number", pa.int64())])
MAX_EATEN_BYTES = 4_000_000_000  # where the limit fails, the test fails, and the machine stays up


@dataclass(frozen=True, slots=True, kw_only=True)
class HazardsTask:
    """Records in order, each with a name of `HAZARDS`; every try of one leaves a file in `log`.

    `between` is met before the first record, in no record's time.
    """

    log: Path
    records: tuple[tuple[str, str], ...]
    between: str = "sound"


def _raise(error: BaseException) -> None:
    raise error


def _spin(log: Path) -> None:
    while not (log / "enough").exists():
        sum(range(1000))


def _spin_in_threads(log: Path) -> None:
    threads = [threading.Thread(target=_spin, args=(log,), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _eat(log: Path, step: Callable[[int], int]) -> None:
    """Grow by `step` of what is eaten already, up to a limit, then keep it."""
    eaten, held = 0, []
    while eaten < MAX_EATEN_BYTES:
        held.append(b"x" * (more := step(eaten)))
        eaten += more
        time.sleep(0)
    wait_for(log / "enough")


def _close_all_and_sleep(_log: Path) -> None:
    os.closerange(3, 4096)
    time.sleep(600)


def _half_a_second_of_cpu(_log: Path) -> None:
    began = time.process_time()
    while time.process_time() - began < 0.5:
        sum(range(1000))


def _die_the_first(log: Path, times: int) -> None:
    """Be killed the first few times, as by an operator or a kernel short of memory."""
    (log / f"death.{uuid.uuid4().hex}").touch()
    if len(list(log.glob("death.*"))) <= times:
        os.kill(os.getpid(), signal.SIGKILL)


def _kill_the_fork_server_once(log: Path) -> None:
    if not (once := log / "server_killed").exists():
        once.touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)


def wait_for(file: Path) -> None:
    """Wait until a test makes `file`."""
    while not file.exists():
        time.sleep(0.01)


class UnprintableError(Exception):
    """An error whose message cannot be had."""

    def __str__(self) -> str:
        raise KeyError("no message")


HAZARDS: dict[str, Callable[[Path], object]] = {
    "sound": lambda _: None,
    "raises": lambda _: int("three"),
    "record_error": lambda _: _raise(RecordError("too_odd", "an odd record")),
    "cannot_decode": lambda _: _raise(OSError("cannot identify image file")),
    "input_error": lambda _: _raise(InputError("the input is wrong. Mend it.")),
    "unprintable": lambda _: _raise(UnprintableError()),
    "disk_full": lambda _: _raise(OSError(28, "No space left on device", "/somewhere/full")),
    "memory_error": lambda _: bytearray(1 << 60),
    "segfault": lambda _: ctypes.string_at(0),
    "exit": lambda _: os._exit(3),
    "sys_exit": lambda _: _raise(SystemExit(0)),
    "abort": lambda _: os.abort(),
    "spin": _spin,
    # One C loop that never lets another thread of its process run.
    "spin_in_c": lambda _: collections.deque(itertools.repeat(0), maxlen=0),
    "spin_in_threads": _spin_in_threads,
    "sleep": lambda _: time.sleep(600),
    "read_a_pipe": lambda _: os.read(os.pipe()[0], 1),
    "close_all_and_sleep": _close_all_and_sleep,
    "eat_fast": lambda log: _eat(log, lambda eaten: max(eaten, 1_000_000)),
    "eat_slowly": lambda log: _eat(log, lambda _: 100_000),
    "half_a_second": _half_a_second_of_cpu,
    "killed_once": lambda log: _die_the_first(log, 1),
    "killed_twice": lambda log: _die_the_first(log, 2),
    "killed_always": lambda log: _die_the_first(log, 1000),
    "server_killed": _kill_the_fork_server_once,
    "wait": lambda log: wait_for(log / "go"),
}


def do_hazards(unit: Unit, part: Part) -> None:
    """Write a row per record that lives."""
    task: HazardsTask = unit.task
    (task.log / f"{unit.name}.{uuid.uuid4().hex}").touch()
    HAZARDS[task.between](task.log)
    for number, (record, hazard) in enumerate(task.records):
        if part.attempt(record, meet, hazard, task.log, f"{unit.name}-{number}", payload=b"four") is not LOST:
            part.write({"record": record, "number": number})


def meet(hazard: str, log: Path, trace: str, payload: bytes) -> bytes:
    """Meet a hazard, leaving a trace."""
    (log / f"tried.{trace}.{uuid.uuid4().hex}").touch()
    HAZARDS[hazard](log)
    return payload


STAGE = Stage(name="hazards", version=1, schema=SCHEMA, work=do_hazards, rows_per_group=2)


def hazard_unit(log: Path, name: str, hazards: Sequence[str], *, between: str = "sound") -> Unit:
    """Return a unit with a record per hazard, named `UNIT@NUMBER`."""
    return record_unit(log, name, [(f"{name}@{number}", hazard) for number, hazard in enumerate(hazards)], between)


def record_unit(log: Path, name: str, records: Sequence[tuple[str, str]], between: str = "sound") -> Unit:
    """Return a unit of named records. What they do is no part of its key: hazards come and go, as in life."""
    log.mkdir(parents=True, exist_ok=True)
    task = HazardsTask(log=log, records=tuple(records), between=between)
    return STAGE.unit(name, task, settings={}, inputs=[])


def tries(log: Path, trace: str) -> int:
    """Return how often a record, `UNIT-NUMBER`, was begun."""
    return len(list(log.glob(f"tried.{trace}.*")))


def begun(log: Path, unit: str) -> int:
    """Return how often a unit was begun."""
    return len(list(log.glob(f"{unit}.*")))

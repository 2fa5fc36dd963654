"""A tiny stage whose worker processes really run: rows of numbers, with obstacles on demand."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa

from carnac.core.errors import InputError, RecordError
from carnac.engine.part import Part
from carnac.engine.unit import Stage, Unit

SCHEMA = pa.schema([("id", pa.string()), ("number", pa.int64())])
Obstacle = Literal["none", "disk_full", "bad_input", "kill_once", "stray_record_error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NumbersTask:
    """Rows `start` ... `start + length - 1`. Every execution leaves a file in `log`."""

    log: Path
    start: int
    length: int = 5
    obstacle: Obstacle = "none"
    pause_seconds: float = 0.0


def write_numbers(unit: Unit, part: Part) -> None:
    """Write the rows of a task, meeting its obstacle after the first ones."""
    task: NumbersTask = unit.task
    (task.log / f"{unit.name}.{uuid.uuid4().hex}").touch()
    for number in range(task.start, task.start + task.length):
        part.write({"id": f"n{number}", "number": number})
        part.count("odd", number % 2)
    time.sleep(task.pause_seconds)
    if task.obstacle == "disk_full":
        raise OSError(28, "No space left on device", "/somewhere/full")
    if task.obstacle == "bad_input":
        raise InputError("the input of this unit cannot be read")
    if task.obstacle == "stray_record_error":
        raise RecordError("not_an_image", "starts with <!DOCTYPE")
    if task.obstacle == "kill_once" and not (once := task.log / "killed").exists():
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    part.quarantine(f"record-{task.start}", "too_odd", "an odd record")


NUMBERS = Stage(name="numbers", version=1, schema=SCHEMA, work=write_numbers, rows_per_group=2)


def numbers_units(
    log: Path,
    starts: Sequence[int],
    *,
    shift: int = 0,
    obstacle: Obstacle = "none",
    obstacle_at: int = 0,
    pause_seconds: float = 0.0,
) -> list[Unit]:
    """Return one unit per start; the unit at place `obstacle_at` meets `obstacle`."""
    log.mkdir(parents=True, exist_ok=True)
    units = []
    for place, start in enumerate(starts):
        met = obstacle if place == obstacle_at else "none"
        task = NumbersTask(log=log, start=start + shift, obstacle=met, pause_seconds=pause_seconds)
        units.append(NUMBERS.unit(f"{place:05d}", task, settings={"shift": shift}, inputs=[str(start)]))
    return units


def executions(log: Path) -> dict[str, int]:
    """Return how many times each unit was begun."""
    counts: dict[str, int] = {}
    for path in log.glob("0*"):
        name = path.name.partition(".")[0]
        counts[name] = counts.get(name, 0) + 1
    return counts


class _SilentTask:
    def advance(self, number: int = 1, note: str = "") -> None:
        """Say nothing."""

    def show(self, note: str) -> None:
        """Say nothing."""


@dataclass
class ListReporter:
    """Keep what is said."""

    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Keep one line."""
        self.lines.append(line)

    def task(
        self, name: str, total: int, done: int = 0, *, is_step: bool = False
    ) -> AbstractContextManager[_SilentTask]:
        """Keep what was begun."""
        self.lines.append(f"{name}: task of {total}, {done} done")
        return nullcontext(_SilentTask())

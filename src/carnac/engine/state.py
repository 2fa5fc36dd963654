"""What a run is doing in a folder, on disk: for `carnac show`, and for a second run that wants the same folder.

`.run.json` lies there while a run works in the folder. A run that was killed leaves it; what it says of running units
is then what was under way when the run died. It decides nothing: which units are done is told by their parts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from carnac.core.errors import OutputError
from carnac.core.places import Place, read_bytes
from carnac.engine.guard import Failed
from carnac.engine.local import Running
from carnac.engine.storage import host, remove, write_file

STATE = ".run.json"
WRITE_SECONDS = 5.0
# Of a run on another machine only its last word can be seen: after so long without one, it is taken for dead.
SILENT_SECONDS = 120.0
LATEST = 32503680000.0  # the year 3000: what is later is no time of ours, and no calendar takes 1e300


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """One run in one folder. Times are seconds since the epoch; `process_started` tells a process from a later one."""

    stage: str
    host: str
    process: int
    process_started: float
    started: float
    updated: float
    num_units: int
    num_done: int
    running: tuple[Running, ...] = ()
    failed: tuple[Failed, ...] = ()
    why_stopped: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether the run still works, as far as this machine can tell."""
        if self.host != host():
            return abs(time.time() - self.updated) < SILENT_SECONDS  # a clock ahead must not refuse for ever
        try:
            return abs(psutil.Process(self.process).create_time() - self.process_started) < 1
        except psutil.Error:
            return False

    @property
    def is_mine(self) -> bool:
        """Whether it is of this very process."""
        return self.host == host() and self.process == os.getpid()


class Pulse:
    """Says in a folder that a run works there, at the beginning and then every few seconds."""

    def __init__(self, folder: Place, state: RunState) -> None:
        self._folder, self.state = folder, state
        self._write()

    def beat(
        self,
        *,
        num_done: int | None = None,
        running: Sequence[Running] = (),
        failed: Sequence[Failed] = (),
        why_stopped: str = "",
    ) -> None:
        """Say how far the run is, if it is time to say so again; the reason for its end is said at once."""
        if not why_stopped and time.monotonic() - self._written < WRITE_SECONDS:
            return
        self.state = dataclasses.replace(
            self.state,
            updated=time.time(),
            num_done=self.state.num_done if num_done is None else num_done,
            running=tuple(running),
            failed=tuple(failed) or self.state.failed,
            why_stopped=why_stopped,
        )
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        # A disk that is full for this small file stops no run.
        with contextlib.suppress(OutputError):
            write_state(self._folder, self.state)


def new_state(stage: str, num_units: int, num_done: int) -> RunState:
    """Return the state of a run that begins in this process."""
    now = time.time()
    return RunState(
        stage=stage,
        host=host(),
        process=os.getpid(),
        process_started=psutil.Process().create_time(),
        started=now,
        updated=now,
        num_units=num_units,
        num_done=num_done,
    )


def read_state(folder: Place) -> RunState | None:
    """Return the state of the run that works in `folder` or died there; None if there is none."""
    try:
        fields: dict[str, Any] = json.loads(read_bytes(folder / STATE))
        if not all(0 <= float(fields[name]) < LATEST for name in ("started", "updated")):
            return None
        running = tuple(Running(**entry) for entry in fields.pop("running"))
        failed = tuple(Failed(**entry) for entry in fields.pop("failed"))
        return RunState(running=running, failed=failed, **fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_state(folder: Place, state: RunState) -> None:
    """Write the state of a run whole or not at all. Raises OutputError."""
    write_file(folder / STATE, (json.dumps(asdict(state), indent=1) + "\n").encode())


def end_state(folder: Place) -> None:
    """Say that no run works in `folder` any more."""
    with contextlib.suppress(OSError):
        remove(folder / STATE)


def refuse_second(folder: Place) -> RunState | None:
    """Return what a dead run said last in `folder`, and remove it. Raises OutputError while another run works there."""
    state = read_state(folder)
    if state is None or state.is_mine:
        return None
    if not state.is_alive:
        end_state(folder)
        return state
    since = time.strftime("%H:%M:%S", time.localtime(state.started))
    raise OutputError(
        f"{folder}: another run works here: process {state.process} on {state.host}, since {since}, "
        f"{state.num_done} of {state.num_units} units done. Wait for it or stop it; nothing was changed. "
        f"If there is none, remove {folder / STATE}."
    )

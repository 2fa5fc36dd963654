"""A child process that does one unit, or tries one record of it, and may die.

It comes from a fork server: a fork of a process with threads can inherit a held lock (seen: children that exit 1 after
they had committed).
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

import psutil

from carnac.core.errors import CarnacError, OutputError, RunError
from carnac.core.places import Place
from carnac.engine.journal import Watch
from carnac.engine.part import Part, what_raised
from carnac.engine.storage import is_alive
from carnac.engine.unit import Stage, Unit

OUT_OF_MEMORY_EXIT = 86  # a child that met MemoryError; no signal and no exit of Python's own
SERVER_DIED_EXIT = 255  # the fork server died, and its children with it
OUTSIDE_EXITS = (-signal.SIGKILL, -signal.SIGTERM, SERVER_DIED_EXIT)
MAX_SOCKET_FOLDER = 107 - len("/pymp-12345678/listener-12345678")  # bytes
MAX_STARTS = 5  # of a child whose fork server dies meanwhile
START_PAUSE_SECONDS = 0.1  # a process that is killed closes its files some time before it is seen to be dead
ORPHAN_SECONDS = 5.0  # until a process that was killed is gone; one that waits for a dead disk may never be


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a child died: a word for counting and a sentence. `is_outside`: it was killed, by no doing of the guard."""

    reason: str
    detail: str
    is_outside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a child says at its end: `error` carries what it raised for the user, `failure` what it raised otherwise."""

    error: CarnacError | None = None
    failure: str | None = None


def fork_server(preload: Sequence[str]) -> ForkServerContext:
    """Start the fork server, if none runs, deaf to Ctrl-C, and so its children from their first moment.

    The parent answers Ctrl-C. `preload` names modules that the server imports once: a child then starts in about 20 ms.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["carnac.engine.child", *preload])
    _choose_short_address()
    if threading.current_thread() is not threading.main_thread():
        forkserver.ensure_running()
        return context
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)
    return context


def _choose_short_address() -> None:
    """Have this process's sockets lie where their names fit, if TMPDIR is long: Linux takes 107 bytes."""
    if len(os.fsencode(tempfile.gettempdir())) <= MAX_SOCKET_FOLDER:
        return
    before, tempfile.tempdir = tempfile.tempdir, "/tmp"  # noqa: S108 -- a folder of its own is made in it
    try:
        multiprocessing.util.get_temp_dir()  # made once, then kept for the life of the process
    finally:
        tempfile.tempdir = before


def do_unit(stage: Stage, unit: Unit, folder: Place, watch: Watch | None = None) -> str:
    """Do one unit in this process and commit its part; return the unit's name. Every engine runs exactly this."""
    assert stage.work is not None, f"{stage.name} is not done by workers"
    try:
        with Part(stage, unit, folder, watch) as part:
            stage.work(unit, part)
    except OSError as error:
        raise OutputError(
            f"{stage.name}, unit {unit.name}: {error.strerror or error} ({error.filename or folder}). "
            "Nothing of the unit was kept; free space or mend the path, then run the same command again."
        ) from error
    return unit.name


class Child:
    """A running child. Poll it until it has ended, then ask what it said or why it died, and close it."""

    def __init__(self, context: ForkServerContext, stage: Stage, unit: Unit, folder: Place, watch: Watch) -> None:
        self.watch = watch
        self._says, tell = context.Pipe(duplex=False)
        self._is_over_memory = False
        self._is_mute = False
        self._said: Said | None = None
        self._process = _start(context, stage, unit, folder, watch, tell)
        tell.close()
        self._measured: psutil.Process | None = None
        with contextlib.suppress(psutil.Error):  # it is gone already
            self._measured = psutil.Process(self._process.pid)

    @property
    def waitables(self) -> list[Any]:
        """What becomes ready when the child speaks or ends."""
        return [self._process.sentinel] if self._is_mute else [self._says, self._process.sentinel]

    def has_ended(self) -> bool:
        """Say whether the child has ended; one that takes too much memory is ended here."""
        if not self._is_mute and self._says.poll():
            self._is_mute = True
            with contextlib.suppress(EOFError, OSError):  # it died before it spoke, or a library closed all files
                self._said = self._says.recv()
        if self._said is None and self._process.is_alive():
            self._check_memory()
            return False
        self._process.join()
        return True

    @property
    def said(self) -> Said | None:
        """What an ended child said; None when it died without a word."""
        return self._said

    def cause(self) -> Cause:  # noqa: PLR0911 -- one return per way to die
        """Return why a child died that said nothing."""
        limits, exit_code = self.watch.limits, self._process.exitcode
        silence = f"{limits.silent_seconds:g} s"
        if self._is_over_memory:
            return Cause(reason="out_of_memory", detail=f"its process took more than {limits.memory_mb or 0:,} MB")
        if exit_code == OUT_OF_MEMORY_EXIT:
            return Cause(reason="out_of_memory", detail="it asked for more memory than there was (MemoryError)")
        if exit_code == -signal.SIGPROF:
            return Cause(reason="too_slow", detail=f"it took more than {limits.cpu_seconds:g} s of CPU time")
        if exit_code == -signal.SIGALRM:
            if self.watch.journal.record is None:
                return Cause(
                    reason="stuck",
                    detail=f"it began no record and wrote no row for {silence} (limits.silent_seconds)",
                )
            return Cause(reason="stuck", detail=f"it was not done after {limits.wait_seconds:g} s")
        if exit_code in OUTSIDE_EXITS:
            detail = "its process was killed from outside, again and again; short of memory?"
            return Cause(reason="killed", detail=detail, is_outside=True)
        how = f"exit {exit_code}" if exit_code is None or exit_code >= 0 else signal.Signals(-exit_code).name
        return Cause(reason="crashed", detail=f"its process died ({how})")

    def close(self) -> None:
        """End the child if it runs, and free what belongs to it."""
        self._process.kill()
        self._process.join()
        if self._process.exitcode == SERVER_DIED_EXIT and self._measured is not None:
            _see_off(self._measured)
        self._says.close()
        self._process.close()

    def _check_memory(self) -> None:
        limit = self.watch.limits.memory_mb
        if limit is None or self._measured is None:
            return
        with contextlib.suppress(psutil.Error):
            used = self._measured.memory_info()
            # Pages of mapped files (weights, Parquet) are the system's to take back: they are no memory of the record.
            if used.rss - used.shared > limit * 1_000_000:
                self._is_over_memory = True
                self._process.kill()


def _start(
    context: ForkServerContext, stage: Stage, unit: Unit, folder: Place, watch: Watch, tell: Connection
) -> ForkServerProcess:
    """Return a child that has been started; where the fork server dies meanwhile, another one starts it."""
    for _ in range(MAX_STARTS):
        # A daemon: should this process end before it has closed the child, it does not wait for the child's end.
        process = context.Process(target=_run, args=(stage, unit, folder, watch, tell), daemon=True)
        try:
            with _undisturbed():
                process.start()
        except (EOFError, ConnectionError):
            time.sleep(START_PAUSE_SECONDS)
            continue
        return process
    raise RunError(
        f"{stage.name}, unit {unit.name}: the process that starts workers died {MAX_STARTS} times at its start. "
        "What it printed stands above; is a library that this stage imports broken?"
    )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Have signals wait: one in the middle of a start leaves a child half told what to do, and its traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _see_off(process: psutil.Process) -> None:
    """Wait until the child of a fork server that died is gone: what it leaves behind is swept only then."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    with contextlib.suppress(psutil.Error):  # gone, and its number may be another's already
        while is_alive(process.pid) and time.monotonic() < deadline:
            process.kill()
            time.sleep(0.01)


def _run(stage: Stage, unit: Unit, folder: Place, watch: Watch, tell: Connection) -> None:
    """Be the child: do the unit, say how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent answers it
    deadly = (signal.SIGPROF, signal.SIGALRM, signal.SIGTERM)
    for number in deadly:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, deadly)  # a mask is inherited, and a blocked deadline is none
    _die_with_parent()
    for stream in (sys.stdout, sys.stderr):  # as in the command line: the web's characters fail on no terminal
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    watch.journal.note_life(watch.limits)
    said = Said()
    try:
        do_unit(stage, unit, folder, watch)
    except CarnacError as error:
        said = Said(error=error)
    except MemoryError:
        os._exit(OUT_OF_MEMORY_EXIT)
    except Exception as error:  # noqa: BLE001 -- the edge of a unit: what it raises outside a record fails the unit
        said = Said(failure=what_raised(error))
    with contextlib.suppress(OSError):  # the run was stopped: nobody listens, and what is committed is
        tell.send(said)
        tell.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # No teardown: libraries' threads and destructors have crashed processes that had done their work.
    os._exit(0)


def _die_with_parent() -> None:
    """End with the parent, also after its `kill -9` and also in the middle of C code: no orphan writes on."""
    # The fork server ends when the parent does, and Linux then kills its children. It notices by a pipe of which each
    # child was given the writing end too: one that spins in C would keep its server, and so itself, alive.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        os.close(vars(forkserver)["_forkserver"]._forkserver_alive_fd)  # noqa: SLF001 -- there is no other way to it
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()

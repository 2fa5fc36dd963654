"""Batches made ahead of the step, by processes of their own: while the model computes, the next ones are decoded.

Flow in: a `BatchReader` and the steps to come. Flow out: their batches, in order; the same as the reader's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import fields
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from carnac.core.batch import Batch
from carnac.core.errors import CarnacError, RunError
from carnac.engine.child import fork_server
from carnac.engine.part import what_raised
from carnac.mix.batches import BatchReader


class BatchesAhead:
    """Gives the batches of `steps` when called with each in turn. Use it in a `with` block.

    `workers` processes make every `workers`-th batch each and keep up to `depth` ready; with none, a batch is made when
    it is asked for. What a worker raises is raised when its batch is asked for; RunError when a worker has died.
    """

    def __init__(self, reader: BatchReader, steps: range, workers: int, depth: int = 2) -> None:
        self._reader, self._steps, self._num_workers, self._depth = reader, steps, workers, depth
        self._workers: list[_Worker] = []
        self._given = 0

    def __enter__(self) -> BatchesAhead:
        number = min(self._num_workers, len(self._steps))
        try:
            for first in range(number):
                with _undisturbed():
                    context = fork_server(["carnac.mix.batches"])
                    self._workers.append(_Worker(context, self._reader, self._steps[first::number], self._depth))
        except (EOFError, ConnectionError) as error:
            self._close()
            raise RunError(f"the process that starts workers died before batch {self._steps[0]}. {ADVICE}") from error
        except BaseException:
            self._close()
            raise
        return self

    def __call__(self, step: int) -> Batch:
        """Return the batch of `step`, the next one of `steps`."""
        assert step == self._steps[self._given], f"asked for {step}, the next one is {self._steps[self._given]}"
        if not self._workers:
            batch = self._reader.batch(step)
        else:
            batch = self._workers[self._given % len(self._workers)].next_batch(step)
        self._given += 1
        return batch

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        for worker in self._workers:
            worker.close()


class _Worker:
    """A process that makes batches, and the thread that takes them from its pipe."""

    def __init__(self, context: ForkServerContext, reader: BatchReader, steps: range, depth: int) -> None:
        self._pipe, tell = context.Pipe(duplex=False)
        _widen(self._pipe)
        # A daemon: should this process end before it has closed the worker, it does not wait for the worker's end.
        self._process: ForkServerProcess = context.Process(target=_make, args=(reader, steps, tell), daemon=True)
        self._process.start()
        tell.close()
        self._ready: SimpleQueue[Batch | CarnacError | None] = SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._is_closed = False
        self._thread = threading.Thread(target=self._receive, name="carnac-batches-ahead", daemon=True)
        self._thread.start()

    def next_batch(self, step: int) -> Batch:
        """Wait for the worker's next batch, which is that of `step`."""
        made = self._ready.get()
        self._room.release()
        if isinstance(made, CarnacError):
            raise made
        if made is None:
            raise RunError(f"step {step}: the process that makes batches died ({self._how()}). {ADVICE}")
        return made

    def close(self) -> None:
        """End the process, and the thread."""
        self._is_closed = True
        self._process.kill()
        self._room.release()
        self._thread.join()
        self._process.join()
        self._pipe.close()
        self._process.close()

    def _receive(self) -> None:
        """Take batches from the pipe as long as there is room for them."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._room.acquire()
                if self._is_closed:
                    return
                self._ready.put(_receive(self._pipe))
        # Ended, or died: whoever waits is told, as often as it asks.
        self._ready.put(None)

    def _how(self) -> str:
        self._process.join(timeout=5)
        code = self._process.exitcode
        return f"exit {code}" if code is None or code >= 0 else signal.Signals(-code).name


PIPE_BYTES = 1 << 20  # what Linux lets anyone have
ADVICE = (
    "Short of memory? Each worker holds row groups of shards (mix.cache_mb) and a few batches: lower cache_mb or "
    "mix.workers. Then run the same command again: it goes on from the last checkpoint."
)


def _make(reader: BatchReader, steps: range, tell: Connection) -> None:
    """Be a worker: make the batches of `steps`, and send each or what it raised."""
    # What stops the run is answered by its main process, which saves first and may still need a batch for it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        for step in steps:
            try:
                made: Batch | CarnacError = reader.batch(step)
            except CarnacError as error:
                made = error
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 -- the edge of a process: its parent tells the user
                made = RunError(f"batch {step} cannot be made: {what_raised(error)}. Look at the pieces of this batch.")
            _send(tell, made)
            if isinstance(made, CarnacError):
                break
        tell.close()
    # No teardown: libraries' threads and destructors have crashed processes that had done their work.
    os._exit(0)


def _end_with_parent() -> None:
    """End when the run's main process has, also after its `kill -9`."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _send(pipe: Connection, made: Batch | CarnacError) -> None:
    """Send a batch: what is small first, then its arrays as they lie in memory. Or an error."""
    if isinstance(made, CarnacError):
        pipe.send(made)
        return
    values = {field.name: getattr(made, field.name) for field in fields(Batch)}
    arrays = {name: np.ascontiguousarray(value) for name, value in values.items() if isinstance(value, np.ndarray)}
    rest = {name: value for name, value in values.items() if name not in arrays}
    pipe.send((rest, [(name, array.dtype.str, array.shape) for name, array in arrays.items()]))
    for array in arrays.values():
        left = _bytes_of(array)
        while left:
            left = left[os.write(pipe.fileno(), left) :]


def _receive(pipe: Connection) -> Batch | CarnacError:
    """Return the next batch, or error, of a pipe. Raises EOFError at its end.

    Arrays are read to where they stay: of 40 MB, twice as fast as by way of the connection's own buffer.
    """
    head = pipe.recv()
    if isinstance(head, CarnacError):
        return head
    values, kinds = head
    for name, dtype, shape in kinds:
        array = np.empty(shape, dtype=dtype)
        left = _bytes_of(array)
        while left:
            number = os.readv(pipe.fileno(), [left])
            if not number:
                raise EOFError
            left = left[number:]
        values[name] = array
    return Batch(**values)


def _bytes_of(array: npt.NDArray[Any]) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _widen(pipe: Connection) -> None:
    """Have the pipe hold more at once, where the system can: fewer turns between the two processes."""
    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Have signals wait: one in the middle of a start leaves a child half told what to do."""
    blocked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

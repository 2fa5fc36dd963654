"""Units on this machine: a pool of worker processes.

The processes come from a fork server: a fork of a process with threads can inherit a held lock (seen: children that
exit 1 after they had committed). A worker ends when its parent is gone, also after `kill -9`: no orphan writes on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from carnac.core.errors import OutputError, RunError
from carnac.engine.part import Part
from carnac.engine.unit import Stage, Unit


def do_unit(stage: Stage, unit: Unit, folder: Path) -> str:
    """Do one unit and commit its part; return the unit's name. Every engine runs exactly this."""
    assert stage.work is not None, f"{stage.name} is not done by workers"
    try:
        with Part(stage, unit, folder) as part:
            stage.work(unit, part)
    except OSError as error:
        raise OutputError(
            f"{stage.name}, unit {unit.name}: {error.strerror or error} ({error.filename or folder}). "
            "Nothing of the unit was kept; free space or mend the path, then run the same command again."
        ) from error
    return unit.name


def run_units(stage: Stage, units: Sequence[Unit], folder: Path, workers: int) -> Iterator[str]:
    """Do `units` in `workers` processes and yield the name of each as it is committed.

    Raises RunError when a worker dies; what was committed stays, and the same run does the rest.
    """
    assert stage.work is not None, f"{stage.name} is not done by workers"
    context = multiprocessing.get_context("forkserver")
    # What every worker imports is imported once, in the server: a worker then starts in about 20 ms.
    context.set_forkserver_preload(["carnac.engine.part", stage.work.__module__])
    pool = ProcessPoolExecutor(min(workers, len(units)), mp_context=context, initializer=_begin_worker)
    others = set(multiprocessing.active_children())
    try:
        futures: list[Future[str]] = [pool.submit(do_unit, stage, unit, folder) for unit in units]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise RunError(
            f"{stage.name}: a worker process died (killed, or out of memory). What it had committed is kept; "
            "run the same command again, with fewer --workers if memory was short."
        ) from None
    except KeyboardInterrupt:
        # Units take minutes: end the workers now instead of waiting for what they do and for what is queued to them.
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent answers it
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()

"""Trains a recipe in processes that can be killed: `jobs_training.py`, a line of JSON on stdin for each.

A line names a recipe file. Each run is a process of its own, forked from this one, which has imported what it takes;
its number is printed, and its exit status when it ends. Of each step a line goes to `steps.jsonl` beside the recipe:
its number, its loss and gradient norm, a digest of its batch.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from carnac.core.batch import Batch
from carnac.core.errors import CarnacError
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import EarlyEnd, Runner

ARRAYS = ("input_ids", "labels", "positions", "segment", "image_slots", "image_of_token", "pixels")


def digest(batch: Batch) -> str:
    """Return a digest of everything in a batch."""
    found = hashlib.sha256(repr((batch.provenance, batch.stand_ins)).encode())
    for name in ARRAYS:
        found.update(getattr(batch, name).tobytes())
    return found.hexdigest()


def run(recipe: Path) -> None:
    """Run a recipe, noting each step."""
    from carnac.jobs import train
    from carnac.jobs.recipes import load_checked
    from carnac.jobs.train_watch import Watch

    told = Watch.on_step

    def on_step(watch: Watch, record: Any, batch: Batch, per_token: Any) -> None:
        line = {"step": record.step, "loss": record.loss, "norm": record.gradient_norm, "batch": digest(batch)}
        with recipe.with_name("steps.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        told(watch, record, batch, per_token)

    Watch.on_step = on_step  # type: ignore[method-assign, assignment]
    with recipe.with_name("said.txt").open("a") as file:
        (loaded,) = load_checked([recipe], [])
        try:
            runner = Runner(reporter=TerminalReporter(file), preload=("carnac.jobs.train",))
            train.run(loaded.settings, runner)  # type: ignore[arg-type]
        except EarlyEnd:
            pass
        except CarnacError as error:
            print(error, file=file)
            raise


def main() -> None:
    """Run what is asked for, one after the other."""
    # What a run imports, once for all of them; not above, where the workers of each run would import it too.
    for name in ("carnac.jobs.train", "carnac.model.start", "carnac.train.loop"):
        importlib.import_module(name)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for line in sys.stdin:
        process = os.fork()
        if not process:
            status = 1
            try:
                run(Path(line.strip()))
                status = 0
            except KeyboardInterrupt:
                status = 130
            finally:
                os._exit(status)
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    main()

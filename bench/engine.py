"""What the engine costs: its units against a bare ProcessPoolExecutor, and a run with nothing to do.

    bench/engine.py [--units 50] [--seconds 2] [--rounds 5] [--workers 2] [--finished 10000]

Each run is a process of its own, as a user's is: it starts its own fork server.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
from turns import in_turns, report

from carnac.engine.child import do_unit
from carnac.engine.guard import Done
from carnac.engine.local import run_units
from carnac.engine.part import Part
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit

SCHEMA = pa.schema([("value", pa.int64())])
RECORDS = 100  # of a unit: as many turns of its journal and timers


def compute(seed: int, steps: int) -> int:
    """Go `steps` steps of a generator of random numbers."""
    value = seed
    for _ in range(steps):
        value = (value * 6364136223846793005 + 1442695040888963407) % 2**64
    return value % 2**62


def compute_all(task: tuple[int, int]) -> list[int]:
    """Compute the records of a unit."""
    seed, steps = task
    return [compute(seed + record, steps) for record in range(RECORDS)]


def work(unit: Unit, part: Part) -> None:
    """Compute and write the records of a unit, each tried on its own."""
    seed, steps = unit.task
    for record in range(RECORDS):
        part.write({"value": part.attempt(f"{seed}@{record}", compute, seed + record, steps)})


STAGE = Stage(name="bench", version=1, schema=SCHEMA, work=work)


def units_of(tasks: Sequence[tuple[int, int]]) -> list[Unit]:
    """Return a unit per task."""
    return [STAGE.unit(f"{seed:05d}", (seed, steps), settings={}, inputs=[]) for seed, steps in tasks]


def bare(tasks: Sequence[tuple[int, int]], workers: int) -> None:
    """Map the function over a pool."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver")) as pool:
        assert len(list(pool.map(compute_all, tasks))) == len(tasks)


def engine(tasks: Sequence[tuple[int, int]], workers: int) -> None:
    """Do the same as committed units."""
    with tempfile.TemporaryDirectory() as folder:
        events = run_units(STAGE, units_of(tasks), Path(folder), workers)
        assert sum(isinstance(event, Done) for event in events) == len(tasks)


def steps_for(seconds: float) -> int:
    """Return how many steps take `seconds` of CPU on this machine, now."""
    steps = 200_000
    times = []
    for _ in range(5):
        began = time.process_time()
        compute(0, steps)
        times.append(time.process_time() - began)
    return int(steps * seconds / statistics.median(times))


def empty_run(number: int) -> None:
    """Print how long a run over `number` finished units takes."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "out"
        folder.mkdir()
        units = units_of([(seed, 1) for seed in range(number)])
        for unit in units:
            do_unit(STAGE, unit, folder)
        for name in ("before its manifest", "again"):
            began = time.perf_counter()
            runner = Runner(reporter=TerminalReporter())
            runner.publish(STAGE, folder, runner.do(STAGE, units, folder), {}, {})
            print(f"a run over {number:,} finished units, {name}: {time.perf_counter() - began:.2f} s")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--units", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time of one unit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--finished", type=int, default=10_000, help="units of the run with nothing to do; 0: none")
    parser.add_argument("--only", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        RUNS[asked.only]([(seed, asked.steps) for seed in range(asked.units)], asked.workers)
        return
    if asked.units:
        steps = steps_for(asked.seconds / RECORDS)
        arguments = [sys.executable, __file__, f"--units={asked.units}", f"--workers={asked.workers}"]
        commands = {name: [*arguments, f"--steps={steps}", f"--only={name}"] for name in RUNS}
        runs = {name: functools.partial(subprocess.run, command, check=True) for name, command in commands.items()}
        report(in_turns(runs, rounds=asked.rounds, clock=time.perf_counter), "bare pool")
    if asked.finished:
        empty_run(asked.finished)


RUNS = {"bare pool": bare, "engine": engine}

if __name__ == "__main__":
    main()

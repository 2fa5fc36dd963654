"""Wall time of 24 units of about 0.5 s in the engine, against a bare ProcessPoolExecutor over the same function."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
from turns import in_turns, report

from carnac.engine.local import run_units
from carnac.engine.part import Part
from carnac.engine.unit import Stage, Unit

NUM_UNITS, WORKERS = 24, 2
SCHEMA = pa.schema([("value", pa.int64())])


def compute(seed: int) -> int:
    """Use about half a second of CPU."""
    value = seed
    for _ in range(4_000_000):
        value = (value * 6364136223846793005 + 1442695040888963407) % 2**64
    return value % 2**62


def work(unit: Unit, part: Part) -> None:
    """Compute and write one row."""
    part.write({"value": compute(unit.task)})


STAGE = Stage(name="bench", version=1, schema=SCHEMA, work=work)


def bare() -> None:
    """Map the function over a pool."""
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("forkserver")) as pool:
        assert len(list(pool.map(compute, range(NUM_UNITS)))) == NUM_UNITS


def engine() -> None:
    """Do the same as committed units."""
    units = [STAGE.unit(f"{number:03d}", number, settings={}, inputs=[]) for number in range(NUM_UNITS)]
    with tempfile.TemporaryDirectory() as folder:
        assert len(list(run_units(STAGE, units, Path(folder), WORKERS))) == NUM_UNITS


def main() -> None:
    """Run the benchmark."""
    report(in_turns({"bare pool": bare, "engine": engine}, rounds=5, clock=time.perf_counter), "bare pool")


if __name__ == "__main__":
    main()

"""Batches made by other processes: the same ones, in order, whatever happens to whom."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from mix_samples import MIX, PICTURES, SOURCE, pieces_of_shards, real_samples, real_tokenizer, write_plan, write_shard

from carnac.core.batch import Batch
from carnac.core.errors import InputError, RunError
from carnac.engine.storage import is_alive
from carnac.mix.ahead import BatchesAhead
from carnac.mix.batches import BatchReader
from carnac.mix.plan import make_plan
from carnac.mix.settings import MixSettings
from carnac.sequence.layout import Sample

# Small batches: a thousand of them are made several times.
SMALL = MixSettings.model_validate({**MIX.model_dump(), "rows_per_batch": 1, "row_tokens": 128})


def beginning(sample: Sample) -> Sample:
    """Return the first blocks of a page, and little of each text: long ones would be tokenised for minutes."""
    return replace(
        sample, texts=tuple(text and text[:150] for text in sample.texts[:8]), images=tuple(sample.images[:8])
    )


@pytest.fixture(scope="module", name="shards")
def fixture_shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("shards")
    samples = [beginning(sample) for sample in real_samples()]
    return {name: write_shard(folder / f"{name}.parquet", samples[number::2]) for number, name in enumerate(("a", "b"))}


@pytest.fixture(scope="module", name="table")
def fixture_table(shards: dict[str, Path]) -> pa.Table:
    pieces = pieces_of_shards(shards, SMALL)
    return make_plan(pieces, [SOURCE], SMALL, 1000)


@pytest.fixture(name="reader")
def fixture_reader(shards: dict[str, Path], table: pa.Table, tmp_path: Path) -> BatchReader:
    path = write_plan(tmp_path / "rows.parquet", table)
    return BatchReader(path, shards, real_tokenizer(), PICTURES, SMALL)


def digest(batch: Batch) -> str:
    """Return the sha256 of every array of a batch, to the bit, and of where it came from."""
    found = hashlib.sha256()
    for field in fields(Batch):
        value = getattr(batch, field.name)
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype} {value.shape}".encode())
            found.update(np.ascontiguousarray(value).tobytes())
        else:
            found.update(repr(value).encode())
    return found.hexdigest()


def all_ended(processes: list[int], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(is_alive(process) for process in processes):
            return True
        time.sleep(0.05)
    return False


def test_one_two_and_three_workers_give_the_same_batches_as_none(reader: BatchReader) -> None:
    steps = range(7, 90)
    met = {}
    for workers in (0, 1, 2, 3):
        with BatchesAhead(reader, steps, workers) as batches:
            met[workers] = [digest(batches(step)) for step in steps]
    assert met[1] == met[2] == met[3] == met[0]
    assert len(set(met[0])) == len(steps)


def test_a_thousand_batches_made_cold_in_any_order_equal_those_met_in_the_run(
    reader: BatchReader, shards: dict[str, Path]
) -> None:
    with BatchesAhead(reader, range(1000), workers=2) as batches:
        met = [digest(batches(step)) for step in range(1000)]
    order = np.random.default_rng(0).permutation(1000).tolist()
    for number, n in enumerate(order):
        if number % 50 == 0:  # a reader that has read nothing yet
            reader = pickle.loads(pickle.dumps(reader))  # noqa: S301 -- made in this line
        assert digest(reader.batch(n)) == met[n]


def test_batches_are_made_ahead_but_not_far(reader: BatchReader) -> None:
    with BatchesAhead(reader, range(100), workers=1, depth=3) as batches:
        batches(0)
        (worker,) = batches._workers
        deadline = time.monotonic() + 20
        while worker._ready.qsize() < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        assert worker._ready.qsize() == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_when_its_batch_is_asked_for(reader: BatchReader, workers: int) -> None:
    with BatchesAhead(reader, range(997, 1003), workers) as batches:
        for step in range(997, 1000):
            assert digest(batches(step)) == digest(reader.batch(step))
        with pytest.raises(InputError, match="no batch 1000: the plan holds batches 0 to 999"):
            batches(1000)


def test_a_worker_that_is_killed_is_a_sentence(reader: BatchReader) -> None:
    with BatchesAhead(reader, range(200), workers=2) as batches:
        batches(0)
        os.kill(batches._workers[1]._process.pid or 0, signal.SIGKILL)
        with pytest.raises(RunError, match=r"step \d+: the process that makes batches died \(SIGKILL\)\. Short of mem"):
            _ = [batches(step) for step in range(1, 200)]


def test_signals_that_stop_a_run_leave_the_workers_to_their_parent(reader: BatchReader) -> None:
    with BatchesAhead(reader, range(60), workers=1) as batches:
        batches(0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(batches._workers[0]._process.pid or 0, number)
        assert [digest(batches(step)) for step in range(1, 60)][-1] == digest(reader.batch(59))


def test_leaving_early_ends_processes_and_threads(reader: BatchReader) -> None:
    with BatchesAhead(reader, range(200), workers=2) as batches:
        processes = [worker._process.pid or 0 for worker in batches._workers]
        batches(0)
    assert all_ended(processes)
    assert not [thread for thread in threading.enumerate() if thread.name == "carnac-batches-ahead"]


def test_workers_end_with_a_run_that_is_killed(reader: BatchReader, tmp_path: Path) -> None:
    (tmp_path / "reader").write_bytes(pickle.dumps(reader))
    script = Path(__file__).with_name("mix_ahead_run.py")
    with subprocess.Popen([sys.executable, script, tmp_path / "reader"], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        workers = [int(word) for word in run.stdout.readline().split()]
        below = [child.pid for child in psutil.Process(run.pid).children(recursive=True)]
        assert len(workers) == 2
        assert set(workers) <= set(below)
        run.kill()
        run.wait()
    assert all_ended(below)


def test_a_step_out_of_turn_is_our_own_mistake(reader: BatchReader) -> None:
    with BatchesAhead(reader, range(3), workers=0) as batches, pytest.raises(AssertionError, match="asked for 2"):
        batches(2)


def test_arrays_arrive_as_they_were_sent(reader: BatchReader) -> None:
    with BatchesAhead(reader, range(5), workers=1) as batches:
        batch = batches(0)
    changed = replace(batch, labels=batch.labels)
    changed.labels[:] = 0  # whoever gets a batch may write into it, as into one of its own process
    assert batch.pixels.flags.c_contiguous

"""Orders, numbers of workers, two runs at once, kills at every step: the output is one. See `engine_schedules.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "engine_schedules.py"
NUM_SCHEDULES = 1000
BATCH = 100  # schedules of one process: its dead threads wait until it ends
MUTATIONS = ["a rename that is a copy", "no sweep", "one temporary name for all", "a sweep of the living"]


def schedules(folder: Path, first: int, number: int, mutation: str = "none") -> Iterator[dict[str, Any]]:
    """Yield what came of each schedule: what a run said that should have ended well, which files differ."""
    arguments = [sys.executable, str(SCRIPT), str(folder), str(first), str(number), mutation]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield json.loads(line)
            assert process.wait() == 0
        finally:
            process.kill()


def test_a_thousand_schedules_give_one_output(tmp_path: Path) -> None:
    killed: Counter[str] = Counter()
    possible: set[str] = set()
    num_done = 0
    for first in range(0, NUM_SCHEDULES, BATCH):
        for came in schedules(tmp_path / str(first), first, BATCH):
            assert (came["said"], came["differs"]) == ([], []), f"seed {came['seed']}, killed at {came['killed']}"
            killed.update(came["killed"])
            possible |= came["possible"].keys()
            num_done += 1
    assert num_done == NUM_SCHEDULES
    assert possible == {
        *(f"{verb} {what}" for verb in ("write", "flush", "rename") for what in WRITTEN),
        *(f"remove {what}" for what in (".run.json", "culprits", ".parquet", ".bin")),
        "make folder",
        "flush folder",
        "look",
        "wait",
        "try a record",
    }, "the steps by which the engine changes a folder; see engine/storage.py"
    assert possible <= killed.keys(), "somebody was killed at each of them"


WRITTEN = (".parquet", ".bin", "manifest", "culprits", ".run.json")


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_an_engine_that_is_wrong_is_found_out(tmp_path: Path, mutation: str) -> None:
    found = (
        came["seed"] for came in schedules(tmp_path, 0, NUM_SCHEDULES, mutation) if came["said"] or came["differs"]
    )
    assert next(found, None) is not None

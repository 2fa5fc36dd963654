"""Peak memory of a step in a process of its own, which holds one model alone."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from carnac.model.formats import NAMES, FormatName
from model.pairs import SIZES, exported, make_ours
from model.steps import Rows, Step, our_step, our_step_with_all_logits, rows_of, their_step

BENCH = Path(__file__).parents[1]
WAYS = ("ours", "ours, all logits", "theirs")
STEPS = 3  # after which no step has taken more than the one before


def peak_mb(way: str, name: FormatName, size: str, rows: Rows, options: Sequence[str]) -> float:
    """Return the most memory, in MB, that a process held during its steps; on a GPU, that tensors took."""
    arguments = [way, name, size, str(rows.rows), str(rows.tokens), str(rows.pictures), *options]
    command = [sys.executable, "-m", "model.peak", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=BENCH)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _step(way: str, name: FormatName, size: str, rows: Rows, device: str) -> Step:
    ours: Any = make_ours(name, SIZES[size])
    prompts = rows_of(rows, ours)
    if way == "theirs":
        with tempfile.TemporaryDirectory() as folder:
            theirs = exported(ours, name, SIZES[size], Path(folder))
        del ours
        return their_step(theirs.to(device), prompts)
    step = our_step if way == "ours" else our_step_with_all_logits
    return step(ours.to(device), prompts)


def main() -> None:
    """Run a way's steps and print the peak."""
    way, name, size, num_rows, tokens, pictures, threads, device = sys.argv[1:]
    torch.set_num_threads(int(threads))
    rows = Rows(rows=int(num_rows), tokens=int(tokens), pictures=int(pictures))
    step = _step(way, next(known for known in NAMES if known == name), size, rows, device)
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of building, Linux 4.0 and later
    else:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(STEPS):
        step()
    if device == "cpu":
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        print(int(line.split()[1]) / 1024)
    else:
        print(torch.cuda.max_memory_allocated() / 2**20)


if __name__ == "__main__":
    main()

"""`scripts/bench train [--rounds 9]`: packed training beside a language model alone, padding and transformers.

The pinned configuration: a language model of 7 M parameters, pictures of 112 pixels, one for each row of 512 tokens,
one thread, batches made beforehand. Every way trains on the same pieces; CPU seconds, in turns. Wanted: packed at least
0.92 times the tokens per second of the language model alone on dense rows, and at least 1.6 times those of padded rows.
`--waiting` measures instead, in a real run with one worker, what share of its time training waits for batches.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from turns import machine

from train.pinned import SIZES, Size, make_ours, num_parameters
from train.rows import SPREADS, draw_rows
from train.speed import COMPARED, line, mean_fill, measure, ratio, ways_of
from train.waiting import WANTED, measure_waiting


def speed(size: Size, spread: float, batches: int, rounds: int) -> dict[str, Any]:
    """Time all ways on pieces of a spread, print their lines and return the figures."""
    rows, ways = draw_rows(size, spread, batches), ways_of(size, spread, batches)
    fills = {"packed": mean_fill(rows, lambda each: each.packed), "padded": mean_fill(rows, lambda each: each.padded)}
    told = ", ".join(f"{name} rows {share:.3f} full" for name, share in fills.items())
    print(
        f"== lengths of log-normal spread {spread}, {sum(len(each.packed.provenance) for each in rows)} pieces: {told}"
    )
    measured = measure(ways, rounds)
    medians = {name: statistics.median(values) for name, values in measured.rates.items()}
    for name, median in medians.items():
        print(f"{name:40} {median:6.0f} tokens per CPU second, loss of the first round {measured.losses[name]:.6f}")
    compared = {f"{way} v. {other}": ratio(measured.rates, way, other) for way, other in COMPARED}
    for name, facts in compared.items():
        print(line(name, facts))
    return {
        "spread": spread,
        "fill": fills,
        "losses": measured.losses,
        "tokens_per_second": medians,
        "ratios": compared,
    }


def waiting(size: Size, steps: int) -> dict[str, float]:
    """Measure waiting for data, print a line and return the figures."""
    facts = measure_waiting(size, steps)
    print(
        f"waiting for batches: {facts['share']:.2%} of {facts['steps']:.0f} steps (wanted < {WANTED:.0%}), median "
        f"{1000 * facts['waiting_seconds']:.1f} ms of {facts['step_seconds']:.2f} s; a batch costs its worker "
        f"{1000 * facts['batch_seconds']:.0f} ms of CPU"
    )
    return facts


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="train", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="pinned")
    parser.add_argument("--spread", type=float, nargs="+", default=list(SPREADS))
    parser.add_argument("--batches", type=int, default=4, help="batches that a round trains on")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--waiting", action="store_true", help="measure waiting for data instead")
    parser.add_argument("--steps", type=int, default=40, help="steps of the run that waits")
    parser.add_argument("--out", type=Path, help="a file for the figures, as JSON")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    size = SIZES[asked.size]
    parameters = num_parameters(make_ours(size)) / 1e6
    print(f"{machine()}, one thread, torch {torch.__version__}; {asked.size}: {parameters:.1f} M parameters")
    if asked.waiting:
        results: list[Any] = [waiting(size, asked.steps)]
    else:
        results = [speed(size, spread, asked.batches, asked.rounds) for spread in asked.spread]
    if asked.out:
        outcome = {"machine": machine(), "torch": torch.__version__, "size": asked.size, "results": results}
        asked.out.write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

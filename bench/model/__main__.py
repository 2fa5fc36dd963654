"""`scripts/bench model [--pairs 15]`: forward and backward beside transformers' classes, at three sizes.

The same rows, the same weights, each library with its own loss. Wanted: at least 0.97 times as fast, at most 1.05 times
the peak memory. carnac makes logits at the labels alone; what that is worth is measured too, against carnac itself with
logits everywhere, which is also the like-for-like comparison with transformers' class.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from turns import machine

from carnac.model.formats import NAMES, FormatName
from model.pairs import SIZES, make_pair, num_parameters
from model.pairwise import in_pairs, line
from model.peak import WAYS, peak_mb
from model.steps import Rows, our_step, our_step_with_all_logits, rows_of, their_step

# Rows of half pictures, half text (Idefics3's 36 to 49 tokens of a picture; LLaVA keeps all patches), per size.
ROWS = {
    "tiny": Rows(rows=4, tokens=64, pictures=1),
    "small": Rows(rows=8, tokens=256, pictures=2),
    "medium": Rows(rows=4, tokens=512, pictures=3),
    "large": Rows(rows=2, tokens=512, pictures=1),
}
WANTED, MOST_MEMORY = 0.97, 1.05


def measure(name: FormatName, size: str, pairs: int, device: str) -> dict[str, object]:
    """Time a size, print its lines and return the figures."""
    pair = make_pair(name, SIZES[size], device)
    rows = rows_of(ROWS[size], pair.ours)
    ours, everywhere = our_step(pair.ours, rows), our_step_with_all_logits(pair.ours, rows)
    theirs = their_step(pair.theirs, rows)
    losses = {"ours": ours(), "ours_all_logits": everywhere(), "theirs": theirs()}
    print(f"== {size}, {name}: {num_parameters(pair.ours) / 1e6:.1f} M parameters, {ROWS[size]}")
    print("   losses " + ", ".join(f"{way} {loss:.6f}" for way, loss in losses.items()))
    figures: dict[str, object] = {"format": name, "size": size, "losses": losses}
    place = torch.device(device)
    for what, first, second in (
        ("ours v. theirs", ours, theirs),
        ("ours with all logits v. theirs", everywhere, theirs),
        ("ours v. ours with all logits", ours, everywhere),
    ):
        facts = in_pairs(first, second, pairs, place).facts()
        print(line(what, facts))
        figures[what] = facts
    return figures


def memory(name: FormatName, size: str, options: list[str]) -> dict[str, float]:
    """Measure the peaks of a size, print a line and return them, in MB."""
    peaks = {way: peak_mb(way, name, size, ROWS[size], options) for way in WAYS}
    told = ", ".join(f"{way} {peak:.0f} MB" for way, peak in peaks.items())
    print(f"{'peak memory, ours v. theirs':44} {peaks['ours'] / peaks['theirs']:6.3f} x   {told}")
    return peaks


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="model", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, nargs="+", default=["small", "medium", "large"])
    parser.add_argument("--format", choices=NAMES, nargs="+", default=list(NAMES))
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="a file for the figures, as JSON")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    where = f"{machine()}, {asked.threads} threads" if asked.device == "cpu" else torch.cuda.get_device_name()
    print(f"{where}, torch {torch.__version__}; wanted >= {WANTED} x as fast, <= {MOST_MEMORY} x the memory")
    results: list[dict[str, object]] = []
    for size in asked.size:
        for name in asked.format:
            figures = measure(name, size, asked.pairs, asked.device)
            figures["peak_mb"] = memory(name, size, [str(asked.threads), asked.device])
            results.append(figures)
    if asked.out:
        outcome = {"machine": where, "torch": torch.__version__, "results": results}
        asked.out.write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

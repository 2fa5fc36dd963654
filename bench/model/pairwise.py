"""Time two ways in pairs, each pair in the other order than the last: what else the machine does falls on both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Seconds of each pair."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """How many times as fast ours is, pair by pair."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def facts(self) -> dict[str, float]:
        """Return the medians, and the ratio's median, quartiles, lowest and highest."""
        ratios = self.ratios
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        return {
            "ours_seconds": statistics.median(self.ours),
            "theirs_seconds": statistics.median(self.theirs),
            "ratio": statistics.median(ratios),
            "quartile_low": low,
            "quartile_high": high,
            "lowest": min(ratios),
            "highest": max(ratios),
            "pairs": len(ratios),
        }


def in_pairs(ours: Callable[[], object], theirs: Callable[[], object], pairs: int, device: torch.device) -> Paired:
    """Time both `pairs` times; one pair before warms up.

    One thread on a CPU is timed by what it computes, which other processes disturb less; else by the wall clock.
    """
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    seconds: Mapping[str, list[float]] = {"ours": [], "theirs": []}
    ways = [("ours", ours), ("theirs", theirs)]
    for number in range(pairs + 1):
        for name, way in ways if number % 2 else reversed(ways):
            _wait(device)
            began = clock()
            way()
            _wait(device)
            if number:
                seconds[name].append(clock() - began)
    return Paired(ours=tuple(seconds["ours"]), theirs=tuple(seconds["theirs"]))


def line(what: str, facts: Mapping[str, float]) -> str:
    """Return a line of a report."""
    spread = f"{facts['lowest']:.3f} to {facts['highest']:.3f}"
    middle = f"{facts['quartile_low']:.3f} to {facts['quartile_high']:.3f}"
    return (
        f"{what:44} {facts['ratio']:6.3f} x   half within {middle}, all {spread}   "
        f"{facts['ours_seconds']:.3f} s v. {facts['theirs_seconds']:.3f} s"
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""Time functions in turns, so that what else the machine does falls on all of them alike; report ratios."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping


def in_turns(
    functions: Mapping[str, Callable[[], object]], *, rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Return the seconds of every round of every function; the first round, which warms up, is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            began = clock()
            function()
            if number:
                seconds[name].append(clock() - began)
    return seconds


def machine() -> str:
    """Return what a benchmark ran on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{cores} {platform.machine()} cores, {memory:.0f} GiB, Python {platform.python_version()}"


def report(seconds: Mapping[str, list[float]], floor: str) -> None:
    """Print each function's median and, round by round, its ratio to the floor: median, lowest, highest."""
    print(f"{platform.machine()}, Python {platform.python_version()}, {len(seconds[floor])} rounds in turns")
    for name, times in seconds.items():
        ratios = [time / base for time, base in zip(times, seconds[floor], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{name:32} {statistics.median(times):8.3f} s   {statistics.median(ratios):6.2f} x {floor} ({spread})")

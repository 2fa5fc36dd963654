"""CPU of methods on pages, in turns: what else the machine does falls on all of them alike.

Every page is timed as if it came first: what a method remembers of pages (class names, trimmed texts) is cleared
before, since a page that is read again in each round would find all of it there.
"""

from __future__ import annotations

import gc
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from random import Random
from typing import Any

from extraction.methods import Method
from extraction.pages import Page

MIN_BYTES = 10_000  # smaller pages say little of time per byte
MAX_CPU_SECONDS = 15  # of a method on one page made to cost much
ENOUGH_SECONDS = 0.5  # such a page is not timed again after them
MAX_MEMORY = 4 * 2**30
_REMEMBERING = frozenset(("carnac", "trafilatura", "htmldate", "courlan", "justext", "readability", "resiliparse"))


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of CPU by method, page and round; and why a method gave nothing on a page."""

    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    refusals: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, method: str, page: str, seconds: float, refusal: str | None) -> None:
        """Add one round of a method on a page."""
        self.seconds.setdefault(method, {}).setdefault(page, []).append(seconds)
        if refusal is not None:
            self.refusals.setdefault(method, {})[page] = refusal

    def medians(self, method: str) -> dict[str, float]:
        """Return the seconds by page, each the median of its rounds."""
        return {page: statistics.median(rounds) for page, rounds in self.seconds[method].items()}

    def sums(self, method: str) -> list[float]:
        """Return the seconds of all pages, by round."""
        return [sum(times) for times in zip(*self.seconds[method].values(), strict=True)]

    def ratios(self, method: str, floor: str) -> list[float]:
        """Return how many times the floor a method takes for all pages, by round."""
        return [time / base for time, base in zip(self.sums(method), self.sums(floor), strict=True)]


def measure(methods: Sequence[Method], pages: Sequence[Page], rounds: int, draw: Random) -> Timings:
    """Time every method on every page, `rounds` times, in an order drawn anew; one round before warms up."""
    timings, forgets = Timings(), _caches()
    for number in range(rounds + 1):
        for page in draw.sample(pages, len(pages)):
            for method in draw.sample(methods, len(methods)):
                for forget in forgets:
                    forget()
                seconds, refusal = _time(method, page)
                if number:
                    timings.add(method.name, page.name, seconds, refusal)
        gc.collect()  # outside any method's time
        if not number:
            gc.freeze()  # what was loaded is no method's garbage
    return timings


def _caches() -> list[Callable[[], None]]:
    """Return what clears the bounded caches of the methods; an unbounded one holds what is loaded once, as a model."""
    found: dict[int, Callable[[], None]] = {}
    for name, module in list(sys.modules.items()):
        for value in list(vars(module).values()) if name.partition(".")[0] in _REMEMBERING else ():
            if _is_bounded_cache(value):
                found[id(value)] = value.cache_clear
    return list(found.values())


def _is_bounded_cache(value: Any) -> bool:
    parameters = getattr(value, "cache_parameters", None)
    return parameters is not None and parameters()["maxsize"] is not None


def measure_apart(methods: Sequence[Method], page: Page, rounds: int) -> Timings:
    """Time methods on a page made to cost much, each in a process with bounds; a method that is missing went over them.

    The methods have been used before: a fork is warm.
    """
    context = multiprocessing.get_context("fork")
    timings = Timings()
    for method in methods:
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_measure_here, args=(method, page, rounds, writer))
        process.start()
        writer.close()
        try:
            while True:
                timings.add(*reader.recv())
        except EOFError:
            process.join()
    return timings


def _measure_here(method: Method, page: Page, rounds: int, writer: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
    forgets, spent = _caches(), 0.0
    for _ in range(rounds):
        if spent < ENOUGH_SECONDS:
            for forget in forgets:
                forget()
            seconds, refusal = _time(method, page)
            spent += seconds
            writer.send((method.name, page.name, seconds, refusal))


def _time(method: Method, page: Page) -> tuple[float, str | None]:
    refusal = None
    began = time.process_time()
    try:
        method.run(page)
    except Exception as error:  # noqa: BLE001 -- whatever a library raises is told beside its time
        refusal = f"{type(error).__name__}: {error}"[:200]
    return time.process_time() - began, refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class PerByte:
    """Seconds of CPU per byte over pages of at least `MIN_BYTES`."""

    median: float
    worst: float
    worst_page: str


def per_byte(medians: Mapping[str, float], num_bytes: Mapping[str, int]) -> PerByte | None:
    """Return the time per byte of one method, if any page is large enough to say."""
    rates = {page: medians[page] / num_bytes[page] for page in medians if num_bytes[page] >= MIN_BYTES}
    if not rates:
        return None
    worst = max(rates, key=lambda page: rates[page])
    return PerByte(median=statistics.median(rates.values()), worst=rates[worst], worst_page=worst)

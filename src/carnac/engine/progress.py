"""Progress of long work: a bar on a terminal, a plain line now and then in a pipe or a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0  # between two lines of a log: readable after a night, alive after a coffee


class Task(Protocol):
    """One piece of long work under way."""

    def advance(self, number: int = 1, note: str = "") -> None:
        """Say that `number` more are done; `note` replaces what stands beside the bar."""

    def show(self, note: str) -> None:
        """Replace what stands beside the bar."""


class Reporter(Protocol):
    """Where a run tells its user what it does."""

    def say(self, line: str) -> None:
        """Print one line."""

    def task(self, name: str, total: int, done: int = 0, *, is_step: bool = False) -> AbstractContextManager[Task]:
        """Open a progress display over `total` things of which `done` are done. Of a step nothing stays to be read."""


class _Bar:
    def __init__(self, progress: Progress, name: str, total: int, done: int) -> None:
        self._progress = progress
        self._id = progress.add_task(name, total=total, completed=done, note="")

    def advance(self, number: int = 1, note: str = "") -> None:
        self._progress.advance(self._id, number)
        if note:
            self.show(note)

    def show(self, note: str) -> None:
        self._progress.update(self._id, note=note)


class _PlainLines:
    def __init__(self, stream: TextIO, name: str, total: int, done: int, *, ends_silently: bool) -> None:
        self._stream, self._name, self._total, self._done = stream, name, total, done
        self._started = self._said = time.monotonic()
        self._first = done
        self._note = ""
        self._is_over = ends_silently

    def advance(self, number: int = 1, note: str = "") -> None:
        self._done += number
        self.show(note or self._note)

    def show(self, note: str) -> None:
        self._note = note
        now = time.monotonic()
        is_last = self._done == self._total and not self._is_over
        if now - self._said < PLAIN_SECONDS and not is_last:
            return
        self._is_over = is_last
        self._said = now
        rate = (self._done - self._first) / max(now - self._started, 1e-9)
        left = f", about {(self._total - self._done) / rate:.0f} s left" if rate and self._done < self._total else ""
        line = f"{self._name}: {self._done}/{self._total} after {now - self._started:.0f} s{left}"
        print(f"{line}  {note}".rstrip(), file=self._stream, flush=True)


class TerminalReporter:
    """Report to a terminal with bars, or to anything else with plain lines. Everything goes to `stream` (stderr)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._console = Console(file=self._stream, highlight=False, emoji=False)

    def say(self, line: str) -> None:
        """Print one line."""
        if self._console.is_terminal:
            self._console.print(line, markup=False, soft_wrap=True)
        else:
            print(line, file=self._stream, flush=True)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0, *, is_step: bool = False) -> Iterator[Task]:
        """Open a progress display over `total` things of which `done` are done. Of a step nothing stays to be read."""
        if not self._console.is_terminal:
            yield _PlainLines(self._stream, name, total, done, ends_silently=is_step)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console, transient=is_step) as progress:
            yield _Bar(progress, name, total, done)

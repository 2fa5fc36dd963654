"""What asks a run to save or to stop: SIGTERM, SIGINT (Ctrl-C) and SIGHUP once, a file `save` or `stop` in its folder.

The step under way is finished first. A second signal ends the process as if there were no training.
"""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

Request = Literal["save", "stop"]
REQUESTS: tuple[Request, ...] = ("stop", "save")  # where both are there, the one that does both


class Requests:
    """Listens while it is open. In another thread than the main one it hears files only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before: dict[signal.Signals, Any] = {}
        self.signal: signal.Signals | None = None

    def pending(self) -> Request | None:
        """Return what is asked for now; a look at two files takes microseconds."""
        if self.signal is not None:
            return "stop"
        return next((request for request in REQUESTS if (self._folder / request).exists()), None)

    def settle(self) -> None:
        """Remove the files: what they asked for is done."""
        for request in REQUESTS:
            (self._folder / request).unlink(missing_ok=True)

    @property
    def asker(self) -> str:
        """Who asked for a stop, in words."""
        return self.signal.name if self.signal is not None else f"the file {self._folder / 'stop'}"

    def end_as_asked(self) -> None:
        """Hand the signal that asked for the stop to whoever heard it before; return where a file asked."""
        self._restore()
        if self.signal is not None:
            signal.raise_signal(self.signal)

    def __enter__(self) -> Requests:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_IGN:  # as nohup leaves SIGHUP
                continue
            try:
                self._before[number] = signal.signal(number, self._hear)
            except ValueError:  # only the main thread hears signals
                return self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            self._restore()
            signal.raise_signal(number)
        self.signal = signal.Signals(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

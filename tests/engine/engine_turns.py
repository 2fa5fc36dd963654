"""Simulated processes that take turns, in an order drawn by lot, and may be killed at any step."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Kills = dict[tuple[str, int], str]  # at which step, of its kind the how manieth, dies "worker", "run" or "all"
FIRST_NUMBER = 10_000_000  # of simulated processes: above what Linux gives
MAX_STEPS = 100_000  # of one round: a thousand times what one takes


@dataclass(eq=False)
class Process:
    """A simulated process of a run; `exit` is None while it lives."""

    number: int
    run: int
    is_child: bool
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    exit: int | None = None
    waits: bool = False


class World:
    """Who lives, whose turn it is, and when somebody is killed."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.killed: Counter[str] = Counter()
        self.steps: Counter[str] = Counter()
        self.said: list[str] = []
        self.refuses = False  # whether a run sees another one in its folder
        self._here = threading.local()
        self._over = threading.Semaphore(0)
        self._next_number = FIRST_NUMBER
        self._kills: Kills = {}
        self.random = random.Random(0)

    @property
    def me(self) -> Process:
        """The process whose turn it is."""
        process: Process = self._here.process
        return process

    def is_alive(self, number: int) -> bool:
        """Stand in for a look at /proc."""
        return any(process.number == number for process in self.processes)

    def round(self, runs: Sequence[Callable[[], None]], kills: Kills) -> None:
        """Let `runs` go side by side until all have ended or were killed, as `kills` says."""
        self._kills = dict(kills)
        self.steps.clear()
        for number, function in enumerate(runs):
            self.spawn(function, run=number, is_child=False)
        self._hand_on()
        self._over.acquire()

    def spawn(self, function: Callable[[], None], *, run: int, is_child: bool) -> Process:
        """Begin a process; it waits for its first turn."""
        process = Process(number=self._next_number, run=run, is_child=is_child)
        self._next_number += 1
        self.processes.append(process)
        threading.Thread(target=self._live, args=(process, function), daemon=True).start()
        return process

    def _live(self, process: Process, function: Callable[[], None]) -> None:
        self._here.process = process
        process.turn.acquire()
        try:
            function()
        except Exception as error:  # noqa: BLE001 -- of a run that should have ended well: the schedule failed
            if not (self.refuses and "another run works here" in str(error)):
                self.said.append(f"{type(error).__name__}: {error}")
        self._bury(process, 0)
        self._hand_on()

    def step(self, kind: str) -> None:
        """Do nothing for a while, or for ever: others have their turns, and somebody may be killed."""
        if not hasattr(self._here, "process"):
            return  # the one who checks the outcome
        me = self.me
        me.waits = kind == "wait"
        self.steps[kind] += 1
        assert self.steps[kind] < MAX_STEPS, "the schedule does not end"
        if (victims := self._kills.pop((kind, self.steps[kind]), None)) is not None:
            self.killed[kind] += 1
            alone = victims == "worker" and me.is_child
            doomed = [p for p in self.processes if victims == "all" or (p is me if alone else p.run == me.run)]
            for process in doomed:
                self._bury(process, -9)
        self._hand_on()
        me.turn.acquire()

    def die(self, exit_code: int) -> None:
        """End the process whose turn it is."""
        me = self.me
        self._bury(me, exit_code)
        self._hand_on()
        me.turn.acquire()

    def kill(self, process: Process) -> None:
        """End another process."""
        if process.exit is None:
            self._bury(process, -9)

    def _bury(self, process: Process, exit_code: int) -> None:
        process.exit = exit_code
        self.processes.remove(process)

    def _hand_on(self) -> None:
        if self.processes:
            # Who only waits for others need not do so ten times before one of them has a turn.
            weights = [0.1 if process.waits else 1.0 for process in self.processes]
            self.random.choices(self.processes, weights)[0].turn.release()
        else:
            self._over.release()


WORLD = World()

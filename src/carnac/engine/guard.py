"""One unit and the children that it takes: what a record does to its process costs the record, not the run.

    child lives                     the unit is committed
    child dies with record R        R is tried again, alone, in a child of its own
        it dies again               R is quarantined (and noted on disk); the unit is done without it
        it lives                    the unit is done again; a third death with R in flight quarantines it all the same
    child dies between records      the unit is done again; after the fifth death it has failed, the others go on
                                    (the second one where it was stuck)

A kill from outside (an operator, the kernel short of memory) is no record's fault until it has happened three times.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from multiprocessing.context import ForkServerContext
from typing import Any

from carnac.core.errors import OutputError
from carnac.core.places import Place, read_bytes
from carnac.engine.child import Cause, Child, Said
from carnac.engine.journal import Journal, Watch, record_key
from carnac.engine.ledger import Quarantined
from carnac.engine.storage import remove, sweep, write_file
from carnac.engine.unit import Stage, Unit
from carnac.recipe.settings import Limits

MAX_DEATHS = 5  # between records
MAX_DEATHS_STUCK = 2  # an hour each
MAX_DEATHS_WITH_RECORD = 3
CULPRITS = ".culprits.json"
MAX_CULPRITS = 20  # of one unit: each costs up to two deadlines and begins the unit anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A unit was committed."""

    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A unit could not be done, for `why`."""

    unit: str
    why: str


class GuardedUnit:
    """One unit on its way: `start` it, then `poll` until it returns Done or Failed. `close` ends it at any time."""

    def __init__(self, stage: Stage, unit: Unit, folder: Place, limits: Limits, context: ForkServerContext) -> None:
        self.unit = unit
        self.started = time.time()
        self.journal = Journal()
        self._stage, self._folder, self._limits, self._context = stage, folder, limits, context
        self._culprits_file = culprits_file(folder, unit)
        self._culprits = read_culprits(folder, unit, limits)
        self._limited = {key: limit_of(one.reason, limits) for key, one in self._culprits.items()}
        self._deaths: Counter[bytes | None] = Counter()
        self._causes: dict[bytes | None, Cause] = {}
        self._child: Child | None = None

    def start(self, only: bytes | None = None) -> None:
        """Start a child on the unit, or on one record of it."""
        self.journal = Journal(self._context)  # what the newest child is at
        watch = Watch(journal=self.journal, limits=self._limits, culprits=self._culprits, only=only)
        self._child = Child(self._context, self._stage, self.unit, self._folder, watch)

    @property
    def waitables(self) -> list[Any]:
        """What becomes ready when there may be something to poll."""
        return [] if self._child is None else self._child.waitables

    @property
    def num_tries(self) -> int:
        """How many children the unit has cost so far."""
        return 1 + self._deaths.total()

    def poll(self) -> Done | Failed | None:
        """Return how the unit ended, or None while it runs (also when a new child had to be started).

        Raises OutputError where the child could not write.
        """
        child = self._child
        assert child is not None, f"{self.unit.name} was not started"
        if not child.has_ended():
            return None
        said, only = child.said, child.watch.only
        cause = child.cause() if said is None else None
        self.close()
        if said is not None:
            return self._answer(said, only)
        assert cause is not None
        sweep(self._folder)
        return self._react(cause, only)

    def close(self) -> None:
        """End the child, if there is one, now."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _answer(self, said: Said, only: bytes | None) -> Done | Failed | None:
        if isinstance(said.error, OutputError):
            raise said.error  # the disk or the store: it is the same for all units
        if said.error is not None:
            return Failed(unit=self.unit.name, why=str(said.error))
        if only is not None:
            # Alone it does no harm: it was the company, or the machine.
            self.start()
            return None
        if said.failure is not None:
            return Failed(unit=self.unit.name, why=said.failure)
        if self._culprits:
            remove(self._culprits_file)  # they are in the ledger of the part now
        return Done(unit=self.unit.name)

    def _react(self, cause: Cause, only: bytes | None) -> Failed | None:
        """Go on after a death, as the table at the head of this module says."""
        record = self.journal.record
        self._deaths[record] += 1
        deaths = self._deaths[record]
        if not cause.is_outside:
            self._causes[record] = cause  # what it does itself says more than who else killed it, and when
        if record is None:
            if deaths >= (MAX_DEATHS_STUCK if cause.reason == "stuck" else MAX_DEATHS):
                after = f" after record {last}" if (last := self.journal.last_record) else ""
                why = f"its process died {deaths} times outside any record{after}: {cause.detail}"
                return Failed(unit=self.unit.name, why=why)
            self.start(only)
        elif cause.is_outside and deaths < MAX_DEATHS_WITH_RECORD:
            self.start(only)
        elif only is None and deaths < MAX_DEATHS_WITH_RECORD:
            self.start(record)
        else:
            return self._condemn(record, self._causes.get(record, cause))
        return None

    def _condemn(self, record: bytes, cause: Cause) -> Failed | None:
        name = record.decode(errors="replace")
        self._culprits[record] = Quarantined(record=name, reason=cause.reason, detail=cause.detail)
        # On disk before the next try: a run that is killed meanwhile need not learn it again, whatever the load.
        self._limited[record] = limit_of(cause.reason, self._limits)
        lines = [{**asdict(one), "limit": self._limited.get(key)} for key, one in self._culprits.items()]
        write_file(self._culprits_file, (json.dumps(lines, indent=1) + "\n").encode())
        if len(self._culprits) > MAX_CULPRITS:
            reasons = Counter(culprit.reason for culprit in self._culprits.values()).most_common(3)
            commonest = ", ".join(f"{number} {reason}" for reason, number in reasons)
            why = (
                f"more than {MAX_CULPRITS} records ended their process ({commonest}). One of them again: carnac run "
                f"RECIPE --record '{name}'. If their limits are too tight, raise them under [limits]; to try them all "
                f"again, remove {self._culprits_file}."
            )
            return Failed(unit=self.unit.name, why=why)
        self.start()
        return None


def forget_culprits(folder: Place, there: Iterable[str]) -> None:
    """Remove what is noted of the records of units that are committed: a run was killed before it could.

    Their ledgers name them. `there` are the files of the folder.
    """
    names = set(there)
    for name in names:
        unit = name.removesuffix(CULPRITS)
        if unit != name and f"{unit.removeprefix('.')}.parquet" in names:
            remove(folder / name)


def culprits_file(folder: Place, unit: Unit) -> Place:
    """Return where the records that ended a process are noted until the unit is committed."""
    return folder / f".{unit.stem}{CULPRITS}"


def limit_of(reason: str, limits: Limits) -> float | None:
    """Return the limit that a record met which was lost for `reason`; None where it met none."""
    met = {"too_slow": limits.cpu_seconds, "stuck": limits.wait_seconds, "out_of_memory": limits.memory_mb}
    return met.get(reason)


def read_culprits(folder: Place, unit: Unit, limits: Limits | None = None) -> dict[bytes, Quarantined]:
    """Return the records of a unit, not yet committed, that ended a process, by `record_key`.

    With `limits`, one that met a lower limit than today's is left out: it deserves another try.
    """
    found = {}
    try:
        for fields in json.loads(read_bytes(culprits_file(folder, unit))):
            met = fields.pop("limit", None)
            culprit = Quarantined(**fields)
            now = None if limits is None else limit_of(culprit.reason, limits)
            if met is None or now is None or now <= met:
                found[record_key(culprit.record)] = culprit
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}  # none, or not as we write it: they are found again
    return found

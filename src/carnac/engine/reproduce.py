"""One lost record again, to see why: alone, in a child, what it raises or gives printed. Commits nothing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from carnac.core.places import Place
from carnac.engine.child import Child, fork_server
from carnac.engine.guard import culprits_file, read_culprits
from carnac.engine.journal import Journal, Watch, record_key
from carnac.engine.ledger import Quarantined, read_ledger
from carnac.engine.unit import Stage, Unit
from carnac.recipe.settings import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRecord:
    """A record in the quarantine of a unit. `noted` is the file that says so: without it, the record is tried again."""

    unit: Unit
    why: Quarantined
    noted: Place


def find_lost(units: Sequence[Unit], done: Sequence[Unit], folder: Place, record: str) -> LostRecord | None:
    """Return the unit of a lost record: by the ledgers of the units done, or what is noted of those not done yet."""
    for unit in done:
        for lost in read_ledger(folder / unit.file_name).quarantine:
            if lost.record == record:
                return LostRecord(unit=unit, why=lost, noted=folder / unit.file_name)
    for unit in units:
        if (culprit := read_culprits(folder, unit).get(record_key(record))) is not None:
            return LostRecord(unit=unit, why=culprit, noted=culprits_file(folder, unit))
    return None


def try_again(stage: Stage, lost: LostRecord, limits: Limits) -> str:
    """Try a record alone and return how it ended, in a sentence; its traceback or its result is printed on the way."""
    context = fork_server([])
    watch = Watch(
        journal=Journal(context),
        limits=limits,
        culprits={},
        only=record_key(lost.why.record),
        tells=True,
    )
    began = time.monotonic()
    # Not in the folder: it may be a colleague's, to be read only, and a crash would leave its temporary file there.
    with tempfile.TemporaryDirectory(prefix="carnac-record-") as scratch:
        child = Child(context, stage, lost.unit, Path(scratch), watch)
        try:
            while not child.has_ended():
                wait(child.waitables, timeout=0.05)
            return _verdict(child, lost, time.monotonic() - began)
        finally:
            child.close()


def _verdict(child: Child, lost: LostRecord, seconds: float) -> str:
    journal, said = child.watch.journal, child.said
    if said is None:
        cause = child.cause()
        if journal.record is None:
            return f"its unit's process died outside the record after {seconds:.1f} s: {cause.reason}; {cause.detail}."
        return f"lost again after {seconds:.1f} s: {cause.reason}; {cause.detail}."
    if said.error is not None:
        raise said.error
    if said.failure is not None:
        return f"the unit failed outside the record after {seconds:.1f} s: {said.failure}."
    if not journal.last_record:
        return "its unit does not try this record: it was lost while the input was read, before any work on it."
    if journal.lost:
        return f"lost again after {seconds:.1f} s; its traceback is above."
    return (
        f"sound now, after {seconds:.1f} s; what it gives is above. To take it in, remove {lost.noted} and run the "
        "recipe again."
    )

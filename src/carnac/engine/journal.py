"""What a worker is doing, in memory that outlives it: the record in flight, and how far it is.

The guard of a worker reads it after the worker has died, and so knows which record killed it. Deadlines need no guard:
the kernel ends a worker whose record takes too long. ITIMER_PROF counts the CPU seconds of the process, so a busy
machine shortens no record's time; ITIMER_REAL ends a wait that never returns. Both work while C code runs.
"""

from __future__ import annotations

import ctypes
import hashlib
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from typing import Any

from carnac.engine.ledger import Quarantined
from carnac.recipe.settings import Limits

RECORD_BYTES = 512  # of a record's name and the zero after it


class _Fields(ctypes.Structure):
    _fields_ = (
        ("record", ctypes.c_char * RECORD_BYTES),
        ("in_flight", ctypes.c_uint8),
        ("tried", ctypes.c_uint64),
        ("lost", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
    )


class Journal:
    """The shared memory of one worker. The worker writes, its guard reads; a byte that says "in flight" is last."""

    def __init__(self, context: ForkServerContext | None = None) -> None:
        # Without a context (a unit done in this very process, as a test may) nobody else reads.
        self._fields: Any = _Fields() if context is None else context.RawValue(_Fields)
        self._is_guarded = context is not None

    def note_life(self, limits: Limits) -> None:
        """Note that the unit gets on, outside any record: it may now be silent for a while."""
        if self._is_guarded and not self._fields.in_flight:
            signal.setitimer(signal.ITIMER_REAL, limits.silent_seconds)

    def begin(self, record: str, size: int, limits: Limits) -> None:
        """Note that `record` is in flight, and start its clocks."""
        self._fields.record = record_key(record)
        self._fields.bytes += size
        self._fields.in_flight = 1
        if not self._is_guarded:
            return
        signal.setitimer(signal.ITIMER_PROF, limits.cpu_seconds)
        signal.setitimer(signal.ITIMER_REAL, limits.wait_seconds)

    def land(self, limits: Limits) -> None:
        """Note that the record in flight has landed."""
        if self._is_guarded:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, limits.silent_seconds)
        self._fields.in_flight = 0

    def count_tried(self) -> None:
        """Count a record whose fate is known."""
        self._fields.tried += 1

    def count_lost(self) -> None:
        """Count a lost record."""
        self._fields.lost += 1

    @property
    def record(self) -> bytes | None:
        """The record in flight, as `record_key` gives it; None between records."""
        return bytes(self._fields.record) if self._fields.in_flight else None

    @property
    def last_record(self) -> str:
        """The record in flight or landed last, for a reader; "" before the first."""
        return bytes(self._fields.record).decode(errors="replace")

    @property
    def tried(self) -> int:
        """Number of records whose fate is known."""
        return int(self._fields.tried)

    @property
    def lost(self) -> int:
        """Number of records that were lost."""
        return int(self._fields.lost)

    @property
    def num_bytes(self) -> int:
        """Bytes of the records begun."""
        return int(self._fields.bytes)


def record_key(record: str) -> bytes:
    """Return the bytes by which a record is known in a journal; of text that such bytes decode to, the same bytes.

    The end of a name of 512 bytes or more gives way to a digest of all of it: long URLs that begin alike stay two
    records. Two records with one name are one to the guard: what one does to its process costs both.
    """
    name = record.encode(errors="backslashreplace").replace(b"\0", b" ")
    if len(name) < RECORD_BYTES:
        return name
    digest = f"~{hashlib.sha256(name).hexdigest()[:16]}".encode()
    # A character that is cut in the middle would not come back from the disk as the same bytes.
    head = name[: RECORD_BYTES - 1 - len(digest)].decode(errors="ignore")
    return head.encode() + digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Under which conditions a unit is done: its journal and limits, the records known to kill, the one wanted.

    `culprits` are by `record_key`: they are lost unseen. With `only`, every other record is passed over and nothing is
    committed: the record is tried alone. With `tells`, what it raises or gives is printed.
    """

    journal: Journal
    limits: Limits
    culprits: Mapping[bytes, Quarantined]
    only: bytes | None = None
    tells: bool = False

    @classmethod
    def nobody(cls) -> Watch:
        """Return a watch without deadlines: of a unit that is done in this very process."""
        return cls(journal=Journal(), limits=Limits(), culprits={})

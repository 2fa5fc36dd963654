"""The ledger of a unit: what it counted, what it lost and why. In the footer of the part, so one rename commits all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from carnac.core.errors import InputError
from carnac.core.places import Place, is_local, read_bytes

LEDGER_KEY = b"carnac.ledger"
FOOTER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A record that was lost: which, a short stable reason for counting, and a sentence for the reader."""

    record: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """`digest` is the sha256 of the part's row groups and schema: equal rows in equal order give equal digests.

    `rows_digest` leaves the schema out, and with it what only names things: a reader to whom the names of reasons say
    nothing depends on this one.

    `beside` maps the other files of the unit, relative to the folder, to their bytes: without them it is not done.
    """

    stage: str
    version: int
    unit: str
    key: str
    digest: str
    rows_digest: str
    rows: int
    seconds: float
    counts: dict[str, int] = field(default_factory=dict)
    beside: dict[str, int] = field(default_factory=dict)
    quarantine: tuple[Quarantined, ...] = ()

    def to_json(self) -> str:
        """Return the ledger as it lies in the footer."""
        return json.dumps(asdict(self), sort_keys=True)


def ledger_from(fields: dict[str, Any]) -> Ledger:
    """Return the ledger of a decoded footer."""
    lost = tuple(Quarantined(**entry) for entry in fields["quarantine"])
    return Ledger(**{**fields, "quarantine": lost})


def read_ledger(part: Place) -> Ledger:
    """Read the ledger of a committed part. Raises InputError when the file is damaged or is none of ours."""
    try:
        return ledger_from(json.loads(_footer(part)[LEDGER_KEY]))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        kind = "no ledger in its footer" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise InputError(
            f"{part}: not a part that carnac wrote, or damaged ({kind}). Move the file away and run the recipe again."
        ) from None


def _footer(part: Place) -> dict[bytes, bytes]:
    if is_local(part):
        return pq.read_metadata(part).metadata or {}
    # In a store the last bytes hold most footers: one request. The file ends with the length of its footer and a magic.
    tail = read_bytes(part, -FOOTER_BYTES)
    wanted = int.from_bytes(tail[-8:-4], "little") + 8
    if wanted > len(tail):
        tail = read_bytes(part, -wanted)
    return pq.read_metadata(pa.BufferReader(tail)).metadata or {}

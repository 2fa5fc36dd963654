"""One round of fetching: its units ask the web, and what they got is settled by partition.

    plan --fetched--> a row for every URL asked for, and a pack            one unit per share of the plan
    fetched --settled--> its state, and what the next round asks for       one unit per partition

States of a round: `kept`, `dropped`, `deferred` (there was no time, or its host could not be asked), and `moved`: a
redirect led to another host, whose own unit follows it in the next round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from carnac.core.places import Place
from carnac.core.schema import IMAGE_STATES
from carnac.core.taken_down import TakenDown
from carnac.engine.buckets import BUCKET, KEY, BucketWriter, read_equal
from carnac.engine.part import Part
from carnac.engine.spool import Spool
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage, Unit
from carnac.images.pack import PackWriter
from carnac.images.settings import FetchSettings, ImageSettings
from carnac.jobs.images_kept import ImageKeeper
from carnac.jobs.images_plan import LATER, PLANNED
from carnac.jobs.images_wanted import owner_of

if TYPE_CHECKING:
    from carnac.images.fetch import Fetched

FETCHED = pa.schema([*IMAGE_STATES, ("ask", pa.string()), ("hops", pa.int16())])
SETTLED = pa.schema([(BUCKET, pa.int32()), (KEY, pa.string()), ("is_next", pa.bool_()), *FETCHED])
ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchTask:
    """What a worker needs to ask for one unit's URLs: row group `number` of a plan."""

    plan: Place
    number: int
    packs: Place
    inspect: ImageSettings
    http: FetchSettings
    taken_down: TakenDown


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleTask:
    """What a worker needs to settle one partition's share of a round."""

    plan: Place
    fetched: tuple[Place, ...]
    num_partitions: int


def fetch_unit(unit: Unit, part: Part) -> None:
    """Ask for the URLs of one unit, then inspect what came, in the order of the plan.

    What is fetched lies in the unit's spool until the part is committed: a unit that is killed, also by an image, asks
    again for nothing but what was in flight.
    """
    task: FetchTask = unit.task
    rows = [row for row in planned_rows(task.plan, task.number) if part.is_wanted(row["url"])]
    with (
        Spool(part.spool()) as spool,
        PackWriter(part.beside(task.packs, ".tar")) as pack,
    ):
        got = _fetch(task, rows, spool, part)
        keeper = ImageKeeper(part, pack, f"{unit.stem}.tar", task.inspect, task.taken_down)
        for row in rows:
            fetched = got[row["ask"]]
            columns = _state(fetched)
            if fetched.place is not None:
                columns |= keeper.keep(row["url"], spool.payload(fetched.place))
            # A redirect followed in the next round is no further try: hops are counted by themselves.
            spent = row["rounds"] + (columns["status"] != "moved")
            led_to = fetched.location or (row["ask"] if row["ask"] != row["url"] else None)
            part.write({"url": row["url"], "source": "http", "rounds": spent, **columns, "location": led_to})
            _count(part, columns)


def planned_rows(plan: Place, number: int) -> list[dict[str, Any]]:
    """Return the rows of one unit of a plan."""
    batches = read_equal(plan, "unit", number, PLANNED.names)
    return [row for batch in batches for row in batch.to_pylist()]


def _fetch(task: FetchTask, rows: list[dict[str, Any]], spool: Spool, part: Part) -> dict[str, Fetched]:
    """Return how each URL ended; several that led to one place ask for it once."""
    from carnac.images.fetch import Ask, fetch_images  # who fetches nothing needs no HTTP client
    from carnac.images.records import count_requests

    asks = {row["ask"]: Ask(url=row["ask"], hops=row["hops"]) for row in rows}
    got: dict[str, Fetched] = {}
    for fetched in fetch_images(list(asks.values()), task.http, task.inspect.max_image_bytes, spool):
        part.count("requests", 0)  # notes that the unit lives
        if fetched is not None:
            got[fetched.url] = fetched
    # Of all tries, those of killed processes too.
    for name, number in count_requests(spool).items():
        part.count(name, number)
    return got


def _state(fetched: Fetched) -> dict[str, Any]:
    """Return the columns of a row that the transfer alone tells. What was received is still to be inspected."""
    status = {"refused": "dropped", "received": "kept"}.get(fetched.status, fetched.status)
    return {
        "status": status,
        "reason": fetched.reason,
        "detail": fetched.detail[:200] or None,
        "received_bytes": fetched.received_bytes,
        "ask": fetched.location if fetched.status == "moved" else fetched.url,
        "hops": fetched.hops,
    }


def _count(part: Part, columns: dict[str, Any]) -> None:
    status = columns["status"]
    part.count(status if status in ("kept", "moved") else f"{status}.{columns['reason']}")


def settle_unit(unit: Unit, part: Part) -> None:
    """Write the states of one partition's share of a round, and what is left for the next one, to their partitions.

    A state goes to the partition of its URL's host, what is left to that of the host to be asked.
    """
    task: SettleTask = unit.task
    schema = pa.schema([field for field in SETTLED if field.name != BUCKET])
    held: list[dict[str, Any]] = []
    with BucketWriter(part, task.num_partitions) as writer:
        for row in _ended(task):
            held.append({KEY: owner_of(row["url"]), "is_next": False, **row})
            if row["status"] in ("deferred", "moved"):
                held.append({KEY: owner_of(row["ask"]), "is_next": True, **row})
            if len(held) >= ROWS_AT_ONCE:
                writer.write(pa.Table.from_pylist(held, schema))
                held.clear()
        writer.write(pa.Table.from_pylist(held, schema))


def _ended(task: SettleTask) -> Iterator[dict[str, Any]]:
    for place in task.fetched:
        yield from read_rows(place)
    for row in planned_rows(task.plan, LATER):
        del row["unit"]
        yield {**row, "status": "deferred", "reason": "next_round", "source": "http", "received_bytes": 0}


FETCHED_STAGE = Stage(name="fetched", version=1, schema=FETCHED, work=fetch_unit)
SETTLED_STAGE = Stage(name="settled", version=1, schema=SETTLED, work=settle_unit, rows_per_group=100_000, is_step=True)

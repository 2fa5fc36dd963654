"""Which URLs a round of fetching asks for, and which unit asks: a host in one unit of a round, so many URLs in each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from carnac.core.places import Place
from carnac.core.taken_down import MARK, TakenDown
from carnac.engine.buckets import read_bucket
from carnac.engine.part import Part
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage, Unit
from carnac.images.retries import Retry, is_chosen
from carnac.jobs.images_wanted import owner_of

LATER = -1  # the unit of URLs for which this round has no room: their host has more than one unit may ask for

# `ask` is what is asked for: `url`, or where its redirects led so far (`hops`). `rounds` were spent on it before.
PLANNED = pa.schema(
    [
        ("unit", pa.int32()),
        ("url", pa.string()),
        ("ask", pa.string()),
        ("hops", pa.int16()),
        ("rounds", pa.int16()),
    ]
)
STATE_COLUMNS = ("url", "status", "reason", "is_next", "ask", "hops", "rounds")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTask:
    """What a worker needs to plan one partition's share of a round; `settled` are all parts of each earlier round."""

    partition: int
    urls: Place
    archived: tuple[Place, ...]
    settled: tuple[tuple[Place, ...], ...]
    max_rounds: int
    urls_per_unit: int
    retry: Retry | None
    taken_down: TakenDown


def write_plan(unit: Unit, part: Part) -> None:
    """Write what one partition asks for in a round, a row group per unit."""
    task: PlanTask = unit.task
    asks = [row for row in _asks(task) if not _is_taken_down(task, row)]
    units = 0
    for number, rows in share_out(asks, task.urls_per_unit):
        part.write_table(pa.Table.from_pylist([{"unit": number, **row} for row in rows], PLANNED))
        units += number != LATER
        part.count("later" if number == LATER else "planned", len(rows))
    part.count("units", units)


def _is_taken_down(task: PlanTask, row: dict[str, Any]) -> bool:
    return any(row[name] == MARK or task.taken_down.has_url(row[name]) for name in ("url", "ask"))


def _asks(task: PlanTask) -> Iterator[dict[str, Any]]:
    """Yield what is to be asked: what was never asked, and what the last round left or, with `retry`, what it names."""
    known = {
        url for place in task.archived for batch in read_bucket(place, task.partition, ["url"])
        for url in batch.column("url").to_pylist()
    }  # fmt: skip
    again: dict[str, None] = {}
    for number, parts in enumerate(task.settled, 1):
        for row in _settled_rows(parts, task.partition):
            if row["is_next"]:
                # What earlier rounds left, later ones have asked.
                if number == len(task.settled) and task.retry is None and _is_next(row, task.max_rounds):
                    yield {name: row[name] for name in ("url", "ask", "hops", "rounds")}
                continue
            known.add(row["url"])
            if task.retry is not None and is_chosen(row["status"], row["reason"], task.retry):
                again[row["url"]] = None
            else:
                again.pop(row["url"], None)
    for row in read_rows(task.urls, ["url"]):
        if row["url"] not in known or row["url"] in again:
            yield {"url": row["url"], "ask": row["url"], "hops": 0, "rounds": 0}


def _is_next(row: dict[str, Any], max_rounds: int) -> bool:
    """Say whether the next round asks for what the last one left: not of a host that asked to be left alone so long."""
    return bool(row["rounds"] < max_rounds and row["reason"] != "retry_after")


def _settled_rows(parts: Iterable[Place], partition: int) -> Iterator[dict[str, Any]]:
    for place in parts:
        for batch in read_bucket(place, partition, STATE_COLUMNS):
            yield from batch.to_pylist()


def share_out(asks: Sequence[dict[str, Any]], urls_per_unit: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield (unit, rows): each host in one unit, at most `urls_per_unit` rows in each; last, under LATER, what is left.

    Hosts go to the unit that has least, largest first: units take about the same time, and hosts with many URLs, which
    take longest, lie in different ones.
    """
    hosts: dict[str, list[dict[str, Any]]] = {}
    later: list[dict[str, Any]] = []
    for row in asks:
        rows = hosts.setdefault(owner_of(row["ask"]), [])
        (rows if len(rows) < urls_per_unit else later).append(row)
    num_units = -(-sum(map(len, hosts.values())) // urls_per_unit)
    units: list[list[dict[str, Any]]] = [[] for _ in range(num_units)]
    # With its length first a heap of units would do; a partition has a few tens of them.
    for rows in sorted(hosts.values(), key=len, reverse=True):
        least = min(units, key=len)
        if len(least) + len(rows) > urls_per_unit:
            units.append(least := [])
        least += rows
    for number, rows in enumerate(units):
        yield number, rows
    if later:
        yield LATER, later


PLAN_STAGE = Stage(
    name="fetch_plan", version=1, schema=PLANNED, work=write_plan, rows_per_group=1_000_000, is_step=True
)

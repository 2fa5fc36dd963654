"""What the rounds of fetching did, and how fast, from the ledgers of their units and the plans of the rounds.

Flow in: the units of inner steps beside the table of images. Flow out: a `Fetching`; of many units some are read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from carnac.core.errors import InputError
from carnac.core.places import is_local
from carnac.engine.manifest import PartEntry, collect_parts, read_listed
from carnac.engine.unit import digest_of
from carnac.report.folders import MAX_FOOTERS, StageFolder
from carnac.report.images_steps import newest, spread

FETCH_UNIT = re.compile(r"r(\d{4})-p\d{4}-u\d{4}")
# Footers to open: 0.5 s for so many on a disk. In a store each is a request, and MAX_FOOTERS take some seconds.
MAX_UNITS = 1000
ENDS = ("kept", "dropped", "deferred", "moved")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round. `ends` is how many URLs ended how, `later` those that it had no room for (None: no plan is there).

    `retry` is what `--retry` had asked for, "" without. Requests and bytes are those of all tries.
    """

    number: int
    num_units: int
    ends: Counter[str]
    later: int | None
    retry: str
    requests: int
    robots_requests: int
    received_bytes: int

    @property
    def num_urls(self) -> int:
        """Number of URLs asked for."""
        return self.ends.total()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A tenth of the units are slower than `low`, a tenth faster than `high`."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """The rounds as far as `num_read` of `num_units` units tell, and what one unit does in a second."""

    rounds: tuple[Round, ...]
    num_units: int
    num_read: int
    seconds: float
    images_per_second: Rate
    bytes_per_second: Rate


def read_fetching(folder: StageFolder) -> Fetching | None:
    """Return what was fetched; None where nobody asked the web."""
    units = newest(folder, [unit for unit in folder.steps if FETCH_UNIT.fullmatch(unit.name)])
    if not units:
        return None
    most = MAX_UNITS if is_local(folder.content.folder) else MAX_FOOTERS
    entries = collect_parts(folder.content.folder, spread(units, most))
    by_round: dict[int, list[PartEntry]] = {}
    for entry in entries:
        by_round.setdefault(_round_of(entry.unit), []).append(entry)
    # Parts that took no time tell no rate.
    timed = [entry for entry in entries if entry.seconds]
    return Fetching(
        rounds=tuple(_round(folder, number, parts) for number, parts in sorted(by_round.items())),
        num_units=len(units),
        num_read=len(entries),
        seconds=sum(entry.seconds for entry in entries),
        images_per_second=_rate([entry.counts.get("kept", 0) / entry.seconds for entry in timed]),
        bytes_per_second=_rate([entry.counts.get("received_bytes", 0) / entry.seconds for entry in timed]),
    )


def _round_of(name: str) -> int:
    found = FETCH_UNIT.fullmatch(name)
    assert found is not None, name
    return int(found[1])


def _round(folder: StageFolder, number: int, parts: Sequence[PartEntry]) -> Round:
    counts: Counter[str] = Counter()
    for part in parts:
        for name, count in part.counts.items():
            counts[name.partition(".")[0]] += count
    retry, later = _plan(folder, number)
    return Round(
        number=number,
        num_units=len(parts),
        ends=Counter({name: counts[name] for name in ENDS}),
        later=later,
        retry=retry,
        requests=counts["requests"],
        robots_requests=counts["robots_requests"],
        received_bytes=counts["received_bytes"],
    )


def _plan(folder: StageFolder, number: int) -> tuple[str, int | None]:
    """Return what a round was planned for (`--retry`), and how many URLs it left for later ones."""
    inspect = folder.content.settings.get("inspect")
    if inspect is None:
        return "", None
    place = folder.content.folder / "rounds" / digest_of(inspect)[:8] / f"{number:04d}" / "plan"
    try:
        plan = read_listed(place)
    except InputError:
        return "", None
    return str(plan.settings.get("retry") or ""), plan.counts.get("later", 0)


def _rate(values: Sequence[float]) -> Rate:
    low, median, high = np.quantile(values, (0.1, 0.5, 0.9)) if values else (0.0, 0.0, 0.0)
    return Rate(low=float(low), median=float(median), high=float(high))

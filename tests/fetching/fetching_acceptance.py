"""A whole run of the images job over a web of our own, killed on its way and taken up again; and what is wrong with it.

The tests do it small, `scripts/bench images acceptance` with 20,000 good pictures.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fetching_answers import CRAWL_DELAY_SECONDS, RETRY_SECONDS
from fetching_log import Request, Seen, asked_while_paused, earliness, most_at_once
from fetching_pictures import Pictures
from fetching_run import (
    Ended,
    carnac_command,
    run,
    serving,
    site_of,
    stored,
    table,
    write_documents,
    write_recipe,
    wrong_rows,
)
from fetching_site import PRIVATE_ADDRESSES, Link, links

from carnac.core.seeds import generator

MAX_SIDE_PX = 160
# A server notices a request late when the machine is busy, so that the next one seems to come early.
SLACK_SECONDS = 0.3
SAFE_SECONDS = 2.0
HTTP: dict[str, Any] = {
    "num_connections": 16,
    "num_connections_per_host": 2,
    "delay_seconds": 0.1,
    "timeout_seconds": 4.0,
    "idle_timeout_seconds": 2.5,  # well above what a busy machine keeps a process waiting
    "retries": 1,
    "backoff_seconds": 0.2,
    "rounds": 2,
    "urls_per_unit": 120,  # several units, so that both workers have some
    "unit_seconds": 120.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large the web is, and after how many requests the run is killed, one time after the other."""

    num_hosts: int
    pictures_per_host: int
    num_others: int
    kills: tuple[int, ...] = ()
    workers: int = 2
    http: Mapping[str, Any] = field(default_factory=lambda: HTTP)
    limit_seconds: float = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it: the URLs, the table, what the server saw, and how each run ended."""

    scale: Scale
    folder: Path
    links: Sequence[Link]
    rows: Mapping[str, Mapping[str, Any]]
    seen: Seen
    runs: Sequence[Ended]
    http: Mapping[str, Any]
    is_isolated: bool

    @property
    def kills(self) -> list[float]:
        """The times of the kills."""
        return [run.killed_at for run in self.runs if run.killed_at is not None]

    @property
    def num_slots(self) -> int:
        """How many requests may be under way at the same time, in all processes."""
        return int(self.http["num_connections"]) * self.scale.workers


def acceptance(folder: Path, scale: Scale, *, is_isolated: bool) -> Outcome:
    """Do the run in `folder`, with its kills."""
    options = ["--isolated"] if is_isolated else []
    with serving(folder / "web", f"--max-side-px={MAX_SIDE_PX}", *options) as server:
        site = site_of(
            server,
            num_hosts=scale.num_hosts,
            pictures_per_host=scale.pictures_per_host,
            num_others=scale.num_others,
        )
        found = links(site)
        shuffled = [link.url for link in found]
        generator("acceptance").shuffle(shuffled)
        write_documents(folder / "documents", shuffled)
        command = carnac_command(write_recipe(folder, server, scale.http), scale.workers)
        runs = [
            run(server, folder, command, after_requests=number, limit=scale.limit_seconds)
            for number in (*scale.kills, None)
        ]
        assert runs[-1].code == 0, runs[-1].output
        seen = server.seen()
    return Outcome(
        scale=scale,
        folder=folder,
        links=found,
        rows=table(folder / "images"),
        seen=seen,
        runs=runs,
        http=scale.http,
        is_isolated=is_isolated,
    )


def wrong_states(outcome: Outcome) -> list[str]:
    """Return the URLs that did not come to their end: a good picture not kept, anything else kept, a wrong reason."""
    pictures = Pictures(MAX_SIDE_PX)
    wanted = {link.picture for link in outcome.links if link.picture is not None}
    digests = {number: hashlib.sha256(pictures.payload(number)).hexdigest() for number in wanted}
    return wrong_rows(outcome.links, outcome.rows, digests)


def wrong_bytes(outcome: Outcome) -> list[str]:
    """Return what is wrong with the packs: bytes that are not those of their hash, a picture stored more than once."""
    kept = [row for row in outcome.rows.values() if row["status"] == "kept"]
    for row in kept:
        stored(outcome.folder / "images", row)
    places = Counter((row["pack"], row["offset"]) for row in kept)
    return [f"{place}: of {number} URLs" for place, number in places.items() if number > 1]


def forbidden_requests(outcome: Outcome) -> list[str]:
    """Return what was asked for although it must not be: by robots.txt, or at an address that is none of the web's."""
    forbidden = {_asked(link.url) for link in outcome.links if link.is_forbidden}
    wrong = [f"{one.host}{one.path}" for one in outcome.seen.requests if (one.host, one.path) in forbidden]
    private = (*PRIVATE_ADDRESSES,) if outcome.is_isolated else ()
    wrong += [f"a connection to {address}" for _, address in outcome.seen.connections if address in private]
    return wrong


def _asked(url: str) -> tuple[str, str]:
    """Return host and path (with query) as a server sees them."""
    parts = urlsplit(url)
    return parts.netloc, parts.path + (f"?{parts.query}" if parts.query else "")


def impolite(outcome: Outcome) -> list[str]:
    """Return what a server could complain of."""
    http, wrong = outcome.http, []
    for host, requests in outcome.seen.by_host().items():
        if (most := most_at_once(requests)) > http["num_connections_per_host"]:
            wrong.append(f"{host}: {most} requests at once")
        delay = CRAWL_DELAY_SECONDS if host.startswith("patient-") else http["delay_seconds"]
        early = max(earliness(some, delay) for some in _between_kills(requests, outcome.kills))
        if early > SLACK_SECONDS:
            wrong.append(f"{host}: a request {early:.2f} s too early")
        if host.startswith(("busy-", "unavailable-")):
            runs = _between_kills(requests, outcome.kills)
            early_ones = [one for some in runs for one in asked_while_paused(some, RETRY_SECONDS, SLACK_SECONDS)]
            wrong += [f"{host}: {one.path} during its Retry-After" for one in early_ones]
        wrong += _wrong_robots(host, requests, outcome)
    return wrong


def _between_kills(requests: Sequence[Request], kills: Sequence[float]) -> Iterator[list[Request]]:
    """Yield the requests of each run: a new process starts its clock anew (and itself takes longer than any delay)."""
    edges = [float("-inf"), *kills, float("inf")]
    for start, stop in pairwise(edges):
        yield [one for one in requests if start <= one.began < stop]


def _wrong_robots(host: str, requests: Sequence[Request], outcome: Outcome) -> list[str]:
    rules = [one for one in requests if one.path == "/robots.txt"]
    images = [one for one in requests if not one.is_robots]
    wrong = []
    if images and (not rules or rules[0].ended is None or rules[0].ended > images[0].began):
        wrong.append(f"{host}: asked for an image before robots.txt")
    tries = 1 + int(outcome.http["retries"])
    is_failing = host.startswith(("ailing-", "tarpit-"))
    rounds = int(outcome.http["rounds"]) if is_failing or host.startswith("overrun-") else 1
    # After a kill the round's answer is there, or it is asked for anew, with all tries.
    allowed = (rounds + len(outcome.kills)) * (tries if is_failing else 1)
    if len(rules) > allowed:
        wrong.append(f"{host}: robots.txt {len(rules)} times, {allowed} allowed")
    return wrong


def needless_repeats(outcome: Outcome) -> list[str]:
    """Return what was asked for again although its answer was sound and was not in flight at a kill."""
    wrong = []
    again = repeats(outcome)
    for before, after in again:
        killed = [kill for kill in outcome.kills if before.began < kill < after.began]
        # An answer is safe only once it is on the disk: for that it may take a moment.
        if not any(before.ended is None or before.ended > kill - SAFE_SECONDS for kill in killed):
            wrong.append(f"{after.host}{after.path}: asked for again, not in flight at a kill")
    allowed = outcome.num_slots * len(outcome.kills)
    return wrong if len(again) <= allowed else [*wrong, f"{len(again)} requests repeated, {allowed} allowed"]


def repeats(outcome: Outcome) -> list[tuple[Request, Request]]:
    """Return the requests for good pictures that were sent again, each with the one before; not those told to wait."""
    good = {_asked(link.url) for link in outcome.links if link.picture is not None}
    last: dict[tuple[str, str], Request] = {}
    found = []
    for request in outcome.seen.requests:
        what = request.host, request.path
        if what in good:
            if what in last and last[what].status not in (429, 503):
                found.append((last[what], request))
            last[what] = request
    return found

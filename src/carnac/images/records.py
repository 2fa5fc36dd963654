"""What the spool of a unit holds of an earlier try: ends of URLs, steps on their way, rules of origins; and back.

Each record is one request (with robots.txt, its redirects in), so a unit that was killed asks for nothing again but
what was in flight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from carnac.engine.spool import Spool, SpoolPlace
from carnac.images.answers import Answer, Pending
from carnac.images.asks import Fetched
from carnac.images.urls import parse_url

_FETCHED = tuple(name for name in Fetched.__slots__ if name != "place")
_ROBOTS = ("reason", "detail", "http_status", "received_bytes")


@dataclass(slots=True, kw_only=True)
class Earlier:
    """What is known from an earlier try: `steps` and `ended` by URL, `robots` and tries at it by origin."""

    ended: dict[str, Fetched] = field(default_factory=dict)
    steps: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    robots: dict[str, Answer] = field(default_factory=dict)
    robots_tries: Counter[str] = field(default_factory=Counter)


def end_record(fetched: Fetched) -> dict[str, Any]:
    """Return the record of a URL that ended with a request; the payload is its bytes."""
    return {"kind": "end"} | {name: getattr(fetched, name) for name in _FETCHED}


def step_record(pending: Pending, until: float) -> dict[str, Any]:
    """Return the record of a request that is followed by another, not before `until` (seconds since 1970)."""
    return {
        "kind": "step",
        "url": pending.ask.url,
        "target": pending.target.url,
        "hops": pending.hops,
        "tries": pending.tries,
        "requests": pending.requests,
        "received_bytes": pending.received_bytes,
        "seconds": pending.seconds,
        "seen": sorted(pending.seen),
        "until": until,
    }


def robots_record(origin: str, answer: Answer, num_requests: int, *, is_final: bool) -> dict[str, Any]:
    """Return the record of an answer about an origin's robots.txt; the payload is its text."""
    facts = {name: getattr(answer, name) for name in _ROBOTS}
    return {"kind": "robots" if is_final else "robots_step", "origin": origin, "requests": num_requests, **facts}


def read_earlier(spool: Spool) -> Earlier:
    """Return what `spool` holds."""
    earlier = Earlier()
    for facts, place in spool:
        if facts["kind"] == "end":
            earlier.ended[facts["url"]] = fetched_from(facts, place)
        elif facts["kind"] == "step":
            earlier.steps[facts["url"]] = facts
        elif facts["kind"] == "robots":
            answer = Answer(payload=spool.payload(place), **{name: facts[name] for name in _ROBOTS})
            earlier.robots[facts["origin"]] = answer
        elif facts["kind"] == "robots_step":
            earlier.robots_tries[facts["origin"]] += 1
    return earlier


def fetched_from(facts: Mapping[str, Any], place: SpoolPlace) -> Fetched:
    """Return the end that a record tells of."""
    is_received = facts["status"] == "received"
    return Fetched(**{name: facts[name] for name in _FETCHED}, place=place if is_received else None)


def restore(pending: Pending, facts: Mapping[str, Any]) -> None:
    """Bring a URL to where the last of its steps left it."""
    pending.target = parse_url(facts["target"])
    pending.hops = facts["hops"]
    pending.tries = facts["tries"]
    pending.requests = facts["requests"]
    pending.received_bytes = facts["received_bytes"]
    pending.seconds = facts["seconds"]
    pending.seen = set(facts["seen"])


def count_requests(records: Iterable[tuple[Mapping[str, Any], SpoolPlace]]) -> Counter[str]:
    """Return `requests`, `received_bytes` (of both kinds) and `robots_requests` of all tries that a spool tells of."""
    counts: Counter[str] = Counter()
    received: dict[str, int] = {}  # by URL, of all its requests so far
    for facts, _ in records:
        if facts["kind"] in ("robots", "robots_step"):
            counts["robots_requests"] += facts["requests"]
            counts["received_bytes"] += facts["received_bytes"]
        else:
            counts["requests"] += 1
            received[facts["url"]] = facts["received_bytes"]
    counts["received_bytes"] += sum(received.values())
    return counts

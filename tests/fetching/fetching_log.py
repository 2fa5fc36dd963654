"""What a server saw: requests and connections from its log, and how politely they came."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True, kw_only=True)
class Request:
    """One request; times are seconds of this machine's clock. `ended` is None as long as it is under way."""

    host: str
    path: str
    address: str
    connection: int
    began: float
    ended: float | None = None
    status: int = 0
    is_whole: bool = False

    @property
    def is_robots(self) -> bool:
        """Whether it asks for robots.txt, or for where that leads."""
        return self.path in ("/robots.txt", "/rules.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that a server saw: `connections` are (time, address that was connected to)."""

    requests: tuple[Request, ...]
    connections: tuple[tuple[float, str], ...]

    def by_host(self) -> dict[str, list[Request]]:
        """Return the requests of each host, as they began."""
        found: defaultdict[str, list[Request]] = defaultdict(list)
        for request in self.requests:
            found[request.host].append(request)
        return dict(found)


def read_log(path: Path) -> Seen:
    """Return what a server has written down until now."""
    requests: dict[str, Request] = {}
    connections = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # still being written
        kind, time, number, *fields = line.rstrip("\n").split("\t")
        if kind == "C":
            connections.append((float(time), fields[0]))
        elif kind == "B":
            connection, address, host, asked = fields
            requests[number] = Request(
                host=host, path=asked, address=address, connection=int(connection), began=float(time)
            )
        else:
            request = requests[number]
            request.ended, request.status, request.is_whole = float(time), int(fields[0]), fields[1] == "1"
    return Seen(requests=tuple(requests.values()), connections=tuple(connections))


def most_at_once(requests: Iterable[Request]) -> int:
    """Return the largest number of requests that were under way at the same time."""
    turns = sorted(turn for one in requests for turn in ((one.began, 1), (one.ended or float("inf"), -1)))
    most = now = 0
    for _, change in turns:
        now += change
        most = max(most, now)
    return most


def earliness(requests: Sequence[Request], delay: float) -> float:
    """Return by how many seconds requests came before their time at worst, if starts are to be `delay` apart.

    Over every stretch of requests, not only neighbours: one that the server notices late is not followed too early.
    """
    worst, latest = 0.0, float("-inf")
    for place, request in enumerate(requests):
        allowed = request.began - place * delay
        latest = max(latest, allowed)
        worst = max(worst, latest - allowed)
    return worst


def asked_while_paused(requests: Sequence[Request], pause: float, slack: float) -> list[Request]:
    """Return the requests that began between `slack` and `pause` seconds after an answer of 429 or 503."""
    ends = [one.ended for one in requests if one.status in (429, 503) and not one.is_robots and one.ended is not None]
    return [one for one in requests if any(end + slack < one.began < end + pause for end in ends)]


def repeated(requests: Iterable[Request]) -> dict[tuple[str, str], int]:
    """Return what was asked for more than once, with how often more."""
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    for request in requests:
        counts[request.host, request.path] += 1
    return {what: number - 1 for what, number in counts.items() if number > 1}

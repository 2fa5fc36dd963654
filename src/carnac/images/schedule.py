"""Which URL is asked for next: hosts by the time at which they may be asked again, until the unit's time is up.

Hosts that were begun go before fresh ones, so few connections idle; of fresh hosts the one with most URLs comes first,
because it takes longest. What is known without asking (robots.txt forbids it, there is no time left) ends here.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass

from carnac.images.answers import Pending
from carnac.images.asks import Fetched, Status
from carnac.images.hosts import Host
from carnac.images.settings import FetchSettings
from carnac.images.urls import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A request that may start now: for `pending`, or without one for the rules of `target`'s origin.

    `is_last`: nothing else of the host waits, so its connection need not be kept.
    """

    host: Host
    target: Target
    pending: Pending | None
    is_last: bool


class Schedule:
    """The hosts of a unit. Times are those of one clock; at `end` the unit's time is up.

    `settled` collects what ended without a request; the caller takes it away.
    """

    def __init__(self, settings: FetchSettings, end: float) -> None:
        self.settled: list[Fetched] = []
        self.num_waiting = 0
        self.num_active = 0
        self._settings = settings
        self._end = end
        self._hosts: dict[str, Host] = {}
        self._begun: list[tuple[float, int, int, Host]] = []  # by time; number and version
        self._fresh: deque[Host] | None = None
        self._num_pushed = 0

    def host(self, name: str) -> Host:
        """Return the host of that name."""
        found = self._hosts.get(name)
        if found is None:
            found = self._hosts[name] = Host(name, self._settings.delay_seconds)
        return found

    def add(self, pending: Pending, at: float = -math.inf, *, is_first: bool = False) -> None:
        """Queue a URL at its host."""
        host = self.host(pending.target.host)
        host.add(pending, at, is_first=is_first)
        self.num_waiting += 1
        if host.is_begun:
            self._push(host)

    def take(self, now: float) -> Turn | None:
        """Return a request that may start at `now`, which then counts as begun; None if there is none yet."""
        if now >= self._end:
            self.end()
        while (host := self._next_host(now)) is not None:
            turn = self._turn(host, now)
            if turn is not None:
                host.start(now)
                self.num_active += 1
            self._push(host)
            if turn is not None:
                return turn
        return None

    def next_time(self) -> float:
        """Return when `take` is worth another call, if nothing else happens; infinity if never."""
        while self._begun and self._begun[0][2] != self._begun[0][3].version:
            heapq.heappop(self._begun)
        return self._begun[0][0] if self._begun else math.inf

    def ended(self, host: Host) -> None:
        """Note that a request to `host` has ended, and what came of it is safe."""
        host.num_active -= 1
        host.is_asking_rules = False
        self.num_active -= 1
        self._push(host)

    def note_answer(self, host: Host, *, is_silent: bool) -> None:
        """Note whether a host answered. Silent too many times in a row, it is down: its URLs are put off."""
        host.num_failures = host.num_failures + 1 if is_silent else 0
        if host.num_failures >= self._settings.host_failures:
            self.settle_host(host, "deferred", "host_down", f"no answer {host.num_failures} times in a row")

    def settle_host(self, host: Host, status: Status, reason: str, detail: str) -> None:
        """End all URLs that wait for a host."""
        for pending in host.pop_all():
            self._settle(pending, status, reason, detail)

    def end(self) -> None:
        """End all URLs that wait: the time is up."""
        for host in self._hosts.values():
            self._put_off(host)
        self._begun.clear()
        self._fresh = deque()

    def _next_host(self, now: float) -> Host | None:
        if self.next_time() <= now:
            return heapq.heappop(self._begun)[3]
        if self._fresh is None:
            self._fresh = deque(sorted((host for host in self._hosts.values() if not host.is_begun), key=len))
        while self._fresh:
            host = self._fresh.pop()
            if not host.is_begun and len(host):
                host.is_begun = True
                if host.ready_at() <= now:
                    return host
                self._push(host)
        return None

    def _turn(self, host: Host, now: float) -> Turn | None:
        """Return what is to be asked of a host whose time has come; None if nothing is left that may be asked."""
        while (pending := host.peek(now)) is not None:
            rules = host.rules.get(pending.target.origin)
            if rules is None and self._settings.robots:
                host.is_asking_rules = True  # until it `ended`; nobody else of the host is asked for meanwhile
                return Turn(host=host, target=pending.target, pending=None, is_last=False)
            host.pop(now)
            if rules is not None and rules.is_unreachable:
                self._settle(pending, "deferred", "robots_unreachable", rules.detail)
            elif rules is not None and not rules.allows(pending.target):
                self._settle(pending, "refused", "robots_forbidden", f"robots.txt of {pending.target.origin}")
            else:
                self.num_waiting -= 1
                is_last = not len(host) and not host.num_active
                return Turn(host=host, target=pending.target, pending=pending, is_last=is_last)
        return None

    def _push(self, host: Host) -> None:
        """Queue a host for its next time, unless it has nothing to be asked for, or as much under way as it may."""
        host.version += 1
        if not len(host) or host.is_asking_rules or host.num_active >= self._settings.num_connections_per_host:
            return
        at = host.ready_at()
        if at >= self._end:
            self._put_off(host)
            return
        self._num_pushed += 1
        heapq.heappush(self._begun, (at, self._num_pushed, host.version, host))

    def _put_off(self, host: Host) -> None:
        is_paused = host.paused_until >= self._end
        detail = "the host asks for a longer pause than the unit has time" if is_paused else "the unit's time was up"
        self.settle_host(host, "deferred", "retry_after" if is_paused else "deadline", detail)

    def _settle(self, pending: Pending, status: Status, reason: str, detail: str) -> None:
        self.num_waiting -= 1
        self.settled.append(pending.ends(status, reason, detail))

"""One host of a round: the URLs that are wanted of it, and when the next of them may be asked for.

Nothing here looks at a clock or asks anybody: times are seconds of whatever clock the caller has.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator

from carnac.images.answers import Pending
from carnac.images.robots import Rules


class Host:
    """A host and its queue. `delay` is the least time between the starts of two requests."""

    def __init__(self, name: str, delay: float) -> None:
        self.name = name
        self.delay = delay
        self.rules: dict[str, Rules] = {}  # by origin
        self.is_begun = False
        self.num_active = 0  # requests under way
        self.is_asking_rules = False  # then nothing else is asked
        self.num_rules_tries = 0
        self.num_failures = 0  # in a row
        self.version = 0  # of its entry in the schedule's heap: an older one counts no more
        self.next_start = -math.inf
        self.paused_until = -math.inf
        self._ready: deque[Pending] = deque()
        self._later: list[tuple[float, int, Pending]] = []
        self._num_later = 0

    def __len__(self) -> int:
        """Number of URLs that wait."""
        return len(self._ready) + len(self._later)

    def add(self, pending: Pending, at: float = -math.inf, *, is_first: bool = False) -> None:
        """Queue a URL: last, or first, or only from `at` on."""
        if at > -math.inf:
            self._num_later += 1
            heapq.heappush(self._later, (at, self._num_later, pending))
        elif is_first:
            self._ready.appendleft(pending)
        else:
            self._ready.append(pending)

    def peek(self, now: float) -> Pending | None:
        """Return the URL that is next at `now`; None if all wait for a later time."""
        if self._later and self._later[0][0] <= now:
            return self._later[0][2]
        return self._ready[0] if self._ready else None

    def pop(self, now: float) -> Pending:
        """Take the URL that `peek` returns: of those that had to wait the first, before those that never had."""
        if self._later and self._later[0][0] <= now:
            return heapq.heappop(self._later)[2]
        return self._ready.popleft()

    def pop_all(self) -> Iterator[Pending]:
        """Take all URLs."""
        while self._ready:
            yield self._ready.popleft()
        while self._later:
            yield heapq.heappop(self._later)[2]

    def start(self, now: float) -> None:
        """Note that a request starts."""
        self.is_begun = True
        self.num_active += 1
        self.next_start = now + self.delay

    def pause(self, until: float) -> None:
        """Ask nothing until then."""
        self.paused_until = max(self.paused_until, until)

    def take_rules(self, origin: str, rules: Rules) -> None:
        """Note the rules of an origin. The longest delay that one of a host's origins asks for holds for all."""
        self.rules[origin] = rules
        if rules.delay_seconds > self.delay:
            self.next_start += rules.delay_seconds - self.delay
            self.delay = rules.delay_seconds

    def ready_at(self) -> float:
        """Return when the next request may start, were a connection free; infinity when nothing waits."""
        if not self:
            return math.inf
        first = -math.inf if self._ready else self._later[0][0]
        return max(first, self.next_start, self.paused_until)

"""What came of one request, and what follows from it for the URL that is wanted: an end, or another request.

Nothing here asks anybody; `transfer` does.
"""

from __future__ import annotations

import math
import re
import time
import zlib
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from carnac.core.errors import RecordError
from carnac.images.addresses import check_literal
from carnac.images.asks import Ask, Fetched
from carnac.images.settings import FetchSettings
from carnac.images.urls import Target, parse_url

REDIRECTS = frozenset((301, 302, 303, 307, 308))
RETRIED = frozenset(("timeout", "connection_failed", *(f"http_{status}" for status in (408, 429, 500, 502, 503, 504))))
# Not now, says the server; the next round may be a better time than a fourth try in this one.
NOT_NOW = frozenset(("http_429", "http_503"))
# What is wrong with the host and not with one URL of it: nobody need ask for the others.
OF_HOST = frozenset(("unknown_host", "refused_address"))
MAX_BACKOFF_SECONDS = 600.0


@dataclass(slots=True)
class Receipt:
    """Counts what comes while it comes, also of what is given up: `status` is None until an answer has begun."""

    num_bytes: int = 0
    status: int | None = None


@dataclass(slots=True, kw_only=True)
class Answer:
    """What came of a request: the `payload` that was wanted, or a `reason`. `retry_after` is in seconds.

    `is_silent`: no answer began, so that it is the host which may be down. `is_cut_off`: our own time was up.
    """

    payload: bytes = b""
    reason: str | None = None
    detail: str = ""
    http_status: int | None = None
    location: str | None = None
    retry_after: float | None = None
    received_bytes: int = 0
    seconds: float = 0.0
    is_silent: bool = False
    is_cut_off: bool = False


@dataclass(slots=True, kw_only=True)
class Pending:
    """A URL that is wanted and not settled: where it is to be asked for next, and what it has cost so far."""

    ask: Ask
    target: Target
    hops: int
    tries: int = 0  # at this target that came to nothing
    requests: int = 0
    received_bytes: int = 0
    seconds: float = 0.0
    seen: set[str] = field(default_factory=set)

    def count(self, answer: Answer) -> None:
        """Add the cost of a request."""
        self.requests += 1
        self.received_bytes += answer.received_bytes
        self.seconds += answer.seconds

    def ends(self, status: Any, reason: str | None = None, detail: str = "", **facts: Any) -> Fetched:
        """Return the end of this URL."""
        return Fetched(
            url=self.ask.url,
            status=status,
            reason=reason,
            detail=detail,
            hops=self.hops,
            requests=self.requests,
            received_bytes=self.received_bytes,
            seconds=round(self.seconds, 4),
            **facts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """What follows: `ended`, or another request, at once or `wait_seconds` later."""

    ended: Fetched | None = None
    wait_seconds: float = 0.0


def judge(pending: Pending, answer: Answer, settings: FetchSettings) -> Next:
    """Return what follows from `answer` for `pending`, which is changed to what is to be asked for next."""
    pending.count(answer)
    status = answer.http_status
    if answer.reason is None:
        return Next(ended=pending.ends("received", http_status=status))
    if answer.is_cut_off:
        return Next(ended=pending.ends("deferred", "deadline", answer.detail))
    if answer.location is not None:
        return _follow(pending, answer.location, status, settings)
    if answer.reason in RETRIED and pending.tries < settings.retries:
        pending.tries += 1
        return Next(wait_seconds=backoff_seconds(pending.ask.url, pending.tries, settings.backoff_seconds))
    ended = "deferred" if answer.reason in NOT_NOW else "refused"
    return Next(ended=pending.ends(ended, answer.reason, answer.detail, http_status=status))


def _follow(pending: Pending, location: str, status: int | None, settings: FetchSettings) -> Next:
    """Return what follows from a redirect. To another host it is not followed here: that host has its own owner."""
    pending.seen.add(pending.target.url)
    try:
        target = parse_url(location, pending.target)
        check_literal(target.host, allow_private=settings.allow_private_addresses)
        if pending.hops >= settings.max_redirects:
            raise RecordError("too_many_redirects", f"more than {settings.max_redirects}, the last to {target.url}")
        if target.url in pending.seen:
            raise RecordError("redirect_loop", f"back to {target.url}")
    except RecordError as error:
        return Next(ended=pending.ends("refused", error.reason, error.detail[:500], http_status=status))
    pending.hops += 1
    if target.host != pending.target.host:
        return Next(ended=pending.ends("moved", location=target.url, http_status=status))
    pending.target = target
    pending.tries = 0
    return Next()


def backoff_seconds(url: str, num_tries: int, first_seconds: float) -> float:
    """Return the wait before a retry: doubled each time, times 0.5 to 1.5, so that what failed together parts.

    The factor is a hash of the URL: the same in every run.
    """
    factor = 0.5 + zlib.crc32(f"{num_tries} {url}".encode("utf-8", "surrogatepass")) / 2**32
    return min(MAX_BACKOFF_SECONDS, factor * first_seconds * 2.0 ** min(num_tries - 1, 30))


def retry_after_seconds(value: str | None, now: float | None = None) -> float | None:
    """Return the wait that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date), None for nonsense."""
    value = (value or "").strip()
    if re.fullmatch("[0-9]+", value):
        return float(value) if len(value) < 10 else math.inf
    try:
        when = parsedate_to_datetime(value)
        return max(0.0, when.timestamp() - (time.time() if now is None else now))
    except (ValueError, TypeError, OverflowError, OSError):
        return None

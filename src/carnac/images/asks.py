"""What is wanted of the web, and how far each wish came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from carnac.engine.spool import SpoolPlace

Status = Literal["received", "refused", "deferred", "moved"]


@dataclass(frozen=True, slots=True)
class Ask:
    """A URL that is wanted. `hops` are the redirects that led to it in earlier rounds."""

    url: str
    hops: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """How far an `Ask` came. Only what was received has a `place`: that of its bytes in the spool.

    `moved` is a redirect to another host (`location`), `deferred` is to be asked for again in a later round; whatever
    is refused or deferred has a `reason`, and a `detail` for the reader. `requests`, `received_bytes` (of bodies) and
    `seconds` (of requests, waits between them out) are those of all tries, redirects in; robots.txt is not counted.
    """

    url: str
    status: Status
    reason: str | None = None
    detail: str = ""
    location: str | None = None
    hops: int = 0
    http_status: int | None = None
    requests: int = 0
    received_bytes: int = 0
    seconds: float = 0.0
    place: SpoolPlace | None = None

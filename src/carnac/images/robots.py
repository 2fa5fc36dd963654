"""robots.txt of an origin -> what may be asked of it, and how often (RFC 9309; Protego reads it).

4xx means that there are no rules, but 429 that now is not the time; 5xx or silence that everything is forbidden until
the file can be had. `Crawl-delay` and `Request-rate` are no part of the RFC and obeyed all the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aiohttp import ClientResponse
from protego import Protego

from carnac.images.answers import REDIRECTS, Answer, Receipt, retry_after_seconds
from carnac.images.body import drain, read_text
from carnac.images.urls import Target

MAX_ROBOTS_BYTES = 500 * 1024  # RFC 9309, 2.5: what must be read at least
MAX_ROBOTS_REDIRECTS = 5  # RFC 9309, 2.3.1.2: also to other hosts
ROBOTS_PATH = "/robots.txt"
# As generous as Protego: the colon, the hyphen and the space may lack.
_AGENT_LINE = re.compile(r"\s*user[\s-]*agent(?:\s*:|\s)\s*([^#]*)", re.IGNORECASE)
_NOBODY = "!"  # stands for all other robots: no product has it in its name


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an origin allows `product`. Without a parser: everything, or nothing while it `is_unreachable`."""

    product: str
    parser: Protego | None = None
    is_unreachable: bool = False
    detail: str = ""
    delay_seconds: float = 0.0

    def allows(self, target: Target) -> bool:
        """Tell whether `target`, of this origin, may be asked for."""
        return self.parser is None or bool(self.parser.can_fetch(target.url, self.product))


def product_of(user_agent: str) -> str:
    """Return the name by which rules know a fetcher: its user agent up to the version, in lower case."""
    return re.split(r"[/\s]", user_agent, maxsplit=1)[0].lower()


def rules_of(answer: Answer, product: str) -> Rules:
    """Return what the answer to the request for an origin's robots.txt means for `product`."""
    if answer.reason is None:
        return parse_robots(answer.payload, product)
    status = answer.http_status
    if status is not None and answer.reason == f"http_{status}" and status != 429 and status < 500:
        return Rules(product=product)
    return Rules(product=product, is_unreachable=True, detail=f"robots.txt: {answer.reason} {answer.detail}".strip())


def parse_robots(text: bytes, product: str) -> Rules:
    """Return the rules in the content of a robots.txt. Whatever its bytes, it is read as far as it can be."""
    lines = text.decode("utf-8-sig", "replace").splitlines()
    # Groups of others are read as one. Protego keeps rules per robot: 500 KiB of 19,000 names before 19,000 rules would
    # be 361 million; and it takes a name that ours begins with for ours, which the RFC does not.
    parser = Protego.parse("\n".join(_with_agents_of(line, product) for line in lines))
    delay = parser.crawl_delay(product) or 0.0
    rate = parser.request_rate(product)
    if rate is not None:
        delay = max(delay, rate.seconds / rate.requests)
    return Rules(product=product, parser=parser, delay_seconds=float(delay))


def _with_agents_of(line: str, product: str) -> str:
    found = _AGENT_LINE.match(line)
    if found is None:
        return line
    words = found[1].split("/")[0].split()
    name = words[0].lower() if words else ""
    return f"User-agent: {name if name in (product, '*') else _NOBODY}"


async def read_robots(response: ClientResponse, receipt: Receipt) -> Answer:
    """Return the text of a robots.txt, or why there is none. Raises RecordError."""
    status = response.status
    if 200 <= status < 300:
        return Answer(payload=await read_text(response, MAX_ROBOTS_BYTES, receipt), http_status=status)
    answer = Answer(reason=f"http_{status}", http_status=status)
    answer.location = response.headers.get("Location") if status in REDIRECTS else None
    answer.retry_after = retry_after_seconds(response.headers.get("Retry-After"))
    await drain(response)
    return answer

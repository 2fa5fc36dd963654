"""One request -> one `Answer`, whatever the server does, in bounded time and memory.

Nothing is implied: no proxy, no cookies, no credentials, no redirects, no retries, no packed bodies.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection

import aiohttp
from aiohttp import ClientResponse
from yarl import URL

from carnac.core.errors import RecordError
from carnac.images.addresses import CheckedAddresses
from carnac.images.answers import REDIRECTS, Answer, Receipt, retry_after_seconds
from carnac.images.body import drain, read_image
from carnac.images.opt_outs import objection
from carnac.images.settings import FetchSettings
from carnac.images.urls import Target

Reader = Callable[[ClientResponse, Receipt], Awaitable[Answer]]

NO_SUCH_HOST = frozenset((socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)))
READ_BYTES = 1 << 18  # held of one body before its server has to wait; asyncio reads as much at a time
MAX_KEEP_SECONDS = 15.0  # an idle connection is kept, or a few delays if that is less
MAX_HEADER_BYTES, MAX_HEADERS = 8190, 128  # of one line; aiohttp's defaults, here so that they stay


def open_session(settings: FetchSettings) -> aiohttp.ClientSession:
    """Return a session that asks as `settings` say, and connects to checked addresses only."""
    addresses = CheckedAddresses(
        settings.addresses,
        allow_private=settings.allow_private_addresses,
        num_threads=settings.num_connections,
    )
    connector = aiohttp.TCPConnector(
        limit=0,  # the schedule bounds what is under way
        resolver=addresses,
        socket_factory=addresses.socket,
        ttl_dns_cache=None,  # a name is looked up once in a unit
        keepalive_timeout=min(MAX_KEEP_SECONDS, 1.0 + 4 * settings.delay_seconds),
    )
    contact = f" (+{settings.contact})" if settings.contact else ""
    headers = {
        "User-Agent": settings.user_agent + contact,
        "Accept": "image/*,*/*;q=0.5",
        "Accept-Encoding": "identity",
    }
    session = aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=settings.idle_timeout_seconds, sock_read=settings.idle_timeout_seconds
        ),
        read_bufsize=READ_BYTES,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        max_headers=MAX_HEADERS,
    )
    # aiohttp sends a request again, at once, when a kept connection turns out to be cut. A server that cuts each
    # connection would be asked twice as often as allowed; the schedule asks again when it may.
    session._retry_connection = False  # noqa: SLF001 -- there is no other way to say so
    return session


class ImageReader:
    """Reads an answer to the request for an image: its bytes, or why there are none."""

    def __init__(self, opt_outs: Collection[str], product: str, max_bytes: int) -> None:
        self._opt_outs = frozenset(word.lower() for word in opt_outs)
        self._product = product
        self._max_bytes = max_bytes

    async def __call__(self, response: ClientResponse, receipt: Receipt) -> Answer:
        """Return what `response` holds. Raises RecordError."""
        status, headers = response.status, response.headers
        if status != 200:
            answer = Answer(reason=f"http_{status}", detail=str(response.reason or "")[:100], http_status=status)
            answer.location = headers.get("Location") if status in REDIRECTS else None
            answer.retry_after = retry_after_seconds(headers.get("Retry-After"))
            await drain(response)
            return answer
        objected = objection(headers, self._product, self._opt_outs)
        if objected is not None:
            raise RecordError("opted_out", objected)
        return Answer(payload=await read_image(response, self._max_bytes, receipt), http_status=status)


class Transfers:
    """Makes requests. `end` is the time of the loop's clock at which the unit's time is up."""

    def __init__(self, session: aiohttp.ClientSession, settings: FetchSettings, end: float) -> None:
        self._session = session
        self._settings = settings
        self._end = end
        self._clock = asyncio.get_running_loop().time

    async def get(self, target: Target, read: Reader, *, is_last: bool = False) -> Answer:
        """Ask for `target` and return what came of it; raises nothing but cancellation."""
        started = self._clock()
        receipt = Receipt()
        try:
            # Over all: a server that sends a byte a second is never idle.
            async with asyncio.timeout_at(min(started + self._settings.timeout_seconds, self._end)):
                answer = await self._ask(target, read, receipt, is_last=is_last)
        except Exception as error:  # noqa: BLE001 - the edge of a record: one URL must not end the others
            answer = self._failure(error)
            answer.is_silent = receipt.status is None and answer.reason in ("timeout", "connection_failed")
        answer.seconds = self._clock() - started
        answer.received_bytes = receipt.num_bytes
        answer.http_status = answer.http_status or receipt.status
        return answer

    async def _ask(self, target: Target, read: Reader, receipt: Receipt, *, is_last: bool) -> Answer:
        headers = {"Connection": "close"} if is_last else None
        url = URL(target.url, encoded=True)
        async with self._session.get(url, headers=headers, allow_redirects=False) as response:
            receipt.status = response.status
            return await read(response, receipt)

    def _failure(self, error: Exception) -> Answer:
        """Return what an exception means: a library's, or the reason that one of ours carries."""
        if isinstance(error, RecordError):
            return Answer(reason=error.reason, detail=error.detail)
        if isinstance(error, TimeoutError):
            return self._timeout(error)
        reason, detail = "fetch_failed", f"{type(error).__name__}: {error}"
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            number = getattr(error.os_error, "errno", None)
            reason = "unknown_host" if number in NO_SUCH_HOST else "connection_failed"
        elif isinstance(error, aiohttp.ClientSSLError):
            reason = "tls_failed"  # a certificate is no better a second later
        elif isinstance(error, aiohttp.InvalidURL):
            reason = "bad_url"
        elif isinstance(error, aiohttp.ClientResponseError):
            reason = "bad_response"  # no HTTP, or headers beyond all measure
        elif isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | OSError):
            reason = "connection_failed"
        return Answer(reason=reason, detail=detail[:500])

    def _timeout(self, error: TimeoutError) -> Answer:
        if self._clock() >= self._end:
            return Answer(reason="deadline", detail="the unit's time was up", is_cut_off=True)
        if isinstance(error, aiohttp.ClientError):
            seconds = self._settings.idle_timeout_seconds
            return Answer(reason="timeout", detail=f"{type(error).__name__} after {seconds:g} s")
        return Answer(reason="timeout", detail=f"not finished after {self._settings.timeout_seconds:g} s")

"""Image URLs -> their bytes, or the reason why not, as they finish.

Nothing is implied: no proxy or certificate from the environment, no cookies, no credentials, no retries. The pool of
`httpcore2` is used directly, below the client of `httpx2`, because it lets the address that was checked be the address
that is connected to (`addresses`) and its body be read under a limit (`body`).
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpcore2
import httpx2

from carnac.core.errors import RecordError
from carnac.images.addresses import CheckedNetwork
from carnac.images.body import header, read_body
from carnac.images.settings import FetchSettings

REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The end of one URL: `payload`, or a `reason` with a `detail` for the reader.

    Reasons: `bad_url`, `refused_scheme`, `refused_address`, `too_many_redirects`, `too_many_bytes`, `bad_encoding`,
    `timeout`, `connection_failed`, `http_<status>`, and `fetch_failed` for what nobody thought of.
    """

    url: str
    payload: bytes | None
    reason: str | None = None
    detail: str = ""


def fetch_images(urls: Sequence[str], settings: FetchSettings, max_bytes: int) -> Iterator[Fetched]:
    """Fetch `urls`, at most `settings.num_connections` at once; yield one `Fetched` for each, as they finish.

    Transfers go on while the caller works on a result; they pause while `num_connections` results wait to be taken, so
    at most 2 x `num_connections` x `max_bytes` are in memory. Closing the iterator ends all transfers.
    """
    if not urls:
        return
    transfers = _Transfers(urls, settings, max_bytes)
    transfers.start()
    try:
        while (fetched := transfers.finished.get()) is not None:
            yield fetched
    finally:
        transfers.stopping.set()
        transfers.join()
    if transfers.mistake is not None:
        raise transfers.mistake


class _Transfers(threading.Thread):
    """An event loop in a thread of its own. `finished` ends with None; `mistake` is an error of ours."""

    def __init__(self, urls: Sequence[str], settings: FetchSettings, max_bytes: int) -> None:
        super().__init__(name="carnac-fetch", daemon=True)
        self.finished: queue.SimpleQueue[Fetched | None] = queue.SimpleQueue()
        self.stopping = threading.Event()
        self.mistake: Exception | None = None
        self._todo = iter(urls)
        self._num_workers = min(len(urls), settings.num_connections)
        self._settings = settings
        self._max_bytes = max_bytes

    def run(self) -> None:
        try:
            asyncio.run(self._work_off())
        except Exception as error:  # noqa: BLE001 - carried over to the caller's thread and raised there
            self.mistake = error
        finally:
            self.finished.put(None)

    async def _work_off(self) -> None:
        # Name look-ups block a thread each; the default of a few threads would let dead names hold up good ones.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(self._num_workers))
        async with _pool(self._settings) as pool, asyncio.TaskGroup() as group:
            workers = {group.create_task(self._work(pool)) for _ in range(self._num_workers)}
            while workers and not self.stopping.is_set():
                _, workers = await asyncio.wait(workers, timeout=0.1)
            for worker in workers:
                worker.cancel()

    async def _work(self, pool: httpcore2.AsyncConnectionPool) -> None:
        for url in self._todo:
            while self.finished.qsize() >= self._settings.num_connections:
                await asyncio.sleep(0.02)
            self.finished.put(await _fetch(pool, url, self._settings, self._max_bytes))


def _pool(settings: FetchSettings) -> httpcore2.AsyncConnectionPool:
    return httpcore2.AsyncConnectionPool(
        ssl_context=httpx2.create_ssl_context(trust_env=False),
        max_connections=settings.num_connections,
        keepalive_expiry=settings.idle_timeout_seconds,
        network_backend=CheckedNetwork(allow_private_addresses=settings.allow_private_addresses),
    )


async def _fetch(pool: httpcore2.AsyncConnectionPool, url: str, settings: FetchSettings, max_bytes: int) -> Fetched:
    """Return how `url` ended; raises nothing but cancellation."""
    try:
        # Over all: a server that sends a byte a second is never idle.
        async with asyncio.timeout(settings.timeout_seconds):
            return Fetched(url=url, payload=await _follow(pool, url, settings, max_bytes))
    except RecordError as error:
        reason, detail = error.reason, error.detail
    except TimeoutError:
        reason, detail = "timeout", f"not finished after {settings.timeout_seconds:g} s"
    except httpcore2.TimeoutException as error:
        reason, detail = "timeout", f"{type(error).__name__} after {settings.idle_timeout_seconds:g} s {error}".rstrip()
    except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
        reason, detail = "connection_failed", f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - the edge of a record: one URL must not end the others
        reason, detail = "fetch_failed", f"{type(error).__name__}: {error}"
    return Fetched(url=url, payload=None, reason=reason, detail=detail)


async def _follow(pool: httpcore2.AsyncConnectionPool, url: str, settings: FetchSettings, max_bytes: int) -> bytes:
    """Return the body that `url` leads to, every hop checked like the first."""
    place = parse_url(url)
    for _ in range(settings.max_redirects + 1):
        target = httpcore2.URL(scheme=place.raw_scheme, host=place.raw_host, port=place.port, target=place.raw_path)
        seconds = settings.idle_timeout_seconds
        timeouts = {"connect": seconds, "read": seconds, "write": seconds, "pool": seconds}
        headers = _headers(place, settings)
        async with pool.stream("GET", target, headers=headers, extensions={"timeout": timeouts}) as response:
            if response.status == 200:
                return await read_body(response, max_bytes)
            location = header(response, b"location") if response.status in REDIRECTS else None
            if location is None:
                raise RecordError(f"http_{response.status}", str(place)[:200])
            place = parse_url(location, place)
    raise RecordError("too_many_redirects", f"more than {settings.max_redirects}, the last to {str(place)[:200]}")


def _headers(place: httpx2.URL, settings: FetchSettings) -> list[tuple[bytes, bytes]]:
    contact = f" (+{settings.contact})" if settings.contact else ""
    return [
        (b"Host", place.netloc),
        (b"User-Agent", f"{settings.user_agent}{contact}".encode("ascii")),
        (b"Accept", b"image/*,*/*;q=0.5"),
        (b"Accept-Encoding", b"identity"),
    ]


def parse_url(text: str, base: httpx2.URL | None = None) -> httpx2.URL:
    """Return `text` as a URL that may be asked for, relative to `base` if given.

    Raises `RecordError`: `bad_url` (no host, credentials, not a URL) or `refused_scheme` (not http or https).
    """
    try:
        url = httpx2.URL(text) if base is None else base.join(text)
    except (httpx2.InvalidURL, ValueError) as error:
        raise RecordError("bad_url", f"{text[:200]!r}: {error}") from error
    if url.scheme and url.scheme not in ("http", "https"):
        raise RecordError("refused_scheme", f"{url.scheme[:40]} in {text[:200]!r}")
    if not url.scheme or not url.host:
        raise RecordError("bad_url", f"{text[:200]!r} has no host")
    if url.userinfo:
        raise RecordError("bad_url", f"credentials in {url.host}'s URL")
    if url.port is not None and not 0 < url.port < 65536:
        raise RecordError("bad_url", f"port {url.port} in {text[:200]!r}")
    return url

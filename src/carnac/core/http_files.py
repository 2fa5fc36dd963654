"""Files behind HTTP(S), to read: by ranges, with patience, and whole where a server knows no ranges.

Of fsspec only the session and its event loop are used: its own files call every failure "no such file", try nothing
twice and take a whole file for the range that was asked for. What goes wrong here is an OSError with a sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import IO, Any, TypeGuard, TypeVar, cast
from urllib.parse import quote

from upath import UPath

from carnac import __version__

HTTP = ("http", "https")
# As patient as with a store (core/stores.py): a server that refuses is given up after 15 s, a silent one after 105 s.
_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
_MAX_PAUSE_SECONDS = 60.0  # of what a server asks for in Retry-After
_CONNECT_SECONDS, _READ_SECONDS = 5, 15
_BUSY = frozenset((408, 425, 429, 500, 502, 503, 504))
_NO_HEAD = frozenset((400, 401, 403, 405, 501))  # how servers say that they answer no HEAD; signed URLs say 403
_LOOKS_AT_ONCE = 16  # HEAD requests under way: 1,000 archives at 100 ms each are asked after in 7 s
_PIECE_BYTES = 1 << 18
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_T = TypeVar("_T")


class _BusyError(Exception):
    """A server asks to come again; `pause` is what it says in Retry-After, in seconds."""

    def __init__(self, message: str, pause: float | None) -> None:
        super().__init__(message)
        self.pause = pause


def is_http(place: object) -> TypeGuard[UPath]:
    """Say whether a place is a file behind HTTP(S)."""
    return isinstance(place, UPath) and place.protocol in HTTP


def http_place(url: str) -> UPath:
    """Return the place of a URL. Raises ValueError where it names no host, or the library is not installed."""
    if not re.match(r"https?://[^/?#\s]+", url, re.IGNORECASE):
        raise ValueError(f"{url}: wanted http(s)://HOST/PATH")
    try:
        import aiohttp  # noqa: F401 -- asked for here so that the sentence comes before any work
    except ImportError as error:
        raise ValueError(f"{url}: {error}; try: pip install 'carnac[http]'") from None
    scheme, _, rest = url.partition("://")
    return UPath(f"{scheme.lower()}://{rest}")


def look(places: Sequence[UPath]) -> dict[str, Mapping[str, Any]]:
    """Return what servers say of files, by path: `name`, `size` (None: not told), `ETag`, `LastModified`.

    Raises OSError (FileNotFoundError where there is none).
    """

    async def every() -> list[Mapping[str, Any]]:
        gate = asyncio.Semaphore(_LOOKS_AT_ONCE)

        async def one(place: UPath) -> Mapping[str, Any]:
            async with gate:
                return await _patiently(place, lambda: _look(place.path))

        return list(await asyncio.gather(*(one(place) for place in places)))

    return {str(facts["name"]): facts for facts in _run(every)}


def read_range(place: UPath, start: int | None, stop: int | None) -> bytes:
    """Return the bytes from `start` (negative: from the end) to `stop`; fewer, or none, where the file ends before.

    Raises OSError (FileNotFoundError where there is none).
    """
    if (start or 0) < 0:
        start = max(0, _size_of(place) + (start or 0))
    return _fetch(place, start or 0, stop)[0]


def open_http(place: UPath, block_bytes: int, *, exact: bool) -> IO[bytes]:
    """Open a file for reading. Raises OSError.

    Blocks of `block_bytes` are asked for and the last two kept; with `exact` each read asks for its own bytes. From a
    server without ranges the file is fetched whole, to a temporary file that has no name.
    """
    spool = tempfile.TemporaryFile()  # noqa: SIM115 -- it is what is returned, or closed
    first, size = _fetch(place, 0, 1 if exact else block_bytes, whole=spool)
    if size is None and not first:  # no range came: the file did
        spool.seek(0)
        return spool
    spool.close()
    file = _HttpFile(place, _size_of(place) if size is None else size, block_bytes, None if exact else first)
    return cast("IO[bytes]", file)


class _HttpFile(io.RawIOBase):
    """A file read by ranges. A read gives all that was asked for, unless the file ends."""

    def __init__(self, place: UPath, size: int, block_bytes: int, first: bytes | None) -> None:
        self._place, self._size, self._block_bytes = place, size, block_bytes
        self._blocks: dict[int, bytes] | None = None if first is None else {0: first}
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._size, self._at + len(buffer))
        done = 0
        for piece in self._pieces(stop):
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        self._at += done
        return done

    def _pieces(self, stop: int) -> Iterator[bytes]:
        if self._at >= stop:
            return
        if self._blocks is None:
            yield self._fetch(self._at, stop)
            return
        for number in range(self._at // self._block_bytes, (stop - 1) // self._block_bytes + 1):
            begin = number * self._block_bytes
            yield self._block(number)[max(0, self._at - begin) : stop - begin]

    def _block(self, number: int) -> bytes:
        assert self._blocks is not None
        block = self._blocks.pop(number, None)
        if block is None:
            begin = number * self._block_bytes
            block = self._fetch(begin, min(self._size, begin + self._block_bytes))
            while len(self._blocks) > 1:
                del self._blocks[next(iter(self._blocks))]
        self._blocks[number] = block  # last used is last thrown away
        return block

    def _fetch(self, start: int, stop: int) -> bytes:
        data, size = _fetch(self._place, start, stop)
        if len(data) < stop - start or size not in (None, self._size):
            raise OSError(errno.ESTALE, "the file behind the URL changed while it was read", str(self._place))
        return data


def _size_of(place: UPath) -> int:
    size = look([place])[place.path]["size"]
    if size is None:
        raise OSError(errno.EIO, "the server does not tell the size of the file", str(place))
    return int(size)


def _fetch(place: UPath, start: int, stop: int | None, whole: IO[bytes] | None = None) -> tuple[bytes, int | None]:
    """Return the bytes from `start` to `stop` and the file's size; None for it where the server knows no ranges.

    From such a server the bytes before `start` are read over, or, with `whole`, all of the file is written to that.
    """
    held = bytearray()

    async def go_on() -> int | None:
        return await _get(place.path, start, stop, held, whole)

    size = _run(lambda: _patiently(place, go_on))
    return bytes(held), size


async def _get(url: str, start: int, stop: int | None, held: bytearray, whole: IO[bytes] | None) -> int | None:
    """Ask once for what `held` lacks of the bytes from `start` to `stop`; it keeps what came, also if it ends early."""
    first = start + len(held)
    if stop is not None and first >= stop:
        return None
    headers = {"Range": f"bytes={first}-{'' if stop is None else stop - 1}"} if first or stop is not None else {}
    async with (await _session()).get(_encoded(url), headers=headers) as answer:
        if answer.status == 416:  # begins after the end, of an empty file at byte 0
            return _total(answer.headers, default=first)
        _check(answer, url)
        skipped = 0
        if answer.status == 206:
            found = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != first:
                said = answer.headers.get("Content-Range")
                raise OSError(errno.EPROTO, f"the server was asked for bytes from {first} and gave {said!r}", url)
        elif whole is not None:
            await _spool(answer, whole)
            return None
        else:
            skipped = first
        async for piece in answer.content.iter_chunked(_PIECE_BYTES):
            useful = piece[skipped:]
            skipped = max(0, skipped - len(piece))
            held += useful if stop is None else useful[: stop - start - len(held)]
            if stop is not None and start + len(held) >= stop:
                break
        return _total(answer.headers, default=None) if answer.status == 206 else None


async def _spool(answer: Any, whole: IO[bytes]) -> None:
    whole.seek(0)
    whole.truncate()
    async for piece in answer.content.iter_chunked(_PIECE_BYTES):
        whole.write(piece)


async def _look(url: str) -> Mapping[str, Any]:
    session = await _session()
    async with session.head(_encoded(url), allow_redirects=True) as answer:
        if answer.status not in _NO_HEAD:
            _check(answer, url)
            return _facts(url, answer.headers, answer.headers.get("Content-Length"))
    async with session.get(_encoded(url), headers={"Range": "bytes=0-0"}) as answer:
        if answer.status != 416:
            _check(answer, url)
        size = answer.headers.get("Content-Length") if answer.status == 200 else _total(answer.headers, default=None)
        return _facts(url, answer.headers, size)


def _facts(url: str, headers: Mapping[str, str], size: str | int | None) -> Mapping[str, Any]:
    facts = {"name": url, "size": None if size is None else int(size)}
    told = {"ETag": headers.get("ETag"), "LastModified": headers.get("Last-Modified")}
    return facts | {name: value for name, value in told.items() if value}


def _total(headers: Mapping[str, str], default: int | None) -> int | None:
    found = re.search(r"/(\d+)\s*$", headers.get("Content-Range", ""))
    return int(found[1]) if found else default


def _check(answer: Any, url: str) -> None:
    """Raise what an answer that is no success means."""
    if 200 <= answer.status < 300:
        return
    told = f"the server says: {answer.status} {answer.reason or ''}".rstrip()
    if answer.status in _BUSY:
        asked = answer.headers.get("Retry-After", "")
        raise _BusyError(told, float(asked) if asked.isdecimal() else None)
    if answer.status in (404, 410):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    if answer.status in (401, 403, 407):
        raise PermissionError(errno.EACCES, f"{told}: check the URL and what it allows", url)
    raise OSError(errno.EPROTO, told, url)


async def _patiently(place: UPath, ask: Callable[[], Awaitable[_T]]) -> _T:
    """Return what `ask` gives; a server that is busy, silent or gone in the middle is asked again, after pauses."""
    import aiohttp

    for pause in (*_PAUSES_SECONDS, None):
        try:
            return await ask()
        except aiohttp.InvalidURL as error:
            raise OSError(errno.EINVAL, f"no URL that can be asked for ({error})", str(place)) from None
        except _BusyError as error:
            told, asked = str(error), error.pause
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            told, asked = f"the server does not answer ({_told(error)})", None
        if pause is not None:
            await asyncio.sleep(min(_MAX_PAUSE_SECONDS, max(pause, asked or 0)))
    raise OSError(errno.EHOSTUNREACH, f"{told}, asked {len(_PAUSES_SECONDS) + 1} times", str(place))


def _told(error: BaseException) -> str:
    return (str(error).partition("\n")[0] or type(error).__name__).rstrip(". ")


def _run(go: Callable[[], Awaitable[_T]]) -> _T:
    from fsspec.asyn import sync

    result: _T = sync(_store().loop, go)
    return result


def _store() -> Any:
    """Return fsspec's HTTP file system: one for a process, with the event loop that it runs in a thread."""
    import fsspec

    # What is stored compressed has that very form as its bytes: nothing is to be undone on the way.
    headers = {"Accept-Encoding": "identity", "User-Agent": f"carnac/{__version__}"}
    client = {"headers": headers, "auto_decompress": False, "trust_env": True}
    return fsspec.filesystem("http", client_kwargs=client, get_client=_client, encoded=True)


async def _client(**options: Any) -> Any:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
    with contextlib.suppress(KeyError):
        del options["loop"]  # the running one
    return aiohttp.ClientSession(timeout=timeout, **options)


async def _session() -> Any:
    return await _store().set_session()


def _encoded(url: str) -> Any:
    """Return a URL as it is sent: what is percent-encoded already stays, so that a signature in it holds."""
    return _store().encode_url(quote(url, safe="%/:?#[]@!$&'()*+,;=~"))

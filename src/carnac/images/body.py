"""A response's body -> bytes, never more than allowed, whatever the server announces or sends."""

from __future__ import annotations

import contextlib
import zlib

import httpcore2

from carnac.core.errors import RecordError

GZIP_OR_ZLIB = 47  # zlib's word for "either header, largest window"


def header(response: httpcore2.Response, name: bytes) -> str | None:
    """Return the first header called `name` (lower case), or None. Not UTF-8 is read as Latin-1."""
    for key, value in response.headers:
        if key.lower() == name:
            try:
                return value.decode()
            except UnicodeDecodeError:
                return value.decode("latin-1")
    return None


async def read_body(response: httpcore2.Response, max_bytes: int) -> bytes:
    """Return the body, unpacked where a server packs it although it was asked not to.

    The limit holds for the bytes received and for the bytes unpacked, each as soon as it is passed.
    """
    announced = header(response, b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > max_bytes:
        raise RecordError("too_many_bytes", f"{announced} bytes announced, at most {max_bytes}")
    unpack = _unpacker(response)
    body = bytearray()
    num_received = 0
    async with contextlib.aclosing(response.aiter_stream()) as chunks:
        async for chunk in chunks:
            num_received += len(chunk)
            # max_length stays above 0, which for zlib means "no limit".
            body += unpack.decompress(chunk, max_bytes + 1 - len(body)) if unpack else chunk
            if max(num_received, len(body)) > max_bytes:
                raise RecordError("too_many_bytes", f"more than {max_bytes} bytes sent")
    if unpack and not unpack.eof:
        raise RecordError("bad_encoding", "the packed body ends early")
    return bytes(body)


def _unpacker(response: httpcore2.Response) -> _Unpacker | None:
    encoding = (header(response, b"content-encoding") or "identity").strip().lower()
    if encoding == "identity":
        return None
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _Unpacker()
    # Also a list ("gzip, gzip"): layers multiply.
    raise RecordError("bad_encoding", f"content-encoding {encoding[:80]!r} was not asked for and is not read")


class _Unpacker:
    """One layer of gzip or zlib, a bounded number of bytes at a time."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(GZIP_OR_ZLIB)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    def decompress(self, chunk: bytes, max_length: int) -> bytes:
        try:
            return self._inflate.decompress(chunk, max_length)
        except zlib.error as error:
            raise RecordError("bad_encoding", str(error)) from error

"""A response's body -> bytes, never more than allowed, whatever the server announces or sends."""

from __future__ import annotations

import zlib

from aiohttp import ClientResponse

from carnac.core.errors import RecordError
from carnac.images.answers import Receipt
from carnac.images.inspect import sniff_media_type

GZIP_OR_ZLIB = 47  # zlib's word for "either header, largest window"
FIRST_BYTES = 1024  # tell an image of any type from a page
# What is left unread costs the connection. Pages of errors are mostly shorter than this, and read in no time.
MAX_REST_BYTES = 16_384


async def read_image(response: ClientResponse, max_bytes: int, receipt: Receipt) -> bytes:
    """Return the body, unpacked where a server packs it although it was asked not to.

    The limit holds for the bytes announced, received and unpacked, each as soon as it is known to be passed. Raises
    `RecordError`: `too_many_bytes`, `bad_encoding`, `empty`, and `not_an_image` as soon as the first bytes tell.
    """
    announced = response.content_length
    if announced is not None and announced > max_bytes:
        raise RecordError("too_many_bytes", f"{announced} bytes announced, at most {max_bytes}")
    unpacker = _unpacker(response)
    pieces: list[bytes] = []
    length = 0
    is_known = False
    while chunk := await response.content.readany():
        receipt.num_bytes += len(chunk)
        # max_length stays above 0, which for zlib means "no limit".
        piece = unpacker.decompress(chunk, max_bytes + 1 - length) if unpacker else chunk
        pieces.append(piece)
        length += len(piece)
        if max(receipt.num_bytes, length) > max_bytes:
            raise RecordError("too_many_bytes", f"more than {max_bytes} bytes sent")
        if not is_known and length >= FIRST_BYTES:
            check_first_bytes(b"".join(pieces))
            is_known = True
    if unpacker and not unpacker.eof:
        raise RecordError("bad_encoding", "the packed body ends early")
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if not is_known:
        check_first_bytes(body)
    return body


def check_first_bytes(body: bytes) -> None:
    """Raise `RecordError` `empty` or `not_an_image` if a body that begins so cannot be an image of any type."""
    if not body:
        raise RecordError("empty", "no bytes")
    if sniff_media_type(body) is None:
        raise RecordError("not_an_image", f"starts with {body[:16]!r}")


async def read_text(response: ClientResponse, max_bytes: int, receipt: Receipt) -> bytes:
    """Return at most the first `max_bytes` of a body; what follows is not read. Raises `RecordError` `bad_encoding`."""
    unpacker = _unpacker(response)
    body = bytearray()
    while len(body) < max_bytes and (chunk := await response.content.readany()):
        receipt.num_bytes += len(chunk)
        body += unpacker.decompress(chunk, max_bytes - len(body)) if unpacker else chunk
    return bytes(body[:max_bytes])


async def drain(response: ClientResponse) -> None:
    """Read a short rest of a body, so that its connection can be used again; of a longer one, close the connection."""
    announced = response.content_length
    if announced is None or announced <= MAX_REST_BYTES:
        length = 0
        while length <= MAX_REST_BYTES and (chunk := await response.content.readany()):
            length += len(chunk)
        if response.content.at_eof():
            return
    response.close()


def _unpacker(response: ClientResponse) -> _Unpacker | None:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
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

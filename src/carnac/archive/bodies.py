"""HTTP bodies as stored in an archive -> the bytes that the server meant, within a bound.

Archives disagree: some store the body as it came over the wire, some store it decoded and leave the headers as they
were. A body that does not begin like its declared encoding is therefore taken as already decoded.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Protocol

from fastwarc.stream_io import BrotliReader

from carnac.archive.frames import DamagedFrameError
from carnac.archive.zstd_frames import ZSTD_MAGIC, ZstdFrame
from carnac.core.errors import RecordError

_CHUNK_HEADER = re.compile(rb"(?:\r?\n)?([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_MARKUP = re.compile(rb"\s*<")


class _Reader(Protocol):
    def read(self, size: int = ...) -> bytes: ...


def decode_body(raw: bytes, *, transfer: str, encodings: Sequence[str], max_bytes: int) -> bytes:
    """Undo transfer and content encodings.

    `encodings` are in the order in which they were applied. Raises RecordError `payload_too_large` before more than
    `max_bytes` are held, and `undecodable_payload`.
    """
    if "chunked" in transfer.lower() and _CHUNK_HEADER.match(raw):
        raw = _join_chunks(raw)
    for encoding in reversed([name.strip().lower() for name in encodings]):
        if encoding in ("gzip", "x-gzip"):
            raw = _inflate(raw, 31, max_bytes) if raw.startswith(b"\x1f\x8b") else raw
        elif encoding == "deflate":
            raw = _undeflate(raw, max_bytes)
        elif encoding == "br":
            raw = _unbrotli(raw, max_bytes)
        elif encoding == "zstd":
            raw = _unzstd(raw, max_bytes) if raw.startswith(ZSTD_MAGIC) else raw
        elif encoding not in ("", "identity", "none") and not _MARKUP.match(raw):
            raise RecordError("undecodable_payload", f"content encoding {encoding[:40]!r} is not known")
    return raw


def _join_chunks(raw: bytes) -> bytes:
    """Undo chunked transfer (RFC 9112, 7.1); what follows the last chunk is dropped."""
    pieces: list[bytes] = []
    place = 0
    while (header := _CHUNK_HEADER.match(raw, place)) is not None:
        num_bytes = int(header[1], 16)
        place = header.end() + num_bytes
        if not num_bytes:
            return b"".join(pieces)
        if place > len(raw):
            break
        pieces.append(raw[header.end() : place])
    raise RecordError("undecodable_payload", f"chunked: no sound chunk at byte {place:,} of {len(raw):,}")


def read_at_most(reader: _Reader, max_bytes: int) -> bytes:
    """Read `reader` to its end; raise RecordError `payload_too_large` once there are more than `max_bytes`."""
    pieces, left = [], max_bytes + 1
    while left > 0 and (piece := reader.read(min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0:
        raise RecordError("payload_too_large", f"more than {max_bytes:,} bytes")
    return b"".join(pieces)


def _inflate(raw: bytes, window_bits: int, max_bytes: int) -> bytes:
    decoder = zlib.decompressobj(window_bits)
    try:
        body = decoder.decompress(raw, max_bytes + 1)
    except zlib.error as error:
        raise RecordError("undecodable_payload", f"gzip or deflate: {error}") from None
    if len(body) > max_bytes:
        raise RecordError("payload_too_large", f"more than {max_bytes:,} bytes once decompressed")
    if not decoder.eof:
        raise RecordError("undecodable_payload", f"gzip or deflate: the stream ends early, after {len(body):,} bytes")
    return body


def _undeflate(raw: bytes, max_bytes: int) -> bytes:
    """Inflate `raw`, which servers send with a zlib header (RFC 9110) or without one."""
    if _MARKUP.match(raw):
        return raw
    has_header = len(raw) > 1 and raw[0] & 0x0F == 8 and int.from_bytes(raw[:2], "big") % 31 == 0
    return _inflate(raw, 15 if has_header else -15, max_bytes)


def _unbrotli(raw: bytes, max_bytes: int) -> bytes:
    try:
        return read_at_most(BrotliReader(BytesIO(raw)), max_bytes)
    except OSError as error:
        if _MARKUP.match(raw):  # brotli has no magic number: markup that is no brotli was stored decoded
            return raw
        raise RecordError("undecodable_payload", f"br: {error}") from None


def _unzstd(raw: bytes, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    start = 0
    try:
        while start < len(raw):
            frame = ZstdFrame(BytesIO(raw), start)
            pieces.append(read_at_most(frame, max_bytes - sum(map(len, pieces))))
            start = frame.stop
    except DamagedFrameError as error:
        raise RecordError("undecodable_payload", f"zstd: {error}") from None
    return b"".join(pieces)

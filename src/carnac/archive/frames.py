"""Frames: the spans of a WARC file that are meant to hold records.

A frame is one gzip member of a `.warc.gz`, one zstd frame of a `.warc.zst` (`zstd_frames`), or one record of a plain
`.warc`; `search` tells which, and finds the next one after damage. Reading frame by frame gives what a
reader of the whole stream cannot: where each record begins as stored, whether its checksum holds, and a place to go
on after a damaged one. Memory is bounded by buffers, never by what is inside.
"""

from __future__ import annotations

import re
from io import SEEK_END
from typing import IO

from isal import isal_zlib

GZIP_MAGIC = b"\x1f\x8b\x08"
WARC_MAGIC = b"WARC/"
BUFFER_BYTES = 1 << 16
_MAX_HEAD_BYTES = 1 << 16
_LOOK_AHEAD_BYTES = 11  # the two line ends after a record and how the next one begins
_CONTENT_LENGTH = re.compile(rb"^content-length[ \t]*:[ \t]*(\d{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_HEAD_END = re.compile(rb"\r?\n\r?\n")


class DamagedFrameError(Exception):
    """A frame does not hold what it should. `is_cut`: it is sound as far as the file goes."""

    def __init__(self, message: str, *, is_cut: bool = False) -> None:
        super().__init__(message)
        self.is_cut = is_cut


class GzipFrame:
    """The inflated bytes of the gzip member at `start`, as a stream; its checksum is checked at the end."""

    def __init__(self, stream: IO[bytes], start: int) -> None:
        self._stream = stream
        self._decoder = isal_zlib.decompressobj(31)
        self._fed = start
        self._told = 0
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, at most one buffer; b"" at the end."""
        wanted = BUFFER_BYTES if size < 0 else min(size, BUFFER_BYTES)
        while not self._decoder.eof and not self._ended:
            source = self._decoder.unconsumed_tail
            if not source:
                self._stream.seek(self._fed)
                source = self._stream.read(BUFFER_BYTES)
                self._fed += len(source)
                self._ended = not source
            try:
                data = self._decoder.decompress(source, wanted)
            except isal_zlib.IsalError as error:  # type: ignore[misc] # its stub gives it no base
                raise DamagedFrameError(str(error)) from None
            if data:
                self._told += len(data)
                return data
        return b""

    def tell(self) -> int:
        """Return how many bytes have been handed out."""
        return self._told

    def finish(self) -> None:
        """Read on to the end; raise DamagedFrameError if the member is damaged or cut."""
        while self.read():
            pass
        if not self._decoder.eof:
            raise DamagedFrameError("the file ends inside a compressed record", is_cut=True)

    @property
    def stop(self) -> int:
        """Offset of the first byte after the member, once finished."""
        return self._fed - len(self._decoder.unused_data)


class PlainFrame:
    """The bytes of the plain record at `start`, as a stream."""

    def __init__(self, stream: IO[bytes], start: int) -> None:
        self._stream = stream
        self._start = self._place = start
        self.stop = _plain_stop(stream, start)

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; b"" at the end."""
        left = self.stop - self._place
        self._stream.seek(self._place)
        data = self._stream.read(min(left, BUFFER_BYTES if size < 0 else size))
        self._place += len(data)
        return data

    def tell(self) -> int:
        """Return how many bytes have been handed out."""
        return self._place - self._start

    def finish(self) -> None:
        """Do nothing: where the record ends was checked when the frame was made."""


def _plain_stop(stream: IO[bytes], start: int) -> int:
    """Return where the plain record at `start` ends, its closing line ends included."""
    stream.seek(start)
    head = stream.read(_MAX_HEAD_BYTES)
    head_end = _HEAD_END.search(head)
    length = _CONTENT_LENGTH.search(head, 0, head_end.end()) if head_end else None
    if head_end is None or length is None:
        is_cut = head_end is None and len(head) < _MAX_HEAD_BYTES
        raise DamagedFrameError("the record's header has no end or no Content-Length", is_cut=is_cut)
    stop = start + head_end.end() + int(length[1])
    if stop > stream.seek(0, SEEK_END):
        raise DamagedFrameError("the file ends inside a record", is_cut=True)
    stream.seek(stop)
    after = stream.read(_LOOK_AHEAD_BYTES)
    blank = len(after) - len(after.lstrip(b"\r\n"))
    if after[blank:] and not after[blank:].startswith(WARC_MAGIC) and not after.startswith(b"\r\n\r\n"):
        raise DamagedFrameError("Content-Length does not lead to the end of the record")
    return stop + blank

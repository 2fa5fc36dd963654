"""An archive -> its frames: what begins at an offset, and where the next sound one begins after damage.

The magic number says what a frame is, not the name of the file.
"""

from __future__ import annotations

import zlib
from io import SEEK_END
from typing import IO, Protocol

from carnac.archive.frames import GZIP_MAGIC, WARC_MAGIC, DamagedFrameError, GzipFrame, PlainFrame
from carnac.archive.zstd_frames import (
    DICTIONARY_MAGIC,
    ZSTD_MAGIC,
    Dictionary,
    SkippableFrame,
    ZstdFrame,
    is_skippable,
    read_dictionary,
)

_SEARCH_BYTES = 1 << 20
_PROBED_BYTES = 1 << 10
_PLAIN_START = b"\r\n\r\nWARC/1."


class Frame(Protocol):
    """The bytes of one frame, as a stream. `stop` is the offset of the first byte after it, once finished."""

    @property
    def stop(self) -> int:
        """Where the frame ends."""

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; b"" at the end. Raises DamagedFrameError."""

    def tell(self) -> int:
        """Return how many bytes have been handed out."""

    def finish(self) -> None:
        """Read on to the end; raise DamagedFrameError if the frame is damaged or cut."""


class Frames:
    """The frames of an open file. `dictionary` is that of another part of the same file, where this is a part of it."""

    def __init__(self, stream: IO[bytes], dictionary: Dictionary | None = None) -> None:
        self._stream, self._dictionary = stream, dictionary
        self.size = stream.seek(0, SEEK_END)
        self._magic = self._main_magic()

    def _main_magic(self) -> bytes:
        """Return what the records of this file begin with."""
        head = self._head(0)
        if head == WARC_MAGIC:
            return _PLAIN_START
        if head.startswith(GZIP_MAGIC):
            return GZIP_MAGIC
        if head.startswith(ZSTD_MAGIC) or is_skippable(head):
            return ZSTD_MAGIC
        found = (magic for magic in (GZIP_MAGIC, ZSTD_MAGIC) if self._search(0, magic) is not None)
        return next(found, _PLAIN_START)

    def _head(self, start: int) -> bytes:
        self._stream.seek(start)
        return self._stream.read(len(WARC_MAGIC))

    def open(self, start: int) -> Frame:
        """Return the frame at `start`; raise DamagedFrameError if none begins there."""
        head = self._head(start)
        if head.startswith(GZIP_MAGIC):
            return GzipFrame(self._stream, start)
        if head.startswith(ZSTD_MAGIC):
            return ZstdFrame(self._stream, start, self._dictionary)
        if head == WARC_MAGIC:
            return PlainFrame(self._stream, start)
        if start == 0 and head.startswith(DICTIONARY_MAGIC):
            self._dictionary = read_dictionary(self._stream)
        if is_skippable(head):
            return SkippableFrame(self._stream, start)
        raise DamagedFrameError("neither a compressed nor a plain WARC record begins here")

    def find(self, start: int) -> int | None:
        """Return the offset of the first sound beginning of a record at or after `start`, or None."""
        return self._search(start, self._magic)

    def _search(self, start: int, magic: bytes) -> int | None:
        lead = len(_PLAIN_START) - len(b"WARC/1.") if magic == _PLAIN_START else 0
        place = max(0, start - lead)
        while True:
            self._stream.seek(place)
            window = self._stream.read(_SEARCH_BYTES)
            found = window.find(magic)
            while found >= 0:
                if self.holds_record(place + found + lead):
                    return place + found + lead
                found = window.find(magic, found + 1)
            if len(window) < _SEARCH_BYTES:
                return None
            place += len(window) - len(magic) + 1

    def holds_record(self, start: int) -> bool:
        """Say whether the bytes at `start` are those of a record, decompressed if need be."""
        self._stream.seek(start)
        head = self._stream.read(_PROBED_BYTES)
        try:
            if head.startswith(GZIP_MAGIC):
                return zlib.decompressobj(31).decompress(head, len(WARC_MAGIC)) == WARC_MAGIC
            if head.startswith(ZSTD_MAGIC):
                probe = ZstdFrame(self._stream, start, self._dictionary, stop=self.size)
                return probe.read(len(WARC_MAGIC)) == WARC_MAGIC
        except (zlib.error, DamagedFrameError):
            return False
        return head.startswith(WARC_MAGIC)

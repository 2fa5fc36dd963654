"""Zstandard frames of a `.warc.zst` (IIPC, Zstandard Compression for WARC Files 1.0): a frame is a record.

The file may begin with a dictionary that all its frames need, inside a skippable frame. Where a frame ends is told by
the headers of its blocks (RFC 8878, 3.1.1), which are at most 128 KB apart; nothing is decompressed for that.
"""

from __future__ import annotations

from io import SEEK_END
from typing import IO

import zstandard

from carnac.archive.frames import BUFFER_BYTES, DamagedFrameError

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
DICTIONARY_MAGIC = b"\x5d\x2a\x4d\x18"
# What zstd's own tool takes without being told to; the window is the memory that a frame may demand.
MAX_WINDOW_BYTES = 1 << 27
MAX_DICTIONARY_BYTES = 1 << 26  # a thousand times zstd's usual 110 KB
_MAX_BLOCK_BYTES = 1 << 17
_RLE, _RESERVED = 1, 3  # types of a block

Dictionary = zstandard.ZstdCompressionDict


def is_skippable(magic: bytes) -> bool:
    """Say whether a frame of this magic number holds no data, such as a dictionary: 0x184D2A50 to 0x184D2A5F."""
    return len(magic) >= 4 and magic[0] & 0xF0 == 0x50 and magic[1:4] == DICTIONARY_MAGIC[1:]


def read_dictionary(stream: IO[bytes]) -> Dictionary | None:
    """Return the dictionary at the start of a file, if it has one. Raises DamagedFrameError."""
    stream.seek(0)
    head = stream.read(8)
    if head[:4] != DICTIONARY_MAGIC:
        return None
    num_bytes = int.from_bytes(head[4:], "little")
    if num_bytes > MAX_DICTIONARY_BYTES:
        raise DamagedFrameError(f"a dictionary of {num_bytes:,} bytes; at most {MAX_DICTIONARY_BYTES:,} are read")
    data = stream.read(num_bytes)
    if len(data) < num_bytes:
        raise DamagedFrameError("the file ends inside its dictionary", is_cut=True)
    try:
        if data[:4] == ZSTD_MAGIC:
            with decompressor(None).stream_reader(data) as reader:
                data = reader.read(MAX_DICTIONARY_BYTES)
        dictionary = Dictionary(data, dict_type=zstandard.DICT_TYPE_FULLDICT)
        decompressor(dictionary)  # only now it is looked into
        return dictionary
    except zstandard.ZstdError as error:
        raise DamagedFrameError(f"the dictionary cannot be read: {error}") from None


def decompressor(dictionary: Dictionary | None) -> zstandard.ZstdDecompressor:
    """Return a decompressor that refuses frames which demand more memory than `MAX_WINDOW_BYTES`."""
    return zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=MAX_WINDOW_BYTES)


class ZstdFrame:
    """The decompressed bytes of the frame at `start`, as a stream; its checksum, if it has one, is checked at the end.

    With `stop` it is read from a file that may be cut inside it.
    """

    def __init__(
        self, stream: IO[bytes], start: int, dictionary: Dictionary | None = None, stop: int | None = None
    ) -> None:
        self.stop = _frame_stop(stream, start) if stop is None else stop
        self._told = 0
        span = _Span(stream, start, self.stop)
        self._reader = decompressor(dictionary).stream_reader(span, read_size=BUFFER_BYTES)  # type: ignore[arg-type]

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, at most one buffer; b"" at the end."""
        try:
            data = self._reader.read(BUFFER_BYTES if size < 0 else min(size, BUFFER_BYTES))
        except zstandard.ZstdError as error:
            raise DamagedFrameError(str(error)) from None
        self._told += len(data)
        return data

    def tell(self) -> int:
        """Return how many bytes have been handed out."""
        return self._told

    def finish(self) -> None:
        """Read on to the end; raise DamagedFrameError if the frame is damaged."""
        while self.read():
            pass


class SkippableFrame:
    """A frame without data."""

    def __init__(self, stream: IO[bytes], start: int) -> None:
        stream.seek(start + 4)
        size = stream.read(4)
        self.stop = start + 8 + int.from_bytes(size, "little")
        if len(size) < 4 or self.stop > stream.seek(0, SEEK_END):
            raise DamagedFrameError("the file ends inside a skippable frame", is_cut=True)

    def read(self, size: int = -1) -> bytes:  # noqa: ARG002 -- as a stream's
        """Return b"": there is nothing in it."""
        return b""

    def tell(self) -> int:
        """Return 0."""
        return 0

    def finish(self) -> None:
        """Do nothing."""


class _Span:
    """The bytes of a stream from `start` to `stop`, as a stream."""

    def __init__(self, stream: IO[bytes], start: int, stop: int) -> None:
        self._stream, self._place, self._stop = stream, start, stop

    def read(self, size: int) -> bytes:
        self._stream.seek(self._place)
        data = self._stream.read(min(size, self._stop - self._place))
        self._place += len(data)
        return data


def _frame_stop(stream: IO[bytes], start: int) -> int:
    """Return where the frame at `start` ends. Raises DamagedFrameError."""
    stream.seek(start + 4)
    descriptor = stream.read(1)
    if not descriptor:
        raise _cut()
    flags = descriptor[0]
    if flags & 0x08:
        raise DamagedFrameError("not a zstd frame: a reserved bit of its header is set")
    is_single = bool(flags & 0x20)
    size_bytes = (1 if is_single else 0, 2, 4, 8)[flags >> 6]
    place = start + 5 + (not is_single) + (0, 1, 2, 4)[flags & 0x03] + size_bytes
    is_last = False
    while not is_last:
        stream.seek(place)
        header = stream.read(3)
        if len(header) < 3:
            raise _cut()
        block = int.from_bytes(header, "little")
        is_last, kind, num_bytes = bool(block & 1), block >> 1 & 3, block >> 3
        if kind == _RESERVED or num_bytes > _MAX_BLOCK_BYTES:
            raise DamagedFrameError("a block of the zstd frame has no sound header")
        place += 3 + (1 if kind == _RLE else num_bytes)
    place += 4 if flags & 0x04 else 0
    if place > stream.seek(0, SEEK_END):
        raise _cut()
    return place


def _cut() -> DamagedFrameError:
    return DamagedFrameError("the file ends inside a compressed record", is_cut=True)

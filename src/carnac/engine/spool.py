"""What a unit has received and not yet written to its part: an append-only file that survives the end of its process.

What comes from the web must not be asked for twice because a process was killed. Each record is a JSON object of facts
and a payload, under one checksum. `add` writes all records given with one write and one flush, so a caller that waits
for several answers at a time pays for one flush. What was torn by an end is cut off when the file is opened again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from carnac.core.errors import OutputError, RunError
from carnac.core.places import Place, absolute, is_local
from carnac.engine.storage import STALE_SECONDS, flush, scratch

# A record: this header, the facts, the payload. The checksum is CRC-32 (0.012 ms for 40 kB) of lengths, facts, payload:
# after a power cut, what was not flushed may be anything.
HEADER = struct.Struct("<4sIQI")  # mark, bytes of facts, bytes of payload, checksum
LENGTHS = struct.Struct("<IQ")
MARK = b"\xc5spl"  # also on the reader's side of a cut: zeros are no record
MAX_PIECES = 512  # of one writev; Linux takes 1,024 (IOV_MAX)
READ_BYTES = 1 << 20

Record = tuple[Mapping[str, Any], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolPlace:
    """Where the payload of a record lies in its spool: `length` bytes at `offset`."""

    offset: int
    length: int


class Spool:
    """The spool at `path`, made where it lacks. A context manager: one process at a time has it open.

    Several threads may read while one adds. Raises OSError of the disk as it comes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1
        self._end = 0

    def __enter__(self) -> Self:
        """Open the file and cut off what is no whole record. Raises OutputError while another process has it open."""
        # O_APPEND would do for writing; but what is cut off must be overwritten, not followed.
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._lock()
            self._end = sum(length for length, _, _ in self._sound_records())
            os.ftruncate(self._file, self._end)
            flush(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)  # its name, too, is to be there after a power cut
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)  # and with it the lock
        self._file = -1

    def add(self, records: Sequence[Record]) -> list[SpoolPlace]:
        """Append `records`, flush them to the disk, and return the places of their payloads."""
        pieces: list[bytes] = []
        places = []
        end = self._end
        for facts, payload in records:
            text = json.dumps(facts, separators=(",", ":")).encode()
            checksum = zlib.crc32(payload, zlib.crc32(text, zlib.crc32(LENGTHS.pack(len(text), len(payload)))))
            pieces += (HEADER.pack(MARK, len(text), len(payload), checksum), text, payload)
            end += HEADER.size + len(text)
            places.append(SpoolPlace(offset=end, length=len(payload)))
            end += len(payload)
        offset = self._end
        for start in range(0, len(pieces), MAX_PIECES):
            offset = self._write(pieces[start : start + MAX_PIECES], offset)
        os.fdatasync(self._file)
        self._end = end
        return places

    def payload(self, place: SpoolPlace) -> bytes:
        """Return the payload at `place`."""
        payload = _read(self._file, place.offset, place.length)
        if len(payload) != place.length:
            raise RunError(f"{self.path}: cut short while it is in use. Remove it and run the same command again.")
        return payload

    def __iter__(self) -> Iterator[tuple[dict[str, Any], SpoolPlace]]:
        """Yield facts and place of every record that was there when this began, in the order of their coming."""
        offset, end = 0, self._end
        while offset < end:
            _, num_facts, num_payload, _ = HEADER.unpack(_read(self._file, offset, HEADER.size))
            offset += HEADER.size
            facts = json.loads(_read(self._file, offset, num_facts))
            offset += num_facts
            yield facts, SpoolPlace(offset=offset, length=num_payload)
            offset += num_payload

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise OutputError(
                    f"{self.path}: another process is writing it. Two runs must not fetch into one folder: wait for "
                    "the other, or choose another output."
                ) from None
            # Some network file systems know no locks; there `.run.json` alone keeps a second run away.
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                raise

    def _write(self, pieces: list[bytes], offset: int) -> int:
        left = [memoryview(piece) for piece in pieces if piece]
        while left:
            num_written = os.pwritev(self._file, left, offset)
            offset += num_written
            while left and num_written >= len(left[0]):
                num_written -= len(left.pop(0))
            if left:
                left[0] = left[0][num_written:]
        return offset

    def _sound_records(self) -> Iterator[tuple[int, int, int]]:
        """Yield total bytes, bytes of facts and of payload of each record up to the first that is not whole."""
        size = os.fstat(self._file).st_size
        offset = 0
        while offset + HEADER.size <= size:
            mark, num_facts, num_payload, expected = HEADER.unpack(_read(self._file, offset, HEADER.size))
            length = HEADER.size + num_facts + num_payload
            if mark != MARK or offset + length > size:
                return
            checksum = zlib.crc32(LENGTHS.pack(num_facts, num_payload))
            start, stop = offset + HEADER.size, offset + length
            for here in range(start, stop, READ_BYTES):
                checksum = zlib.crc32(_read(self._file, here, min(READ_BYTES, stop - here)), checksum)
            if checksum != expected:
                return
            yield length, num_facts, num_payload
            offset = stop


def spool_path(part: Place) -> Path:
    """Return the path of the spool of the unit that commits `part`: beside it, or for a store in scratch."""
    name = f".{part.name.removesuffix('.parquet')}.spool"
    return part.with_name(name) if is_local(part) else scratch() / f"{_prefix(part.parent)}{name}"


def sweep_spools(folder: Place, there: Iterable[str]) -> None:
    """Remove the spools of units whose part is `there`, and those that nobody has come back to for a week.

    `there` are names of files relative to `folder`. A unit removes its own spool; one that died in between has not.
    """
    found = [folder / name for name in there if _is_spool(name)] if is_local(folder) else []
    prefix = "" if is_local(folder) else _prefix(folder)
    if not is_local(folder) and scratch().is_dir():
        found = [path for path in scratch().iterdir() if _is_spool(path.name.removeprefix(prefix))]
    names = set(there)
    for path in found:
        part = f"{path.name.removeprefix(prefix)[1:].removesuffix('.spool')}.parquet"
        with contextlib.suppress(FileNotFoundError):
            if part in names or time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


def _is_spool(name: str) -> bool:
    return name.startswith(".") and name.endswith(".spool") and "/" not in name


def _prefix(folder: Place) -> str:
    """Return what tells the spools of one folder in a store from those of another."""
    return f"spool-{hashlib.sha256(absolute(folder).encode()).hexdigest()[:16]}"


def _read(file: int, offset: int, length: int) -> bytes:
    """Return `length` bytes at `offset`, fewer only where the file ends."""
    pieces = []
    while length and (piece := os.pread(file, length, offset)):
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)

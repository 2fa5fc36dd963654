"""Image bytes -> a pack: a plain tar, in which an image is also found by offset and length.

A pack is written once, in order, and is the same for the same images: USTAR, no time, no owner, names from the
content's hash. Any tar opens it; carnac reads bytes at an offset and never needs the tar's own index.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Self

from carnac.core.errors import InputError
from carnac.core.places import Place, open_binary, read_bytes
from carnac.core.stores import store_errors
from carnac.images.settings import MediaType

EXTENSIONS: dict[MediaType, str] = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/gif": ".gif",
}
# Read at once of a pack that is read whole: 100 images of 40 kB, so the calls cost nothing beside the copying.
BLOCK_BYTES = 4 << 20


class PackWriter:
    """Writes one pack. A context manager: a clean exit ends and syncs the file, an exception removes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._places: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        self._file = self._path.open("wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        file, self._file = self._file, None
        assert file is not None, "PackWriter left without being entered"
        with file:
            if kind is None:
                file.write(bytes(2 * tarfile.BLOCKSIZE))  # how a tar ends
                file.flush()
                os.fsync(file.fileno())
        if kind is not None:
            self._path.unlink()

    def add(self, sha256: str, media_type: MediaType, payload: bytes) -> tuple[int, int]:
        """Store `payload` and return its place (offset, length); the same `sha256` again is not stored again."""
        assert self._file is not None, "PackWriter used outside its with block"
        assert re.fullmatch("[0-9a-f]{64}", sha256), f"not a sha256 in hex: {sha256!r}"
        if sha256 in self._places:
            return self._places[sha256]
        member = tarfile.TarInfo(sha256 + EXTENSIONS[media_type])  # its defaults: mode 644, owner 0, time 0
        member.size = len(payload)
        self._file.write(member.tobuf(tarfile.USTAR_FORMAT))
        place = (self._file.tell(), len(payload))
        self._file.write(payload)
        self._file.write(bytes(-len(payload) % tarfile.BLOCKSIZE))
        self._places[sha256] = place
        return place


def read_image(pack: Place, offset: int, length: int) -> bytes:
    """Return the `length` bytes at `offset` of `pack`; raises `InputError` if they are not there."""
    try:
        if offset < 0:
            raise ValueError(f"no offset {offset}")  # from the end, to whoever reads
        payload = read_bytes(pack, offset, offset + length)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{pack}: cannot be read ({reason}). Run the recipe that writes the images again.") from error
    if len(payload) != length:
        raise InputError(
            f"{pack}: got {len(payload)} bytes at offset {offset}, wanted {length}. The pack is cut short or not "
            "the one that the table was written with: remove the images folder and run its recipe again"
        )
    return payload


def read_pack(pack: Place, members: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield each of `members` (offset, length) once, ascending, with its bytes: one pass from the front, no seek.

    Reading ends with the last of them. A block and the longest member are held. Raises `InputError` when the pack is
    gone or ends too soon, or when members overlap.
    """
    stop = 0
    wanted = sorted(set(members))
    for offset, length in wanted:
        if offset < stop or length < 0:
            raise InputError(
                f"{pack}: {length} bytes wanted at offset {offset}, where those before end at {stop}. The table of "
                "images is damaged: remove the images folder and run its recipe again."
            )
        stop = offset + length
    try:
        with store_errors(pack), open_binary(pack) as stream:
            yield from _members(stream, wanted)
    except EOFError as error:
        raise InputError(
            f"{pack}: {error}. The pack is cut short or not the one that the table was written with: remove the "
            "images folder and run its recipe again."
        ) from None
    except OSError as error:
        raise InputError(
            f"{pack}: cannot be read ({error.strerror or error}). Run the recipe that writes the images again."
        ) from error


def _members(stream: IO[bytes], wanted: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield `wanted`, sorted and apart, of a stream at its beginning. Raises EOFError where it ends before one does."""
    block, start = b"", 0  # the bytes held, and where in the pack they begin
    for offset, length in wanted:
        pieces, needed = [], offset + length
        while True:
            place = max(offset - start, 0)
            pieces.append(block[place : needed - start])
            if start + len(block) >= needed:
                break
            start += len(block)
            block = stream.read(BLOCK_BYTES)
            if not block:
                raise EOFError(f"ends at {start:,}, wanted {length:,} bytes at offset {offset:,}")
        yield (offset, length), pieces[0] if len(pieces) == 1 else b"".join(pieces)

"""Image bytes -> a pack: a plain tar, in which an image is also found by offset and length.

A pack is written once, in order, and is the same for the same images: USTAR, no time, no owner, names from the
content's hash. Any tar opens it; carnac reads bytes at an offset and never needs the tar's own index.
"""

from __future__ import annotations

import os
import re
import tarfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from carnac.core.errors import InputError
from carnac.core.places import Place, read_bytes
from carnac.images.settings import MediaType

EXTENSIONS: dict[MediaType, str] = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/gif": ".gif",
}


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

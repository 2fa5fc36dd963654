"""Images taken out of a pack: zeros where their bytes were, a name that says nothing, and all else where it was."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from typing import IO

ERASED = "taken-down"  # the name of a member that is no more; a tar may hold many of one name
BLOCK = tarfile.BLOCKSIZE
PIECE_BYTES = 4 << 20


def members(pack: IO[bytes]) -> Iterator[tuple[int, str, int]]:
    """Yield (offset of the header, name, bytes) of every member of a pack that `PackWriter` wrote.

    Raises ValueError where a header is damaged or the pack ends before its end is marked.
    """
    offset = 0
    while True:
        pack.seek(offset)
        header = pack.read(BLOCK)
        if header == bytes(BLOCK):
            return
        try:
            member = tarfile.TarInfo.frombuf(header, "ascii", "surrogateescape")
        except tarfile.HeaderError as error:
            raise ValueError(f"no tar at offset {offset:,} ({error})") from None
        yield offset, member.name, member.size
        offset += BLOCK + member.size + -member.size % BLOCK


def sha256_of_name(name: str) -> str:
    """Return the sha256 that a member is named by."""
    return name.partition(".")[0]


def erased_copy(pack: IO[bytes], copy: IO[bytes], is_erased: Callable[[str], bool]) -> int:
    """Write a copy of `pack` without the members whose sha256 is erased; return how many.

    The copy is as long, and every other member lies where it lay: tables that tell offsets stay true. What is no whole
    pack raises ValueError.
    """
    number = end = 0
    for offset, name, size in members(pack):
        _copy(pack, copy, end, offset)
        end = offset + BLOCK + size
        if is_erased(sha256_of_name(name)):
            number += 1
            header = tarfile.TarInfo(ERASED)
            header.size = size
            copy.write(header.tobuf(tarfile.USTAR_FORMAT))
            for start in range(0, size, PIECE_BYTES):
                copy.write(bytes(min(PIECE_BYTES, size - start)))
        else:
            _copy(pack, copy, offset, end)
    _copy(pack, copy, end, None)
    return number


def _copy(pack: IO[bytes], copy: IO[bytes], start: int, stop: int | None) -> None:
    pack.seek(start)
    while stop is None or start < stop:
        piece = pack.read(PIECE_BYTES if stop is None else min(PIECE_BYTES, stop - start))
        if not piece:
            if stop is not None:
                raise ValueError(f"ends at {start:,}, wanted {stop:,} bytes")
            return
        copy.write(piece)
        start += len(piece)

"""Where a shard has the bytes of its images from: gather files, read forward, or, for a single record, the packs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from carnac.core.errors import InputError, RecordError
from carnac.core.places import Place, read_bytes
from carnac.engine.buckets import bucket_of, read_equal
from carnac.images.pack import read_image
from carnac.shards.gather import SEGMENTS
from carnac.shards.split import Split

# Read at once of a gather file. More gains nothing; less than the lower one costs a call for each image or two.
MIN_BUFFER_BYTES, MAX_BUFFER_BYTES = 1 << 16, 4 << 20
FoundRow = Mapping[str, Any]  # of core.schema.FOUND
ImageBytes = Callable[[int], tuple[bytes, str] | None]  # of a block: bytes and file name; None where it has no image


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What a gather unit left: its part, which lists segments, and the file beside it."""

    part: Place
    file: Place


class ImageSource(Protocol):
    """Gives the images of a shard, document by document, in the order of rows."""

    def take(self, found: Sequence[FoundRow]) -> ImageBytes:
        """Return the images of the next document: `found` are the rows of those that are kept, by block."""


class PackedImages:
    """Images from the packs, each when it is asked for: for one record that is tried again."""

    def __init__(self, packs: Place) -> None:
        self._packs = packs

    def take(self, found: Sequence[FoundRow]) -> ImageBytes:
        """Return a function that reads from the packs."""
        rows = {row["block"]: row for row in found}

        def image_bytes(block: int) -> tuple[bytes, str] | None:
            if (row := rows.get(block)) is None:
                return None
            return _checked(row, read_image(self._packs / row["pack"], row["offset"], row["length"]))

        return image_bytes


class GatheredImages:
    """Images from gather files, in which they lie in the order in which they are asked for: every read goes forward."""

    def __init__(self, gathered: Sequence[Gathered], unit: str, split: Split, buffer_bytes: int) -> None:
        share = min(max(MIN_BUFFER_BYTES, buffer_bytes // max(1, len(gathered))), MAX_BUFFER_BYTES)
        self._segments = [_segment_of(group, unit, split, share) for group in gathered]

    def take(self, found: Sequence[FoundRow]) -> ImageBytes:
        """Read the images, wanted or not: a record that is passed over must not leave its bytes to the next."""
        groups = len(self._segments)
        read = {
            row["block"]: (row, self._segments[bucket_of(row["pack"], groups)].take(row["length"])) for row in found
        }
        return lambda block: None if block not in read else _checked(*read[block])


class Segment:
    """Bytes [offset, stop) of a file, read forward, `buffer_bytes` or more at once. Nothing stays open."""

    def __init__(self, file: Place, offset: int, stop: int, buffer_bytes: int) -> None:
        self._file, self._next, self._stop, self._buffer_bytes = file, offset, stop, buffer_bytes
        self._held, self._at = b"", 0

    def take(self, length: int) -> bytes:
        """Return the next `length` bytes. Raises InputError where there are not so many."""
        missing = length - (len(self._held) - self._at)
        if missing > 0:
            stop = min(self._next + max(missing, self._buffer_bytes), self._stop)
            self._held, self._at = self._held[self._at :] + self._read(stop), 0
            self._next = stop
        if len(self._held) - self._at < length:
            raise InputError(
                f"{self._file}: ends before {length:,} bytes more at {self._next:,}. Remove {self._file.parent}, which "
                "the next run makes again, and run the recipe again."
            )
        self._at += length
        return self._held[self._at - length : self._at]

    def _read(self, stop: int) -> bytes:
        try:
            return read_bytes(self._file, self._next, stop)
        except OSError as error:
            raise InputError(
                f"{self._file}: cannot be read ({error.strerror or error}). Run the recipe again."
            ) from error


def _segment_of(gathered: Gathered, unit: str, split: Split, buffer_bytes: int) -> Segment:
    for batch in read_equal(gathered.part, "unit", unit, SEGMENTS.names):
        for row in batch.to_pylist():
            if row["split"] == split:
                return Segment(gathered.file, row["offset"], row["offset"] + row["length"], buffer_bytes)
    return Segment(gathered.file, 0, 0, buffer_bytes)


def _checked(row: FoundRow, payload: bytes) -> tuple[bytes, str]:
    """Return an image and its name. Raises RecordError `damaged_image` where the bytes are not those that were kept."""
    sha256 = row["sha256"]
    if hashlib.sha256(payload).hexdigest() != sha256:
        raise RecordError(
            "damaged_image", f"{row['length']:,} bytes at {row['offset']:,} of {row['pack']}: not {sha256}"
        )
    return payload, f"{sha256}.{row['media_type'].partition('/')[2]}"

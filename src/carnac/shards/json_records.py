"""The records of a JSON file, one by one, in bounded memory: a line each (JSONL), or the elements of one array.

Flow in: an open file. Flow out: byte ranges of records and their bytes. A range found once can be read again from its
first byte: that is how a large file becomes slices that are worked on apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal

from carnac.core.errors import RecordError

Form = Literal["lines", "array"]
CHUNK_BYTES = 1 << 20
MAX_RECORD_BYTES = 64_000_000  # a conversation has some kilobytes; what is larger is no conversation
DAMAGE_BYTES = 1000  # of what cannot be read: enough to say what is wrong
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BETWEEN = re.compile(r"[ \t\r\n,]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRecord:
    """A record as it lies in its file, at bytes [start, stop). `payload` is None where it is too large to be read."""

    start: int
    stop: int
    payload: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Records that follow one another: `number` of them from the file's record `first` on, at bytes [start, stop)."""

    first: int
    number: int
    start: int
    stop: int


def form_of(stream: IO[bytes]) -> tuple[Form, int]:
    """Return how the records of a file lie in it, and the byte where they begin."""
    stream.seek(0)
    head = stream.read(CHUNK_BYTES)
    start = len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0
    blank = len(head) - start - len(head[start:].lstrip())
    if head[start + blank : start + blank + 1] == b"[":
        return "array", start + blank + 1
    return "lines", start


def slices_of(stream: IO[bytes], records: int, limit: int | None = None) -> Iterator[Slice]:
    """Yield the slices of a file, of `records` records each; those beyond `limit` are not looked at."""
    form, start = form_of(stream)
    found: list[RawRecord] = []
    num_before = 0
    for raw in raw_records(stream, form, start):
        if num_before + len(found) == limit:
            break
        found.append(RawRecord(start=raw.start, stop=raw.stop, payload=None))
        if len(found) == records:
            yield _slice(found, num_before)
            num_before += len(found)
            found = []
    if found:
        yield _slice(found, num_before)


def _slice(found: list[RawRecord], first: int) -> Slice:
    return Slice(first=first, number=len(found), start=found[0].start, stop=found[-1].stop)


def raw_records(stream: IO[bytes], form: Form, start: int) -> Iterator[RawRecord]:
    """Yield the records from byte `start` on, where one begins. What is no JSON is a record too: parsing it tells."""
    stream.seek(start)
    return _lines(stream, start) if form == "lines" else _elements(stream, start)


def parsed(raw: RawRecord) -> Any:
    """Return the value of a record. Raises RecordError `too_large`, `bad_json`."""
    if raw.payload is None:
        raise RecordError("too_large", f"{raw.stop - raw.start:,} bytes, at most {MAX_RECORD_BYTES:,}")
    try:
        return json.loads(raw.payload)
    except (ValueError, RecursionError) as error:
        raise RecordError("bad_json", f"from byte {raw.start:,} on: {error}") from None


def _lines(stream: IO[bytes], start: int) -> Iterator[RawRecord]:
    """Yield the lines that are not blank; the file of a store cannot read a line of at most so many bytes."""
    parts: list[bytes] = []
    size = 0
    while chunk := stream.read(CHUNK_BYTES):
        *ends, rest = chunk.split(b"\n")
        for piece in ends:
            yield from _line(start, [*parts, piece], size + len(piece))
            start, parts, size = start + size + len(piece) + 1, [], 0
        size += len(rest)
        parts = [*parts, rest] if size <= MAX_RECORD_BYTES else []
    yield from _line(start, parts, size)


def _line(start: int, parts: list[bytes], size: int) -> Iterator[RawRecord]:
    line = b"".join(parts) if size <= MAX_RECORD_BYTES else None
    if line is None or line.strip():
        yield RawRecord(start=start, stop=start + size, payload=line)


def _elements(stream: IO[bytes], start: int) -> Iterator[RawRecord]:
    """Yield the elements of an array whose bracket was read.

    The structure of JSON is ASCII: as Latin-1 every byte is a character, and places in the text are places in the file.
    """
    text, size, is_end = "", CHUNK_BYTES, False
    place = 0
    while True:
        found = _BETWEEN.match(text, place)
        place = found.end() if found else place
        stop = _element_end(text, place, is_end=is_end)
        if stop is None and not is_end and len(text) - place < MAX_RECORD_BYTES:
            more = stream.read(size)
            start, text, place = start + place, text[place:] + more.decode("latin-1"), 0
            is_end = not more
            size *= 2  # a long element is tried again from its beginning: so often at most as it doubles
            continue
        if text[place : place + 1] in ("]", ""):
            return
        if stop is None:  # nothing tells where the next element begins
            rest = text[place : place + DAMAGE_BYTES].encode("latin-1")
            yield RawRecord(start=start + place, stop=start + place + len(rest), payload=rest)
            return
        yield RawRecord(start=start + place, stop=start + stop, payload=text[place:stop].encode("latin-1"))
        place, size = stop, CHUNK_BYTES


def _element_end(text: str, place: int, *, is_end: bool) -> int | None:
    """Return where the element that begins at `place` ends; None where it is no whole one, or may go on."""
    if text[place : place + 1] in ("]", ""):
        return place if text[place : place + 1] == "]" else None
    try:
        _, stop = _DECODER.raw_decode(text, place)
    except (ValueError, RecursionError):
        return None
    return stop if is_end or stop < len(text) else None

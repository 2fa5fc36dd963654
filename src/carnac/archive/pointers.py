"""Pointers to single records (file, offset, length), as in Common Crawl's columnar index -> their HTTP responses.

Neighbours are fetched together. What was fetched waits in a temporary file, so that the records come in the order of
their pointers and memory holds a few spans only.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from carnac.archive.frames import DamagedFrameError
from carnac.archive.records import Damage, Response, read_frames
from carnac.archive.search import Frames
from carnac.archive.zstd_frames import ZSTD_MAGIC, Dictionary, read_dictionary
from carnac.core.errors import InputError, RecordError
from carnac.core.http_files import is_http
from carnac.core.places import Place, is_local, open_binary, read_bytes
from carnac.core.stores import store_errors
from carnac.engine.storage import size_of

WANTED = ("warc_filename", "warc_record_offset", "warc_record_length")
# What lies between two records is read over where that costs less than a request: 256 KB take 13 ms at 20 MB/s, a
# request about 50.
MAX_GAP_BYTES = 1 << 18
MAX_SPAN_BYTES = 8 << 20  # of one request, unless a single record is larger
REQUESTS_AT_ONCE = 4  # of one worker: waiting is what a request costs, and public servers slow down who asks for more
# Each was asked for with all patience (core/http_files.py): so many in a row are an outage, not bad pointers.
MAX_FAILED_IN_A_ROW = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """Where a record lies: `length` bytes at `offset` of `file`, a path below the crawl's root; None: not told."""

    file: str | None
    offset: int | None
    length: int | None

    @property
    def is_sound(self) -> bool:
        """Whether it can point to anything: a path that stays below its root, and a span of bytes."""
        if self.file is None or self.offset is None or self.length is None:
            return False
        parts = self.file.split("/")
        return ":" not in parts[0] and not {"", ".", ".."} & set(parts) and self.offset >= 0 < self.length


def count_pointers(place: Place) -> int:
    """Return how many pointers a Parquet file holds. Raises InputError where it lacks a column, or cannot be read."""
    with _opened(place) as file:
        schema = file.schema_arrow
        missing = [name for name in WANTED if name not in schema.names]
        if missing:
            has = ", ".join(schema.names[:12])
            raise InputError(f"{place}: no column {', '.join(missing)}. Wanted {', '.join(WANTED)}; it has: {has}.")
        for name in WANTED:
            kind = schema.field(name).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
            if not (is_text if name == WANTED[0] else pa.types.is_integer(kind)):
                wanted = "text" if name == WANTED[0] else "whole numbers"
                raise InputError(f"{place}: column {name} is of type {kind}; wanted {wanted}.")
        return int(file.metadata.num_rows)


def read_pointers(place: Place, start: int, stop: int) -> list[Pointer]:
    """Return the pointers of rows `start` to `stop`. Only row groups that hold one are read."""
    found: list[Pointer] = []
    with _opened(place) as file:
        begin = 0
        for group in range(file.num_row_groups):
            end = begin + file.metadata.row_group(group).num_rows
            if begin < stop and end > start:
                table = file.read_row_group(group, columns=list(WANTED), use_threads=False)
                table = table.slice(max(0, start - begin), min(stop, end) - max(start, begin))
                rows = zip(*(table[name].to_pylist() for name in WANTED), strict=True)
                found += [Pointer(file=name, offset=offset, length=length) for name, offset, length in rows]
            begin = end
    return found


@contextlib.contextmanager
def _opened(place: Place) -> Iterator[Any]:
    try:
        with open_binary(place, exact=True) as stream, store_errors(place), pq.ParquetFile(stream) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        kind = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"{place}: cannot be read ({kind}). Wanted a Parquet file with {', '.join(WANTED)}.") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of a file that is fetched at once, and the numbers of the pointers that lie in it."""

    file: str
    start: int
    stop: int
    numbers: tuple[int, ...]


def merge(pointers: Sequence[Pointer], max_record_bytes: int) -> list[Span]:
    """Return the spans that hold all sound pointers of at most `max_record_bytes`, file by file, in file order."""
    wanted = [
        (pointer.file, pointer.offset, pointer.offset + pointer.length, number)
        for number, pointer in enumerate(pointers)
        if pointer.file is not None and pointer.offset is not None and pointer.length is not None
        if pointer.is_sound and pointer.length <= max_record_bytes
    ]
    spans: list[Span] = []
    numbers: list[int] = []
    for file, start, stop, number in sorted(wanted):
        last = spans[-1] if spans else None
        is_near = last is not None and last.file == file and start - last.stop <= MAX_GAP_BYTES
        if last is not None and is_near and (stop <= last.stop or stop - last.start <= MAX_SPAN_BYTES):
            spans[-1] = replace(last, stop=max(stop, last.stop))
            numbers.append(number)
            continue
        if last is not None:
            spans[-1] = replace(last, numbers=tuple(numbers))
        spans.append(Span(file=file, start=start, stop=stop, numbers=()))
        numbers = [number]
    if spans:
        spans[-1] = replace(spans[-1], numbers=tuple(numbers))
    return spans


class PointedRecords:
    """The records of pointers, fetched to a temporary file. A context manager: the file goes when it ends."""

    def __init__(self, root: Place, pointers: Sequence[Pointer], max_payload_bytes: int) -> None:
        self._root, self._pointers, self._max_payload_bytes = root, pointers, max_payload_bytes
        self._places: dict[int, tuple[int, int] | RecordError] = {}  # in the temporary file, or why it is not there
        self._dictionary = functools.lru_cache(maxsize=16)(self._read_dictionary)

    def __enter__(self) -> PointedRecords:
        self._spool: IO[bytes] = tempfile.TemporaryFile()
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def fetch(self) -> Iterator[Span]:
        """Fetch all spans, and yield each once it is there, or known not to come.

        Raises InputError when it is the server that fails: for `MAX_FAILED_IN_A_ROW` spans, or every one.
        """
        spans = merge(self._pointers, self._max_payload_bytes)
        failed = 0
        for span, future in _ahead(self._root, spans):
            error = future.exception()
            if error is None:
                self._keep(span, future.result())
            elif isinstance(error, FileNotFoundError):
                self._refuse(span, RecordError("no_such_file", f"{self._root} has no {span.file}"))
            elif isinstance(error, OSError):
                failed += 1
                if failed >= min(len(spans), MAX_FAILED_IN_A_ROW):
                    raise self._outage(span, failed, error)
                self._refuse(span, RecordError("fetch_failed", f"{self._root / span.file}: {error.strerror or error}"))
                yield span
                continue
            else:
                raise error
            failed = 0
            yield span

    def _outage(self, span: Span, failed: int, error: OSError) -> InputError:
        before = f", as {failed - 1} before it" if failed > 1 else ""
        return InputError(
            f"{self._root / span.file}: cannot be read ({error.strerror or error}){before}. Wanted the files that "
            "pointers lead to; the same command tries again."
        )

    def _refuse(self, span: Span, why: RecordError) -> None:
        self._places.update(dict.fromkeys(span.numbers, why))

    def _keep(self, span: Span, data: bytes) -> None:
        begin = self._spool.tell()
        self._spool.write(data)
        for number in span.numbers:
            pointer = self._pointers[number]
            assert pointer.offset is not None
            assert pointer.length is not None
            start = pointer.offset - span.start
            if start + pointer.length > len(data):
                detail = f"{span.file} ends at byte {span.start + len(data):,}" if data else f"{span.file} ends before"
                wanted = f"{pointer.length:,} bytes at {pointer.offset:,}"
                self._places[number] = RecordError("pointer_beyond_file", f"wanted {wanted}; {detail}")
            else:
                self._places[number] = (begin + start, pointer.length)

    def read(self, number: int) -> Response:
        """Return the response to which pointer `number` points. Raises RecordError.

        Its reasons: those of `read_responses`, and `bad_pointer`, `no_such_file`, `fetch_failed`,
        `pointer_beyond_file`, `no_record_there`, `no_response`.
        """
        pointer = self._pointers[number]
        place = self._places.get(number)
        if isinstance(place, RecordError):
            raise place
        if place is None:
            large = pointer.is_sound and f"{pointer.length:,} bytes, at most {self._max_payload_bytes:,} are fetched"
            raise RecordError(*(("payload_too_large", large) if large else ("bad_pointer", str(pointer))))
        self._spool.seek(place[0])
        data = self._spool.read(place[1])
        frames = Frames(BytesIO(data), self._dictionary(pointer.file) if _needs_dictionary(data) else None)
        found = next(read_frames(frames, self._max_payload_bytes), None)
        if found is None or found.offset:  # of the first frame only: what follows is another record
            raise RecordError("no_response", "the record there holds no HTTP response")
        assert pointer.offset is not None
        if isinstance(found, Damage):
            reasons = {"not_a_warc": "no_record_there", "truncated_archive": "damaged_record"}
            raise RecordError(reasons.get(found.reason, found.reason), f"{found.url or ''} {found.detail}".strip())
        return replace(found, offset=pointer.offset)

    def _read_dictionary(self, file: str) -> Dictionary | None:
        try:
            with open_binary(self._root / file, exact=True) as stream, store_errors(self._root / file):
                return read_dictionary(stream)
        except DamagedFrameError as error:
            raise RecordError("damaged_record", str(error)) from None


def _needs_dictionary(data: bytes) -> bool:
    if not data.startswith(ZSTD_MAGIC):
        return False
    try:
        return bool(zstandard.get_frame_parameters(data).dict_id)
    except zstandard.ZstdError:
        return False


def _ahead(root: Place, spans: Sequence[Span]) -> Iterator[tuple[Span, Future[bytes]]]:
    """Yield the spans in order, each with what comes of it; a few are under way at once."""
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        left = iter(spans)
        under_way = deque((span, pool.submit(_read_span, root, span)) for span in islice(left, REQUESTS_AT_ONCE))
        try:
            while under_way:
                span, future = under_way.popleft()
                future.exception()  # wait, so that no more than a few are held
                yield span, future
                under_way += [(more, pool.submit(_read_span, root, more)) for more in islice(left, 1)]
        finally:
            pool.shutdown(cancel_futures=True)


def _read_span(root: Place, span: Span) -> bytes:
    """Return the bytes of a span, fewer where its file ends before."""
    place = root / span.file
    try:
        return read_bytes(place, span.start, span.stop)
    except FileNotFoundError:
        raise
    except OSError:
        # A store calls a span behind the end an error, not an empty answer.
        if is_local(place) or is_http(place) or span.start < size_of(place):
            raise
        return b""

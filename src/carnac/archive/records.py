"""A WARC file, gzip, zstd or plain -> its HTTP responses in file order, and what was damaged.

Bytes on disk are trusted for nothing: a damaged record costs itself, reading goes on at the next one.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from carnac.archive.bodies import decode_body, read_at_most
from carnac.archive.frames import DamagedFrameError
from carnac.archive.search import Frames
from carnac.core.errors import InputError, RecordError
from carnac.core.places import Place, open_binary
from carnac.core.stores import store_errors

HEADERS_OF_USE = frozenset(("x-robots-tag", "tdm-reservation", "tdm-policy", "content-usage"))
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s;\"',]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An HTTP response. `offset` is that of its frame as stored; `payload` has its encodings undone.

    `number` counts the records of one frame from 0: some tools write a whole archive as one.

    `media_type` is lower case without parameters, "" if there is none; `charset` is the one of the HTTP header.
    `headers`, in lower case, are those that speak of the use of the content; a repeated one has a line for each.
    """

    url: str
    offset: int
    fetched_at: str | None
    status: int
    media_type: str
    charset: str | None
    payload: bytes
    number: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where the record lies in its file, unlike any other: `91872`, or `91872#3` further on in one frame."""
        return _place(self.offset, self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A record, or a stretch of the file, that could not be read. `reason` is a short stable word."""

    offset: int
    url: str | None
    reason: str
    detail: str
    number: int = 0

    @property
    def place(self) -> str:
        """As that of a response."""
        return _place(self.offset, self.number)


def _place(offset: int, number: int) -> str:
    return f"{offset}#{number}" if number else str(offset)


def read_responses(path: Place, *, max_payload_bytes: int) -> Iterator[Response | Damage]:
    """Yield the HTTP responses of the WARC at `path`, of any status, and the damage met on the way.

    Reasons: `empty_archive`, `not_a_warc`, `truncated_archive`, `damaged_record`, `payload_too_large`,
    `undecodable_payload`. Other records are skipped. Raises InputError if the file itself cannot be read.
    """
    try:
        with open_binary(path) as stream, store_errors(path):
            yield from read_frames(Frames(stream), max_payload_bytes)
    except OSError as error:
        message = (
            f"{path}: cannot be read ({error.strerror or error}); wanted a WARC file. Check the path and its rights."
        )
        raise InputError(message) from error


def read_frames(frames: Frames, max_payload_bytes: int) -> Iterator[Response | Damage]:
    """Yield what `read_responses` yields, of an open file. Raises OSError."""
    if not frames.size:
        yield Damage(offset=0, url=None, reason="empty_archive", detail="the file has no bytes")
        return
    start, has_records = 0, False
    while start < frames.size:
        problem, stop = yield from _read_frame(frames, start, max_payload_bytes)
        if problem is not None:
            resumed = frames.find(start + 1)
            has_records = has_records or resumed is not None or frames.holds_record(start)
            yield _explain(problem, start, resumed, has_records=has_records)
            stop = frames.size if resumed is None else resumed
        has_records, start = True, stop


def _explain(problem: _Problem, start: int, resumed: int | None, *, has_records: bool) -> Damage:
    if not has_records:
        reason = "not_a_warc"
    elif problem.is_cut and resumed is None:
        reason = "truncated_archive"
    else:
        reason = "damaged_record"
    where = "; no sound record follows" if resumed is None else f"; read on at byte {resumed:,}"
    return Damage(offset=start, url=problem.url, reason=reason, detail=problem.detail + where)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    url: str | None
    detail: str
    is_cut: bool


def _read_frame(
    frames: Frames, start: int, max_payload_bytes: int
) -> Generator[Response | Damage, None, tuple[_Problem | None, int]]:
    """Yield what the frame at `start` holds; return what is wrong with it, and where it stops.

    A record is handed out only once the next one has begun or the frame has ended well: its checksum comes last.
    """
    held: Response | Damage | None = None
    url: str | None = None
    try:
        frame = frames.open(start)
        records = ArchiveIterator(
            frame,  # type: ignore[arg-type]  # it never seeks in a stream nor closes it
            record_types=WarcRecordType.response,
            parse_http=False,
            stream_detect=False,
        )
        for number, record in enumerate(records):
            if held is not None:
                yield held
            url = _url_of(record)
            held = _read_record(record, start, max_payload_bytes)
            held = None if held is None else replace(held, number=number)
        frame.finish()
    except Exception as error:  # the edge of a record: whatever its bytes cause is stored
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the bytes: fastwarc sets no errno
            raise
        is_cut = isinstance(error, DamagedFrameError) and error.is_cut
        return _Problem(url=url, detail=str(error) or repr(error), is_cut=is_cut), start
    if held is not None:
        yield held
    return None, frame.stop


def _read_record(record: WarcRecord, start: int, max_payload_bytes: int) -> Response | Damage | None:
    if not record.is_http:
        return None
    try:
        return _read_response(record, start, max_payload_bytes)
    except RecordError as error:
        return Damage(offset=start, url=_url_of(record), reason=error.reason, detail=error.detail)


def _url_of(record: WarcRecord) -> str | None:
    url = record.headers.get("WARC-Target-URI") or ""
    return url.strip().removeprefix("<").removesuffix(">") or None


def _read_response(record: WarcRecord, start: int, max_payload_bytes: int) -> Response:
    record.parse_http()
    headers = record.http_headers
    status = headers.status_code if headers is not None else None
    url = _url_of(record)
    if url is None or status is None:
        raise RecordError("damaged_record", "no WARC-Target-URI" if url is None else "no HTTP status line")
    num_bytes = record.content_length
    raw = read_at_most(record.reader, max_payload_bytes)
    if len(raw) < num_bytes:
        raise DamagedFrameError(f"the record holds {len(raw):,} of {num_bytes:,} bytes", is_cut=True)
    payload = decode_body(
        raw,
        transfer=headers.get("Transfer-Encoding") or "",
        encodings=(headers.get("Content-Encoding") or "").split(","),
        max_bytes=max_payload_bytes,
    )
    content_type = headers.get("Content-Type") or ""
    charset = _CHARSET.search(content_type)
    return Response(
        url=url,
        offset=start,
        fetched_at=record.headers.get("WARC-Date"),
        status=status,
        media_type=content_type.partition(";")[0].strip().lower(),
        charset=charset[1].lower() if charset else None,
        payload=payload,
        headers=_headers_of_use(headers),
    )


def _headers_of_use(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        if (key := name.lower()) in HEADERS_OF_USE:
            # Not by ", ": what stands before a colon in one line must not hold for the next.
            found[key] = f"{found[key]}\n{value}" if key in found else value
    return found

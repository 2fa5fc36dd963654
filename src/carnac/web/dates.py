"""A date as pages write it for machines -> ISO 8601, as exact as it was given."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

_MAX_CHARACTERS = 100
_FIRST_YEAR = 1000  # 0001-01-01 is what .NET writes for no date
_DATE = re.compile(
    r"(\d{4})(?:([-/.]?)(\d{1,2})(?:\2(\d{1,2}))?)?"
    r"(?:(?:T|\s+)(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,]\d+)?)?\s*(Z|UTC|GMT|[+-]\d{2}:?(?:\d{2})?)?)?",
    re.IGNORECASE | re.ASCII,
)


def parse_date(text: str) -> str | None:
    """Return an ISO 8601 or RFC 5322 date as `2024`, `2024-05`, `2024-05-31` or `2024-05-31T17:30:00+02:00`.

    None if it is neither, in no calendar, or what software writes in place of a date (the epoch, years before 1000).
    Days and months in the reader's order (03/04/2024) are not guessed at.
    """
    text = text.strip()
    if len(text) > _MAX_CHARACTERS:
        return None
    found = _DATE.fullmatch(text)
    try:
        return _from_rfc_5322(text) if found is None else _from_iso(found)
    except (ValueError, OverflowError):
        return None


def _from_iso(found: re.Match[str]) -> str | None:
    year, separator, month, day, hour, minute, second, zone = found.groups()
    if int(year) < _FIRST_YEAR:
        return None
    if day is None:
        is_year_and_month = month is not None and bool(separator) and hour is None
        if month is None:
            return year if hour is None else None
        return datetime(int(year), int(month), 1, tzinfo=UTC).isoformat()[:7] if is_year_and_month else None
    if not separator and len(month + day) < 4:
        return None
    date = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
    if hour is None:
        return None if date == datetime(1970, 1, 1) else date.isoformat()[:10]
    return _known(date if zone is None else date.replace(tzinfo=_zone(zone)))


def _zone(zone: str) -> timezone:
    if zone[0] not in "+-":
        return UTC
    minutes = 60 * int(zone[1:3]) + int(zone[3:].removeprefix(":") or 0)
    return timezone(timedelta(minutes=-minutes if zone[0] == "-" else minutes))


def _from_rfc_5322(text: str) -> str | None:
    date = parsedate_to_datetime(text)
    return _known(date) if date.year >= _FIRST_YEAR else None


def _known(date: datetime) -> str | None:
    """Return a date with its time, unless it is the first second of 1970, wherever that was."""
    is_epoch = (date.replace(tzinfo=UTC) if date.tzinfo is None else date).timestamp() == 0
    return None if is_epoch else date.isoformat(timespec="seconds")

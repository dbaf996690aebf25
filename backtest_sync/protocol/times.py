"""Times on the wire: RFC 3339 in UTC (protocol/http.md)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol.fields import shown
from backtest_sync.protocol.kinds import TEXT
from backtest_sync.protocol.shape import Kind, Mismatch

_RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?"
    r"(?:[Zz]|([+\-−])(\d\d):(\d\d))",
    re.ASCII,
)


def parse_time(text: str) -> datetime:
    """The moment of an RFC 3339 text, in UTC; ``ValueError`` where it is none.

    A zone is required. Digits beyond the microsecond are cut; a leap second is the next second.
    """
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{shown(text)} is no RFC 3339 time with a zone")
    year, month, day, hour, minute, second = map(int, match.group(1, 2, 3, 4, 5, 6))
    fraction, sign, hours, minutes = match.group(7, 8, 9, 10)
    if second > 60:
        raise ValueError(f"{shown(text)} has no such second")
    moment = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=timezone.utc)
    moment += timedelta(seconds=second // 60, microseconds=int((fraction or "0")[:6].ljust(6, "0")))
    if sign is None:
        return moment
    if int(hours) > 23 or int(minutes) > 59:
        raise ValueError(f"{shown(text)} has no such offset")
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return moment - offset if sign == "+" else moment + offset


def format_time(moment: datetime) -> str:
    """The text of a moment: ``2026-01-01T09:18:41.250Z``, with no more digits than it needs."""
    moment = moment.astimezone(timezone.utc)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    micros = moment.microsecond
    if micros == 0:
        return f"{text}Z"
    return f"{text}.{micros // 1000:03}Z" if micros % 1000 == 0 else f"{text}.{micros:06}Z"


def to_time(value: object, field: str) -> datetime:
    """A moment in UTC, from an aware ``datetime`` or an RFC 3339 text; a naive one is UTC."""
    if not isinstance(value, (datetime, str)):
        raise InvalidParamsError(f"{field}: expected a datetime or a text, got {shown(value)}")
    try:
        if isinstance(value, str):
            return parse_time(value)
        aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return aware.astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise InvalidParamsError(f"{field}: {error}") from error


def _read(json: Any) -> datetime:
    text: str = TEXT.read(json)
    try:
        return parse_time(text)
    except (ValueError, OverflowError) as error:
        raise Mismatch(str(error)) from error


#: A moment.
TIME = Kind(to_time, _read, format_time)

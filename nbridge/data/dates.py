"""Recognises dates and times written as text, or as numbers such as 20240131."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
STARTS = frozenset((*MONTHS, "mon", "tue", "wed", "thu", "fri", "sat", "sun"))
"""The first letters of dates that begin with a word."""
YEARS = range(1000, 3000)
"""Accepted four-digit years."""
COMPACT_YEARS = range(1900, 2101)
"""Accepted years of dates without separators, which would otherwise be plain numbers."""
PLACEHOLDERS = 3
"""Maximum number of distinct placeholders, such as "unknown", in a column of dates."""
SAMPLE = 16
"""Number of texts tried first, so that columns without dates cost almost nothing."""

_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?\s?(?:[AaPp][Mm])?"
_ZONE = r"(?:[Zz]|UTC|GMT|CES?T|[ECMP][SD]T|[+-]\d{2}(?::?\d{2})?|[A-Z][a-z]+/[A-Z][A-Za-z_]+|\[[A-Za-z/_]+\])"
_TIME = rf"(?:[Tt, ]\s?{_CLOCK}(?:\s?{_ZONE}){{0,2}})?"
_WEEKDAY = r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? )?"
_MONTH = rf"(?P<word>{'|'.join(MONTHS)})[a-z]*"
_DAYS = tuple(
    re.compile(_WEEKDAY + pattern + _TIME, re.IGNORECASE)
    for pattern in (
        r"(?P<y>\d{4})(?P<s>[-/.])(?P<m>\d{1,2})(?P=s)(?P<d>\d{1,2})",
        r"(?P<a>\d{1,2})(?P<s>[-/.])(?P<b>\d{1,2})(?P=s)(?P<y>\d{4})",
        r"(?P<a>\d{1,2})/(?P<b>\d{1,2})/\d{2}",
        r"(?P<a>\d{2})\.(?P<b>\d{2})\.\d{2}",
        rf"(?P<d>\d{{1,2}})\.?[-/ ]{_MONTH}[-/,. ]+(?:(?P<y>\d{{4}})|\d{{2}})",
        rf"{_MONTH}[-/. ]+(?P<d>\d{{1,2}}),?[-/ ](?P<y>\d{{4}})",
        rf"{_MONTH} +(?P<d>\d{{1,2}}) {_CLOCK}(?: {_ZONE})? (?P<y>\d{{4}})",
    )
)
_MONTHS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<y>\d{4})[-/](?P<m>\d{2})",
        rf"{_MONTH}[-/,. ]+(?P<y>\d{{4}})",
        r"(?P<y>\d{4})[- ]?Q[1-4]",
        r"Q[1-4][-/ ](?P<y>\d{4})",
        r"(?P<y>\d{4})-?W[0-5]\d(?:-[1-7])?",
    )
)
_COMPACT = re.compile(r"(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})(?:[T ]?\d{4}(?:\d{2})?Z?)?")
_DURATION = re.compile(
    r"[-+]?P(?=.)(?:\d+[YMWD])*(?:T(?:\d+(?:[.,]\d+)?[HMS])+)?"
    r"|[-+]?\d+ days?(?:,? [-+]?\d{1,2}:\d{2}:\d{2}(?:\.\d+)?)?"
    r"|[-+]?\d+:[0-5]\d(?::[0-5]\d(?:[.,]\d+)?)?"
    r"|\d+ ?(?:d|h|hr|m|min|s)(?: ?\d+ ?(?:h|hr|m|min|s))+"
)
_OF_DAY = re.compile(r"(?P<h>\d{1,2}):[0-5]\d(?::[0-5]\d(?:[.,]\d+)?)?\s?(?:[AaPp][Mm])?")


def is_date(text: str) -> bool:
    """Whether a text is a date, with or without a time of day, or a month, quarter or week of a year.

    Day and month may come in either order. Eight digits are a date only if they parse as year, month and day from 1900 to 2100.

    Example:
        >>> [is_date(text) for text in ("2024-01-31", "31.01.2024 08:15", "1/31/24", "5 Mar 2024", "2024-Q1", "20240131")]
        [True, True, True, True, True, True]
        >>> [is_date(text) for text in ("Mon, 1 Jan 2024 08:00:00 GMT", "Mon Jan  1 08:00:00 2024", "2024-01-31 08:00 Europe/Berlin")]
        [True, True, True]
        >>> [is_date(text) for text in ("2024-13-31", "1.2.10", "2024", "12-345", "31/31/2024", "20241331")]
        [False, False, False, False, False, False]
    """
    if not text[:1].isdigit() and text[:3].lower() not in STARTS and text[:1] not in "Qq":
        return False
    if match := _COMPACT.fullmatch(text):
        return int(match["y"]) in COMPACT_YEARS and _is_day(match["y"], match["m"], match["d"])
    for pattern in _DAYS:
        if match := pattern.fullmatch(text):
            return _holds(match.groupdict())
    return any(_holds(match.groupdict()) for pattern in _MONTHS if (match := pattern.fullmatch(text)))


def is_time_of_day(text: str) -> bool:
    """Whether a text is a time of day.

    Example:
        >>> is_time_of_day("08:15"), is_time_of_day("8:15:30 pm"), is_time_of_day("25:00"), is_time_of_day("1:2")
        (True, True, False, False)
    """
    match = _OF_DAY.fullmatch(text)
    return match is not None and int(match["h"]) < 24


def is_duration(text: str) -> bool:
    """Whether a text is a duration, in ISO 8601, as a clock, or with its units.

    Example:
        >>> [is_duration(text) for text in ("PT8H30M", "P3D", "2 days 01:00:00", "36:15", "5h 30m", "1 day")]
        [True, True, True, True, True, True]
        >>> [is_duration(text) for text in ("P", "PT", "1:2", "36:75", "5h", "P53")]
        [False, False, False, False, False, False]
    """
    return _DURATION.fullmatch(text) is not None


def holds_dates(texts: Sequence[str]) -> bool:
    """Whether the distinct texts of a column are dates, up to a few placeholders such as "unknown".

    Example:
        >>> holds_dates(["2024-01-31", "2024-02-29", "unknown"]), holds_dates(["2024-01-31", "II", "III"]), holds_dates([])
        (True, False, False)
    """
    step = max(1, len(texts) // SAMPLE)
    tried = texts[::step][:SAMPLE]
    if 2 * sum(map(is_date, tried)) < len(tried):
        return False
    dates = sum(map(is_date, texts))
    return dates > len(texts) - dates and len(texts) - dates <= PLACEHOLDERS


def _holds(found: dict[str, str | None]) -> bool:
    year = found.get("y") or "2000"
    if int(year) not in YEARS:
        return False
    if (one := found.get("a")) and (other := found.get("b")):
        return _is_day(year, one, other) or _is_day(year, other, one)
    month = str(MONTHS.index(word.lower()) + 1) if (word := found.get("word")) else found.get("m") or "1"
    return _is_day(year, month, found.get("d") or "1")


def _is_day(year: str, month: str, day: str) -> bool:
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return False
    return True

"""Durations, sizes, counts and times as people read them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 m 04 s`, `2 h 05 m`, `3 d 04 h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02} h"


def count(number: int) -> str:
    """`950`, `12.3k`, `4.56M`."""
    if number < 1000:
        return str(number)
    if number < 999_950:
        return f"{number / 1000:.1f}k"
    return f"{number / 1_000_000:.2f}M"


def size(number: int) -> str:
    """Bytes: `950 B`, `12.3 KiB`, `4.6 MiB`."""
    value = float(number)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def plural(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def moment(text: str) -> datetime | None:
    """The instant of an ISO 8601 text; None when it is not one."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def clock(text: str) -> str:
    """The instant's time of day here: `14:03:07`."""
    at = moment(text)
    return at.astimezone().strftime("%H:%M:%S") if at else "--:--:--"


def ago(text: str, now: datetime) -> str:
    """How long ago the instant was: `3 m ago`; `just now` below five seconds."""
    at = moment(text)
    if at is None:
        return "?"
    seconds = (now - at).total_seconds()
    for limit, unit, name in ((5, 0, ""), (60, 1, "s"), (3600, 60, "m"), (86_400, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds // unit)} {name} ago" if unit else "just now"
    return f"{int(seconds // 86_400)} d ago"


def elapsed_s(start: str | None, end: str | None) -> float:
    """Seconds from `start` to `end` (None: until now); 0 when it has not started."""
    began = moment(start) if start else None
    if began is None:
        return 0.0
    ended = (moment(end) if end else None) or datetime.now(UTC)
    return max((ended - began).total_seconds(), 0.0)

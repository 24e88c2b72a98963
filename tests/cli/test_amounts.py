"""Durations, sizes and counts as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cody.cli.amounts import ago, count, duration, elapsed_s, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"), (0.44, "0.4 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 m 00 s"), (184, "3 m 04 s"),
        (7500, "2 h 05 m"), (273_600, "3 d 04 h"),
    ],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(999, "999"), (1000, "1.0k"), (999_949, "999.9k"), (999_950, "1.00M")])
def test_count(number: int, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(1023, "1023 B"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB")]
)
def test_size(number: int, text: str) -> None:
    assert size(number) == text


def test_ago() -> None:
    now = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
    assert [ago(f"2026-01-31T{text}Z", now) for text in ("11:59:58", "11:59:10", "11:00:01", "02:00:00")] == [
        "just now",
        "50 s ago",
        "59 m ago",
        "10 h ago",
    ]
    assert ago("2026-01-28T12:00:00.000Z", now) == "3 d ago"
    assert ago("nonsense", now) == "?"


def test_elapsed() -> None:
    assert elapsed_s("2026-01-31T12:00:00.000Z", "2026-01-31T12:01:30.500Z") == 90.5
    assert elapsed_s(None, None) == 0.0

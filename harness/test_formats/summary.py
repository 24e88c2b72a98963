"""What every reader of a test runner's format gives, and what they share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

N = r"\d{1,9}"
"""A count: no run has more digits, and sums stay small whatever is printed."""


@dataclass(frozen=True, slots=True)
class TestSummary:
    """One run of tests, as its runner summed it up. `duration_ms` is None where the runner told none."""

    framework: str
    passed: int
    failed: int
    skipped: int
    duration_ms: int | None


class Reader(Protocol):
    """Reads one runner's format."""

    def read(self, line: str) -> TestSummary | None:
        """The summary that this line completes, be it by ending its run as a line of something else."""
        ...

    def end(self) -> TestSummary | None:
        """The summary that the end of the output completes; the reader is as new then."""
        ...

    @property
    def is_open(self) -> bool:
        """A summary has begun: the next lines matter, whatever they are."""
        ...


def milliseconds(number: str, unit: str = "s") -> int:
    return round(float(number) * (1 if unit == "ms" else 1000))


def counted(text: str, part: re.Pattern[str]) -> dict[str, int]:
    """The number of each word; `part` matches a number and its word."""
    return {word: int(number) for number, word in part.findall(text)}


def add(one: TestSummary, other: TestSummary) -> TestSummary:
    """Both runs as one; their time is known only if both are."""
    known = one.duration_ms is not None and other.duration_ms is not None
    return TestSummary(
        one.framework if other.framework in one.framework.split("+") else f"{one.framework}+{other.framework}",
        one.passed + other.passed,
        one.failed + other.failed,
        one.skipped + other.skipped,
        (one.duration_ms or 0) + (other.duration_ms or 0) if known else None,
    )

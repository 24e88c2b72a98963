"""pytest and unittest. Source of the formats: pytest 9.2.0, Python 3.11 to 3.13."""

from __future__ import annotations

import re

from harness.test_formats.summary import N, TestSummary, counted, milliseconds


class Pytest:
    """`=== 1 failed, 2 passed in 0.12s ===`, without the signs with -q. Nothing to remember."""

    _LINE = re.compile(
        rf"(?P<border>=+ )?(?P<body>no tests ran|{N} [a-z][a-z ]*(?:, {N} [a-z][a-z ]*)*)"
        r" in (?P<seconds>\d{1,9}\.\d+)s(?: \((?:\d+ days?, )?\d+:\d\d:\d\d\))?(?(border) =+)\Z"
    )
    _PART = re.compile(rf"({N}) ([a-z ]+)")
    _OWN = re.compile(r"(?:passed|failed|errors?|skipped|xfailed|xpassed|deselected|warnings?|rerun|subtests [a-z]+)\Z")

    is_open = False

    def read(self, line: str) -> TestSummary | None:
        found = self._LINE.match(line)
        if found is None:
            return None
        counts = counted(found["body"], self._PART)
        # Plugins add words of their own; without the border that is too little to tell a summary from a sentence.
        own = [self._OWN.match(word) is not None for word in counts]
        if counts and not (any(own) if found["border"] else all(own)):
            return None
        return TestSummary(
            "pytest",
            passed=counts.get("passed", 0) + counts.get("xpassed", 0),
            failed=counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0),
            skipped=counts.get("skipped", 0) + counts.get("xfailed", 0),
            duration_ms=milliseconds(found["seconds"]),
        )

    def end(self) -> TestSummary | None:
        return None


class Unittest:
    """`Ran 6 tests in 0.001s`, an empty line, `FAILED (failures=1, skipped=1)`.

    `passed` is what remains of the tests that ran. Python 3.12.1 leaves the skipped out of those: there it is too low.
    """

    _RAN = re.compile(rf"Ran ({N}) tests? in (\d{{1,9}}\.\d+)s\Z")
    _VERDICT = re.compile(
        r"(?:OK|FAILED|NO TESTS RAN)(?: \(([a-z]+(?: [a-z]+)?=\d+(?:, [a-z]+(?: [a-z]+)?=\d+)*)\))?\Z"
    )
    _PART = re.compile(rf"([a-z ]+)=({N})")

    def __init__(self) -> None:
        self._ran: tuple[int, int] | None = None

    @property
    def is_open(self) -> bool:
        return self._ran is not None

    def read(self, line: str) -> TestSummary | None:
        if ran := self._RAN.match(line):
            self._ran = int(ran[1]), milliseconds(ran[2])
            return None
        if self._ran is None or not line:
            return None
        (total, duration_ms), self._ran = self._ran, None
        verdict = self._VERDICT.match(line)
        if verdict is None:
            return None
        counts = {word.strip(): int(number) for word, number in self._PART.findall(verdict[1] or "")}
        failed = counts.get("failures", 0) + counts.get("errors", 0) + counts.get("unexpected successes", 0)
        skipped = counts.get("skipped", 0) + counts.get("expected failures", 0)
        return TestSummary("unittest", max(total - failed - skipped, 0), failed, skipped, duration_ms)

    def end(self) -> TestSummary | None:
        self._ran = None
        return None

"""jest, vitest, bun, node. Source of the formats: jest 30.5, vitest 4.1, bun 1.4, Node 20."""

from __future__ import annotations

import re

from harness.test_formats.summary import N, TestSummary, counted, milliseconds


class JavaScript:
    """The summary that jest and vitest share but for the words: counts of files, counts of tests, a time.

    Jest: `Test Suites: ...`, `Tests:       1 failed, 3 passed, 4 total`, `Snapshots: ...`, `Time:        0.5 s`.
    Vitest: ` Test Files  ...`, `      Tests  1 failed | 3 passed (4)`, `     Errors  1 error`, `   Duration  365ms`.
    A file that does not load has no tests: so there are at least as many failures as files that failed.
    """

    _PART = re.compile(rf"({N}) ([a-z]+)")

    def __init__(self, framework: str, counts: str, between: str, time: str) -> None:
        self._framework = framework
        self._counts, self._between, self._time = re.compile(counts), re.compile(between), re.compile(time)
        self._tests: dict[str, int] | None = None
        self._failed_at_least = 0
        self.is_open = False

    def read(self, line: str) -> TestSummary | None:
        if found := self._counts.match(line):
            return self._count(found[1], counted(line, self._PART))
        if not self.is_open or self._between.match(line):
            return None
        time = self._time.match(line)
        return self._complete(milliseconds(time[1], time[2]) if time else None)

    def end(self) -> TestSummary | None:
        return self._complete(None)

    def _count(self, label: str, counts: dict[str, int]) -> TestSummary | None:
        begins_another = label.startswith("Test ") and self._tests is not None
        done = self._complete(None) if begins_another else None
        self.is_open = True
        if label == "Tests":
            self._tests = counts
        bad = counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0)
        self._failed_at_least = max(self._failed_at_least, bad)
        return done

    def _complete(self, duration_ms: int | None) -> TestSummary | None:
        tests, failed = self._tests, self._failed_at_least
        self._tests, self._failed_at_least, self.is_open = None, 0, False
        if tests is None:
            return None
        skipped = tests.get("skipped", 0) + tests.get("todo", 0) + tests.get("expected", 0)
        return TestSummary(self._framework, tests.get("passed", 0), failed, skipped, duration_ms)


def jest() -> JavaScript:
    counts = rf"(?:{N} [a-z]+, )*{N} total\Z"
    return JavaScript(
        "jest",
        counts=rf"(Test Suites|Tests): +{counts}",
        between=rf"Snapshots: +{counts}",
        time=r"Time: +(\d{1,9}(?:\.\d+)?) ?(ms|s)(?:, estimated .*)?\Z",
    )


def vitest() -> JavaScript:
    return JavaScript(
        "vitest",
        counts=rf" +(Test Files|Tests|Errors)  (?:no tests|{N} [a-z ]+(?: \| {N} [a-z ]+)*(?: \(\d+\))?)\Z",
        between=r" +(?:Snapshots|Type Errors|Start at)  ",
        time=r" +Duration  (\d{1,9}(?:\.\d+)?)(ms|s)(?: \(.*\))?\Z",
    )


class Bun:
    """` 3 pass`, ` 1 fail`, ..., `Ran 6 tests across 2 files. [32.00ms]`. Its failures include its errors."""

    _COUNT = re.compile(rf" ({N}) (pass|skip|todo|fail|errors?)\Z")
    _BETWEEN = re.compile(r" \d+ (?:filtered out|expect\(\) calls|snapshots?, .*)\Z")
    _RAN = re.compile(r"Ran \d+ tests? across \d+ files?\. \[(\d{1,9}(?:\.\d+)?)(ms|s)\]\Z")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    @property
    def is_open(self) -> bool:
        return bool(self._counts)

    def read(self, line: str) -> TestSummary | None:
        if count := self._COUNT.match(line):
            self._counts[count[2]] = int(count[1])
            return None
        if not self._counts or self._BETWEEN.match(line):
            return None
        counts, self._counts = self._counts, {}
        ran = self._RAN.match(line)
        if ran is None:
            return None
        failed = max(counts.get("fail", 0), counts.get("error", 0), counts.get("errors", 0))
        skipped = counts.get("skip", 0) + counts.get("todo", 0)
        return TestSummary("bun", counts.get("pass", 0), failed, skipped, milliseconds(ran[1], ran[2]))

    def end(self) -> TestSummary | None:
        self._counts = {}
        return None


class Node:
    """`# tests 6` ... `# duration_ms 128.9` (reporter tap), the same with `ℹ` (reporter spec)."""

    _LINE = re.compile(
        rf"([#ℹ]) (?:(tests|suites|pass|fail|cancelled|skipped|todo) ({N})|duration_ms (\d{{1,12}}(?:\.\d+)?))\Z"
    )

    def __init__(self) -> None:
        self._sign = ""
        self._counts: dict[str, int] = {}

    @property
    def is_open(self) -> bool:
        return bool(self._counts)

    def read(self, line: str) -> TestSummary | None:
        found = self._LINE.match(line)
        if found is None or (found[2] != "tests" and found[1] != self._sign):
            self._counts = {}
            return None
        if found[2] == "tests":
            self._sign, self._counts = found[1], {}
        if found[2]:
            if found[2] == "tests" or self._counts:
                self._counts[found[2]] = int(found[3])
            return None
        counts, self._counts = self._counts, {}
        if not counts.keys() >= {"tests", "pass", "fail"}:
            return None
        failed = counts["fail"] + counts.get("cancelled", 0)
        skipped = counts.get("skipped", 0) + counts.get("todo", 0)
        return TestSummary("node", counts["pass"], failed, skipped, milliseconds(found[4], "ms"))

    def end(self) -> TestSummary | None:
        self._counts = {}
        return None

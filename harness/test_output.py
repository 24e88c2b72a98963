"""Recognises test runs in what an agent's commands print, by the summary that the test runner writes at the end. Pure.

Only the format counts (harness.test_formats): a program that prints `===== 3 passed in 0.01s =====` has, for Cody, run
three tests. What `cat` shows of a file is a run of another time, and is not counted where the command is known.
"""

from __future__ import annotations

import re
from collections import deque
from functools import reduce

from harness.test_command import command_starts_tests, only_shows_files
from harness.test_formats.compiled import Cargo, Go
from harness.test_formats.javascript import Bun, Node, jest, vitest
from harness.test_formats.python import Pytest, Unittest
from harness.test_formats.summary import Reader, TestSummary, add

__all__ = ["SummaryScanner", "TestSummary", "command_starts_tests", "summarize"]

MAX_LINE = 1000
"""Longest line that is looked at: summaries are a tenth of it."""
_TOO_LONG = "…"
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9])")
_MAY_BEGIN = re.compile(
    r"=+ (?:\d|no tests)|no tests ran|\d+ (?:passed|failed|error|skipped|xfailed|xpassed|deselected|warning|rerun)"
    r"|Ran \d|Test(?: Suite)?s: | +(?:Test Files|Tests|Errors)  | \d+ (?:pass|skip|todo|fail|error)|[#ℹ] tests "
    r"|test result: |ok  \t|FAIL\t| *--- (?:PASS|FAIL|SKIP): |=== RUN"
)
"""Every line that begins a summary, or is one, matches; few others do. Most lines of output cost no more than this."""


def summarize(text: str, *, command: str | None) -> TestSummary | None:
    """The test runs in a command's whole output, as one; None where there is none.

    Several runs are added up, their frameworks joined by `+`. `command` is the shell command that printed it, if known.
    """
    if command is not None and only_shows_files(command):
        return None
    scanner = SummaryScanner()
    found = [summary for line in text.split("\n") if (summary := scanner.feed(line)) is not None]
    found += scanner.close()
    return reduce(add, found) if found else None


class SummaryScanner:
    """The same, line by line as they come: each run is told once, at the line that completes its summary.

    For cargo and go that is the first line after the run, or `close`. Holds a few numbers, whatever comes.
    """

    def __init__(self) -> None:
        self._readers: tuple[Reader, ...] = Pytest(), Unittest(), jest(), vitest(), Bun(), Node(), Cargo(), Go()
        self._open = False
        self._ready: deque[TestSummary] = deque()

    def feed(self, line: str) -> TestSummary | None:
        """Take a line without its newline. If it completes two runs, the second is told at the next line or `close`."""
        text = _plain(line)
        if self._open or _MAY_BEGIN.match(text):
            for reader in self._readers:
                if (summary := reader.read(text)) is not None:
                    self._ready.append(summary)
            self._open = any(reader.is_open for reader in self._readers)
        return self._ready.popleft() if self._ready else None

    def close(self) -> list[TestSummary]:
        """The runs that the end of the output completes; the scanner is as new then."""
        ended = [summary for reader in self._readers if (summary := reader.end()) is not None]
        rest = [*self._ready, *ended]
        self._ready.clear()
        self._open = False
        return rest


def _plain(line: str) -> str:
    """The line as it stands on a terminal: without colours, and without what a carriage return overwrote."""
    if len(line) > MAX_LINE:
        return _TOO_LONG
    if "\x1b" in line:
        line = _ESCAPES.sub("", line)
    if "\r" in line:
        line = line.rstrip("\r").rpartition("\r")[2]
    return line

"""cargo and go: a result for each program or package, and no line at the end. Source: cargo 1.95, Go 1.22's sources."""

from __future__ import annotations

import re

from harness.test_formats.summary import N, TestSummary, add, milliseconds


class Cargo:
    """`test result: ok. 2 passed; 0 failed; 1 ignored; ...`, once for each test program: the run is their sum.

    Nothing marks the end of a run: it is the first line after a result that cargo does not print between two programs.
    """

    _RESULT = re.compile(
        rf"test result: (?:ok|FAILED)\. ({N}) passed; ({N}) failed; ({N}) ignored; \d+ measured; \d+ filtered out"
        r"(?:; finished in (\d{1,9}\.\d+)s)?\Z"
    )
    _NEXT_PROGRAM = re.compile(r" +(?:Running|Doc-tests) |running \d+ tests?\Z")
    _BETWEEN = re.compile(
        r"\Z|error: |Caused by:\Z|  process didn't exit|note: |all doctests ran in |    `.+`\Z|warning: "
    )

    def __init__(self) -> None:
        self._sum: TestSummary | None = None
        self._in_program = False

    @property
    def is_open(self) -> bool:
        return self._sum is not None

    def read(self, line: str) -> TestSummary | None:
        if result := self._RESULT.match(line):
            took = None if result[4] is None else milliseconds(result[4])
            one = TestSummary("cargo", int(result[1]), int(result[2]), int(result[3]), took)
            self._sum = one if self._sum is None else add(self._sum, one)
            self._in_program = False
        elif self._sum is not None and self._NEXT_PROGRAM.match(line):
            self._in_program = True
        elif self._sum is not None and not self._in_program and not self._BETWEEN.match(line):
            return self.end()
        return None

    def end(self) -> TestSummary | None:
        done, self._sum, self._in_program = self._sum, None, False
        return done


class Go:
    """`ok  \tpackage\t0.003s` and `FAIL\tpackage\t0.003s`, with -v also `--- PASS: TestName (0.00s)` for each test.

    Of a package that told its tests (-v), the tests are counted, subtests and their parents each for one, as in
    `go test -json`. A package that did not counts as one, passed or failed: without -v go tells no number of tests that
    passed. Packages run side by side, so only the time of a single one is the time of the run. As with cargo, a run
    ends with the first line that is not go's.
    """

    _TEST = re.compile(r" *--- (PASS|FAIL|SKIP): \S+ \(\d+\.\d+s\)\Z")
    _NOISE = re.compile(r"=== (?:RUN|PAUSE|CONT|NAME)\b")
    _OK = re.compile(r"ok  \t\S+\t(?:(\d{1,9}\.\d+)s|\(cached\))(\t| |\Z)(.*)")
    _FAILED = re.compile(r"FAIL\t\S+(?:\t(\d{1,9}\.\d+)s| \[[a-z ]+\])\Z")
    _BETWEEN = re.compile(
        r"\Z|(?:PASS|FAIL)\Z|coverage: |exit status \d+\Z|panic: |# |\?   \t\S+\t\[|\t\S+\t+coverage: "
    )

    def __init__(self) -> None:
        self._sum: TestSummary | None = None
        self._in_package = False
        self._tests = {"PASS": 0, "FAIL": 0, "SKIP": 0}
        self._verbose = False

    @property
    def is_open(self) -> bool:
        return self._sum is not None

    def read(self, line: str) -> TestSummary | None:
        if test := self._TEST.match(line):
            self._tests[test[1]] += 1
            self._in_package = True
            self._verbose |= test[1] != "FAIL"
        elif self._NOISE.match(line):
            self._in_package = self._verbose = True
        elif ok := self._OK.match(line):
            self._package(ok[1], failed=False, empty="[no tests to run]" in ok[3])
        elif bad := self._FAILED.match(line):
            self._package(bad[1], failed=True, empty=False)
        elif self._sum is not None and not self._in_package and not self._BETWEEN.match(line):
            return self.end()
        return None

    def end(self) -> TestSummary | None:
        done, self._sum = self._sum, None
        return done

    def _package(self, seconds: str | None, *, failed: bool, empty: bool) -> None:
        tests, self._tests = self._tests, {"PASS": 0, "FAIL": 0, "SKIP": 0}
        if not self._verbose:
            tests = {"PASS": int(not failed and not empty), "FAIL": int(failed), "SKIP": 0}
        elif failed and not tests["FAIL"]:
            tests["FAIL"] = 1  # it did not build, or ended outside its tests
        self._verbose = self._in_package = False
        took = milliseconds(seconds) if seconds is not None and self._sum is None else None
        one = TestSummary("go", tests["PASS"], tests["FAIL"], tests["SKIP"], took)
        self._sum = one if self._sum is None else add(self._sum, one)

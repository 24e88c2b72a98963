"""Test runs, recognised in what commands print, and commands that start them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.test_command import only_shows_files
from harness.test_output import SummaryScanner, TestSummary, command_starts_tests, summarize

OUTPUTS = Path(__file__).parent.parent / "fixtures" / "test_output"

EXPECTED: dict[str, TestSummary | None] = {
    "pytest_mixed": TestSummary("pytest", 3, 2, 2, 30),
    "pytest_quiet_mixed": TestSummary("pytest", 3, 2, 2, 20),
    "pytest_colour_quiet_mixed": TestSummary("pytest", 3, 2, 2, 40),
    "pytest_colour_ok": TestSummary("pytest", 12, 0, 0, 20),
    "pytest_quiet_ok": TestSummary("pytest", 12, 0, 0, 10),
    "pytest_collection_error": TestSummary("pytest", 0, 1, 0, 90),
    "pytest_deselected": TestSummary("pytest", 0, 0, 0, 10),
    "pytest_no_tests": TestSummary("pytest", 0, 0, 0, 10),
    "pytest_quiet_no_tests": TestSummary("pytest", 0, 0, 0, 0),
    "pytest_collect_only": None,
    "pytest_subtests": TestSummary("pytest", 0, 2, 0, 20),
    "pytest_xdist": TestSummary("pytest", 15, 2, 2, 530),
    "unittest_mixed": TestSummary("unittest", 1, 3, 2, 1),
    "unittest_ok": TestSummary("unittest", 1, 0, 1, 0),
    "unittest_import_error": TestSummary("unittest", 0, 1, 0, 0),
    "unittest_no_tests": TestSummary("unittest", 0, 0, 0, 0),
    "unittest_no_tests_3_12": TestSummary("unittest", 0, 0, 0, 0),
    "jest_mixed": TestSummary("jest", 3, 1, 2, 399),
    "jest_colour_mixed": TestSummary("jest", 2, 1, 2, 390),
    "jest_ok": TestSummary("jest", 1, 0, 0, 221),
    "jest_broken_suite": TestSummary("jest", 1, 1, 0, 237),
    "vitest_mixed": TestSummary("vitest", 3, 1, 2, 365),
    "vitest_colour_mixed": TestSummary("vitest", 2, 1, 2, 195),
    "vitest_ok": TestSummary("vitest", 1, 0, 0, 196),
    "vitest_broken_file": TestSummary("vitest", 1, 1, 0, 434),
    "bun_mixed": TestSummary("bun", 3, 1, 2, 32),
    "bun_colour_mixed": TestSummary("bun", 2, 1, 2, 3),
    "bun_ok": TestSummary("bun", 1, 0, 0, 4),
    "bun_broken_file": TestSummary("bun", 1, 1, 0, 4),
    "bun_no_tests": None,
    "node_tap_mixed": TestSummary("node", 3, 1, 2, 129),
    "node_spec_mixed": TestSummary("node", 3, 1, 2, 115),
    "node_spec_ok": TestSummary("node", 1, 0, 0, 90),
    "node_tap_cancelled": TestSummary("node", 1, 2, 0, 1087),
    "cargo_ok": TestSummary("cargo", 4, 0, 1, 0),
    "cargo_failed": TestSummary("cargo", 3, 1, 1, 0),
    "cargo_colour_failed": TestSummary("cargo", 3, 1, 1, 0),
    "cargo_no_fail_fast": TestSummary("cargo", 4, 1, 1, 0),
    "cargo_stdout_only": TestSummary("cargo", 4, 1, 1, 0),
    "go_plain_ok": TestSummary("go", 1, 0, 0, 3),
    "go_plain_failed": TestSummary("go", 2, 1, 0, None),
    "go_verbose_failed": TestSummary("go", 3, 2, 1, None),
    "go_build_failed": TestSummary("go", 1, 1, 0, None),
}


def output(name: str) -> str:
    return (OUTPUTS / f"{name}.txt").read_text(encoding="utf-8")


def scan(text: str) -> list[TestSummary]:
    scanner = SummaryScanner()
    return [found for line in text.split("\n") if (found := scanner.feed(line))] + scanner.close()


def test_every_recorded_output_has_an_expectation() -> None:
    assert {path.stem for path in OUTPUTS.glob("*.txt")} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_runners_output_is_summed_up(name: str) -> None:
    assert summarize(output(name), command=None) == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_run_is_told_once_line_by_line_whatever_is_around_it(name: str) -> None:
    expected = EXPECTED[name]
    around = f"$ run the tests\n\n{output(name)}\ndone.\n$ run them again\n{output(name)}done.\n"
    assert scan(around.replace("\n", "\r\n")) == [expected, expected] * (expected is not None)


@pytest.mark.parametrize(
    ("name", "completing"),
    [
        ("pytest_mixed", "= 1 failed"),
        ("unittest_mixed", "FAILED (failures"),
        ("jest_mixed", "Time:"),
        ("vitest_mixed", "   Duration"),
        ("bun_mixed", "Ran 6 tests"),
        ("node_tap_mixed", "# duration_ms"),
    ],
)
def test_a_run_is_told_at_the_line_that_completes_its_summary(name: str, completing: str) -> None:
    scanner = SummaryScanner()
    told = [line for line in output(name).split("\n") if scanner.feed(line)]
    assert len(told) == 1
    assert told[0].startswith(completing)


@pytest.mark.parametrize("name", ["cargo_no_fail_fast", "go_verbose_failed"])
def test_a_run_without_a_last_line_is_told_at_the_first_line_after_it(name: str) -> None:
    scanner = SummaryScanner()
    assert [line for line in output(name).split("\n") if scanner.feed(line)] == []
    assert scanner.feed("$ ls") == EXPECTED[name]
    assert scanner.close() == []


def test_a_run_in_the_last_lines_only_is_seen() -> None:
    for name in ("jest_mixed", "vitest_mixed", "pytest_quiet_mixed", "bun_mixed"):
        last = "\n".join(output(name).rstrip("\n").split("\n")[-7:])
        assert summarize(last, command="npm test 2>&1 | tail -7") == EXPECTED[name]


def test_several_runs_of_a_command_are_added_up() -> None:
    both = output("pytest_mixed") + output("cargo_failed") + output("pytest_quiet_ok")
    assert summarize(both, command="make test") == TestSummary("pytest+cargo", 18, 3, 3, 40)


def test_two_runs_that_one_line_completes_are_both_told() -> None:
    scanner = SummaryScanner()
    assert [found for line in output("cargo_ok").split("\n") if (found := scanner.feed(line))] == []
    assert scanner.feed("1 passed in 0.10s") == TestSummary("pytest", 1, 0, 0, 100)
    assert scanner.feed("") == EXPECTED["cargo_ok"]


@pytest.mark.parametrize(
    ("line", "passed", "failed", "skipped", "duration_ms"),
    [
        ("=========== 12 passed in 75.20s (0:01:15) ===========", 12, 0, 0, 75_200),
        ("==== 3 failed, 2 passed in 90061.00s (1 day, 1:01:01) ====", 2, 3, 0, 90_061_000),
        ("1 passed, 2 errors in 0.10s", 1, 2, 0, 100),
        ("1 passed, 1 rerun in 0.10s", 1, 0, 0, 100),
        ("=== 1 failed, 3 passed, 2 flaky in 0.10s ===", 3, 1, 0, 100),
    ],
)
def test_other_words_of_pytest(line: str, passed: int, failed: int, skipped: int, duration_ms: int) -> None:
    assert scan(line) == [TestSummary("pytest", passed, failed, skipped, duration_ms)]


@pytest.mark.parametrize(
    "text",
    [
        "All is well: 5 passed in 0.12s",
        "5 passed",
        "- 5 passed in 0.12s",
        "5 passed in 0.12s, as before",
        "5 passed, 2 of them slow in 0.12s",
        "= 5 passed in 0.12s",
        "=== 12 tests collected in 0.01s ===",
        "3 files in 0.12s",
        "report.log:12:=== 5 passed in 0.12s ===",
        "99999999999 passed in 0.12s",
        "Ran 3 tests in 0.1s",
        "Ran 3 tests in 0.1s\nsomething else\nOK",
        "OK",
        "FAILED (failures=1)",
        "Tests: 3 passed",
        "Tests:   they all passed, 3 total",
        "Tests  3 passed (3)",
        " 3 pass\nRan 3 tests",
        " 3 pass\nhello\nRan 3 tests across 1 file. [4.00ms]",
        "Ran 3 tests across 1 file. [4.00ms]",
        "# tests 3\n# pass 3\nhello\n# fail 0\n# duration_ms 3",
        "# tests 3\nℹ pass 3\nℹ fail 0\nℹ duration_ms 3",
        "test result: ok",
        "the test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        "ok  pkg 0.003s",
        "--- PASS: TestX (0.00s)",
        "FAIL\tthis is bad",
        "= 5 passed in 0.12s " + "=" * 2000,
    ],
)
def test_what_only_resembles_a_summary_is_none(text: str) -> None:
    assert scan(f"{text}\n") == []


def test_what_a_carriage_return_overwrote_is_not_read() -> None:
    assert scan("collecting ...\r=== 2 passed in 0.12s ===\r\n") == [TestSummary("pytest", 2, 0, 0, 120)]


@pytest.mark.parametrize(
    "command", ["cat test.log", "/bin/bash -lc 'cd x && tail -20 test.log'", "git show HEAD:test.log"]
)
def test_a_log_that_is_shown_is_no_run(command: str) -> None:
    assert summarize(output("pytest_mixed"), command=command) is None


@pytest.mark.parametrize(
    "command",
    ["./run-all.sh", "pytest > log; cat log", "./ci | tail -5", "git commit -m x", "cat run.sh | bash", "cat <<E\nE\n"],
)
def test_any_other_command_may_have_run_tests(command: str) -> None:
    assert not only_shows_files(command)
    assert summarize(output("pytest_mixed"), command=command) == EXPECTED["pytest_mixed"]


@given(
    st.text() | st.lists(st.sampled_from([*"0123456789 =.,#ℹ\n\t\x1b[m", "passed", "failed", " in ", "s"])).map("".join)
)
def test_no_text_makes_it_fail(text: str) -> None:
    summarize(text, command=text)


@pytest.mark.parametrize(
    "command",
    [
        "pytest",
        "pytest -q tests/test_x.py::test_y",
        "cd x && pytest -q",
        "/bin/bash -lc 'cd x && pytest -q'",
        '/bin/bash -lc "cd x && FOO=1 python -m pytest -q"',
        "bash -c \"bash -lc 'pytest -q'\"",
        "set -e\npytest\n",
        "x=$(pytest -q)",
        "if ! pytest; then echo no; fi",
        "pytest 2>&1 | tail -5",
        "nohup pytest &> log &",
        "# don't\npytest",
        "cat <<'EOF' > t.py\nimport x\nEOF\npytest t.py",
        ".venv/bin/pytest",
        "env A=b pytest",
        "A=b C=d go test -v ./x",
        "timeout 60 pytest",
        "timeout -k 5 1m python -m pytest -mslow",
        "sudo -u dev pytest",
        "python3.11 -W error -m unittest discover",
        "python -mpytest",
        "python manage.py test",
        "coverage run -m pytest",
        "python -m coverage run -m pytest",
        "PYTHONPATH=. uv run --with foo pytest -x",
        "uv run -m pytest",
        "hatch run pytest",
        "(cd a; tox)",
        "npm test",
        "npm t",
        "npm run test:unit",
        "npm --prefix web run test",
        "npm exec -- jest",
        "npx -y vitest run",
        "pnpm -r test",
        "pnpm --filter web test",
        "pnpm exec vitest",
        "yarn test",
        "yarn workspace web test",
        "yarn jest",
        "bun test a.test.ts",
        "./node_modules/.bin/jest --ci",
        "node --test",
        "node --import tsx --test x",
        "cargo test",
        "cargo +nightly test --all",
        "cargo --manifest-path a/Cargo.toml test",
        "cargo nextest run",
        "go test ./...",
        "go -C x test",
        "make test",
        "make -C sub unit-tests",
        "make check",
        "just test",
    ],
)
def test_a_command_that_starts_tests(command: str) -> None:
    assert command_starts_tests(command)


@pytest.mark.parametrize(
    "command",
    [
        "",
        "ls",
        "echo pytest",
        "cat pytest.log",
        "grep -r pytest .",
        "rg 'cargo test'",
        "pip install pytest",
        "uv add pytest",
        "uv pip install pytest",
        "pytest --version",
        "pytest --collect-only -q",
        "cargo test --no-run",
        "cargo build",
        "go build ./test",
        "node test.js",
        "python test.py",
        "python -c 'import pytest'",
        "make latest",
        "make all -f tests/Makefile",
        'git commit -m "run; pytest"',
        "cat > run.sh <<'EOF'\npytest -q\nEOF\nchmod +x run.sh",
        "npm install",
        "npm run latest",
        "yarn add jest",
        "bash -lc",
        'echo "not closed; pytest',
        "# pytest",
    ],
)
def test_a_command_that_starts_none(command: str) -> None:
    assert not command_starts_tests(command)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "part", ["env ", "bash -c '", "<<a\n", "'", '"\\', "a_", "make a_", "(", "2>", "python -m ", "uv run ", "npx "]
)
def test_a_command_made_to_be_slow_or_deep_is_read_all_the_same(part: str) -> None:
    command = part * (60_000 // len(part))
    assert not command_starts_tests(command)
    assert not only_shows_files(command)

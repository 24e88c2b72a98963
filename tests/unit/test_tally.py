"""The numbers of a turn."""

from __future__ import annotations

from cody.contracts.run import RunStats, TokenUsage
from cody.contracts.run_events import FileDeleted, FileRead, FileWritten, TestRunCompleted, TokenUsageReported
from harness.tally import FILES_KEPT, Tally


def test_files_are_counted_once_each_and_listed_in_order() -> None:
    tally = Tally()
    assert tally.add(FileWritten(path="b", source="watch"))
    assert not tally.add(FileWritten(path="b", source="agent"))
    assert tally.add(FileWritten(path="a"))
    assert not tally.add(FileDeleted(path="c"))
    assert not tally.add(FileRead(path="d"))
    assert (tally.files_written, tally.files) == (2, ["b", "a"])


def test_many_files_are_counted_and_the_first_are_listed() -> None:
    tally = Tally()
    for number in range(1_000):
        tally.add(FileWritten(path=str(number)))
    assert tally.files_written == 1_000
    assert tally.files == [str(number) for number in range(FILES_KEPT)]


def test_the_runs_numbers_are_those_before_and_this_turns() -> None:
    tally = Tally()
    usage = TokenUsage(input_tokens=10, cached_input_tokens=4, output_tokens=5, reasoning_tokens=2, total_tokens=15)
    for _ in range(2):
        tally.add(TokenUsageReported(**usage.model_dump()))
    tally.add(TestRunCompleted(passed=3, failed=1))
    tally.add(FileWritten(path="x"))
    before = RunStats(turns=4, tokens=100, input_tokens=60, output_tokens=40, tests_passed=1, files_written=9)
    after = tally.on_top_of(before, ended=True)
    assert after == RunStats(
        turns=5,
        tokens=130,
        input_tokens=80,
        cached_input_tokens=8,
        output_tokens=50,
        files_written=10,
        tests_passed=4,
        tests_failed=1,
    )
    assert tally.on_top_of(before, ended=False).turns == 4

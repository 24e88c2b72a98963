"""Any program as an agent: finding it, reading what it prints, judging its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cody.contracts.run import TokenUsage
from cody.contracts.run_config import RunConfig
from cody.contracts.run_events import Custom, TestRunCompleted, TokenUsageReported
from cody.errors import AgentUnavailable
from harness.agents.base import AgentExit, Reading, TurnRequest
from harness.agents.command import CommandAgent, CommandReader

OK = AgentExit(exit_code=0, signal=None)
SUMMARY = b"=========== 1 failed, 3 passed in 0.12s ==========="


def request(working_dir: Path, command: list[str], *, path: str | None = None) -> TurnRequest:
    env = {} if path is None else {"PATH": path}
    config = RunConfig(working_dir=str(working_dir), agent="command", command=command, env=env)
    return TurnRequest("run", 1, config, working_dir / "prompt", {"PATH": "/nowhere", "B": "base"})


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_name_is_looked_for_in_the_childs_path(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "agent")
    launch = CommandAgent().launch(request(tmp_path, ["agent", "--x", ""], path=f"/nowhere:{tmp_path}/bin"))
    assert launch.argv == (f"{tmp_path}/bin/agent", "--x", "")
    assert launch.env == {"PATH": f"/nowhere:{tmp_path}/bin", "B": "base"}
    assert (launch.cwd, launch.stdin) == (tmp_path, tmp_path / "prompt")


@pytest.mark.parametrize("path", ["bin", ":/nowhere"])
def test_relative_entries_of_path_are_relative_to_the_workspace(tmp_path: Path, path: str) -> None:
    name = program(tmp_path / (path.split(":")[0] or ".") / "agent")
    assert os.path.samefile(CommandAgent().launch(request(tmp_path, ["agent"], path=path)).argv[0], name)


def test_a_path_is_relative_to_the_workspace(tmp_path: Path) -> None:
    program(tmp_path / "tools" / "agent")
    assert os.path.isabs(CommandAgent().launch(request(tmp_path, ["tools/agent"])).argv[0])


@pytest.mark.parametrize("kind", ["missing", "folder", "not executable"])
@pytest.mark.parametrize("name", ["agent", "./agent", "/nowhere/agent"])
def test_what_cannot_be_executed_is_refused_before_anything_starts(tmp_path: Path, kind: str, name: str) -> None:
    if kind == "folder":
        (tmp_path / "agent").mkdir()
    elif kind == "not executable":
        (tmp_path / "agent").write_text("x")
    with pytest.raises(AgentUnavailable, match="agent"):
        CommandAgent().launch(request(tmp_path, [name], path=str(tmp_path)))


def test_usage_is_the_sum_of_what_was_reported_on_both_streams() -> None:
    subject = CommandReader()
    line = b'{"__cody_event__":{"type":"token_usage","inputTokens":10,"cachedInputTokens":4,"outputTokens":5}}'
    event = TokenUsageReported(input_tokens=10, cached_input_tokens=4, output_tokens=5, total_tokens=15)
    assert subject.stdout_line(line) == Reading([event])
    assert subject.stderr_line(line) == Reading([event])
    usage = subject.outcome(OK).usage
    assert usage == TokenUsage(input_tokens=20, cached_input_tokens=8, output_tokens=10, total_tokens=30)


def test_a_test_summary_on_either_stream_is_an_event_beside_its_output() -> None:
    subject = CommandReader()
    for read in (subject.stdout_line, subject.stderr_line):
        reading = read(SUMMARY)
        assert reading.is_output
        (tests,) = reading.events
        assert isinstance(tests, TestRunCompleted)
        assert (tests.passed, tests.failed) == (3, 1)


def test_a_summary_that_only_the_end_completes_is_told_at_the_end() -> None:
    cargo = b"test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s"
    subject = CommandReader()
    assert subject.stdout_line(b"running 3 tests").events == ()
    assert subject.stdout_line(cargo).events == ()
    (tests,) = subject.outcome(OK).events
    assert isinstance(tests, TestRunCompleted)
    assert (tests.passed, tests.failed) == (3, 0)


def test_a_program_that_reports_its_tests_is_believed_from_then_on() -> None:
    subject = CommandReader()
    own = b'{"__cody_event__":{"type":"test_run_completed","passed":3,"failed":1}}'
    assert subject.stdout_line(own) == Reading([TestRunCompleted(passed=3, failed=1)])
    assert subject.stdout_line(SUMMARY) == Reading(is_output=True)
    assert subject.stderr_line(SUMMARY) == Reading(is_output=True)


def test_an_unknown_sentinel_is_kept_without_power() -> None:
    reading = CommandReader().stdout_line(b'{"__cody_event__":{"type":"run_completed","source":"stop_file"}}')
    assert reading == Reading([Custom(name="run_completed", data={"source": "stop_file"})])


@pytest.mark.parametrize(
    ("exit", "code", "retryable", "part"),
    [
        (OK, None, False, ""),
        (AgentExit(1, None), "agent_exited", False, "code 1"),
        (AgentExit(75, None), "agent_exited", True, "EX_TEMPFAIL"),
        (AgentExit(None, 15), "agent_killed", False, "SIGTERM"),
        (AgentExit(None, None), "agent_exited", False, "not known"),
    ],
)
def test_the_verdict(exit: AgentExit, code: str | None, retryable: bool, part: str) -> None:
    error = CommandReader().outcome(exit).error
    assert (error.code if error else None) == code
    assert (error.retryable if error else False) == retryable
    assert part in (error.message if error else "")


def test_a_failure_quotes_stderr_else_stdout_without_terminal_colours() -> None:
    subject = CommandReader()
    subject.stdout_line(b"on stdout")
    first = subject.outcome(AgentExit(1, None)).error
    subject.stderr_line(b"\x1b[1;31mon\x1b[0m stderr\x07")
    second = subject.outcome(AgentExit(1, None)).error
    assert first is not None
    assert second is not None
    assert first.message.endswith("on stdout")
    assert second.message.endswith("on stderr")


def test_a_failure_quotes_a_bounded_end() -> None:
    subject = CommandReader()
    for number in range(1000):
        subject.stderr_line(f"line {number} {'é' * 3000}".encode())
    subject.stderr_line(b"the last")
    error = subject.outcome(AgentExit(1, None)).error
    assert error is not None
    assert error.message.endswith("the last")
    assert len(error.message.encode()) < 2500


def test_the_last_line_of_stdout_is_the_last_message() -> None:
    subject = CommandReader()
    assert subject.outcome(OK).last_message is None
    subject.stdout_line(b"all \x1b[32mdone\x1b[0m")
    subject.stdout_line(b"")
    subject.stdout_line(b'{"__cody_event__":{"type":"x"}}')
    subject.stderr_line(b"warning")
    assert subject.outcome(OK).last_message == "all done"


def test_a_cut_line_is_output_and_nothing_else() -> None:
    line = b'{"__cody_event__":{"type":"x"}}'
    assert CommandReader().stdout_line(line, truncated=True) == Reading(is_output=True)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.binary(), st.booleans()), max_size=8), st.integers(-1, 255))
def test_no_bytes_break_the_reader(lines: list[tuple[bytes, bool]], code: int) -> None:
    subject = CommandReader()
    for line, truncated in lines:
        for read in (subject.stdout_line, subject.stderr_line):
            reading = read(line, truncated=truncated)
            assert reading.is_output or reading.events
    error = subject.outcome(AgentExit(code, None)).error
    assert (error is None) == (code == 0)

"""Any program as an agent: it reads the prompt on stdin, and what it prints is read for sentinels and test summaries.

Exit code 0 completes the turn; 75 (EX_TEMPFAIL of sysexits.h) asks for another try; anything else fails it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cody.contracts.run import RunError
from cody.contracts.run_events import TestRunCompleted, TokenUsageReported
from cody.errors import AgentUnavailable
from harness import sentinel
from harness.agents.base import AgentExit, Body, Launch, Reading, TurnOutcome, TurnReader, TurnRequest
from harness.agents.ending import LastLines, failure, first_bytes, plain, signal_name
from harness.agents.usage import UsageSum
from harness.test_output import MAX_LINE, SummaryScanner, TestSummary

EX_TEMPFAIL = 75
LAST_MESSAGE_BYTES = 4096
_SCANNED_BYTES = 4 * (MAX_LINE + 1)
"""Of a line: what is longer has no summary, and a cut one is still too long for the scanner to look at."""

_SEE_LOG = "The turn's log has all that it printed."
_OUTPUT = Reading(is_output=True)


class CommandAgent:
    """Runs config.command in workingDir."""

    @property
    def name(self) -> str:
        return "command"

    def launch(self, request: TurnRequest) -> Launch:
        """How to start the turn; raises AgentUnavailable when the program is missing or cannot be executed."""
        command = request.config.command
        if not command:
            raise AgentUnavailable(f"run {request.run_id} has no config.command: the program and its arguments")
        env = {**request.base_env, **request.config.env}
        cwd = Path(request.config.working_dir)
        program = _resolve(command[0], cwd, env)
        return Launch(argv=(program, *command[1:]), cwd=cwd, env=env, stdin=request.prompt)

    def reader(self, request: TurnRequest) -> TurnReader:
        return CommandReader()


class CommandReader:
    """TurnReader of any program."""

    def __init__(self) -> None:
        self._stdout = LastLines()
        self._stderr = LastLines()
        self._stdout_tests = SummaryScanner()
        self._stderr_tests = SummaryScanner()
        self._tells_tests = False
        """The program reports its tests itself: what is recognised in its output would count them twice."""
        self._usage = UsageSum()
        self._last_line = b""

    @property
    def thread_id(self) -> str | None:
        return None

    def stdout_line(self, line: bytes, *, truncated: bool = False) -> Reading:
        reading = self._read(line, truncated, self._stdout, self._stdout_tests)
        if line and reading.is_output:
            self._last_line = line
        return reading

    def stderr_line(self, line: bytes, *, truncated: bool = False) -> Reading:
        return self._read(line, truncated, self._stderr, self._stderr_tests)

    def outcome(self, exit: AgentExit) -> TurnOutcome:
        message = plain(self._last_line[:LAST_MESSAGE_BYTES].decode("utf-8", "replace")).strip()
        return TurnOutcome(
            error=_verdict(exit, self._stderr.text() or self._stdout.text()),
            usage=self._usage.total(),
            last_message=first_bytes(message, LAST_MESSAGE_BYTES) or None,
            events=() if self._tells_tests else tuple(_tests(found) for found in self._tests_at_end()),
        )

    def _tests_at_end(self) -> list[TestSummary]:
        return [*self._stdout_tests.close(), *self._stderr_tests.close()]

    def _read(self, line: bytes, truncated: bool, last: LastLines, tests: SummaryScanner) -> Reading:
        if not truncated:
            body = sentinel.parse(line)
            if body is not None:
                return self._told(body)
        last.add(line)
        if self._tells_tests:
            return _OUTPUT
        summary = tests.feed(line[:_SCANNED_BYTES].decode("utf-8", "replace"))
        return _OUTPUT if summary is None else Reading([_tests(summary)], is_output=True)

    def _told(self, body: Body) -> Reading:
        match body:
            case TokenUsageReported():
                self._usage.add(body)
            case TestRunCompleted():
                self._tells_tests = True
            case _:
                pass
        return Reading([body])


def _verdict(exit: AgentExit, last_lines: str) -> RunError | None:
    if exit.signal is not None:
        what = f"the command was killed by {signal_name(exit.signal)}"
        return failure(
            "agent_killed", what, "Something outside this run ended it (out of memory?).", last_lines, retryable=False
        )
    match exit.exit_code:
        case 0:
            return None
        case None:
            return failure("agent_exited", "how the command ended is not known", _SEE_LOG, last_lines, retryable=False)
        case 75:
            what = "the command exited with code 75 (EX_TEMPFAIL)"
            return failure("agent_exited", what, "It asks to be tried again.", last_lines, retryable=True)
        case code:
            what = f"the command exited with code {code}"
            return failure("agent_exited", what, _SEE_LOG, last_lines, retryable=False)


def _tests(summary: TestSummary) -> TestRunCompleted:
    return TestRunCompleted(
        passed=summary.passed,
        failed=summary.failed,
        skipped=summary.skipped,
        duration_ms=summary.duration_ms,
        framework=summary.framework,
    )


def _resolve(program: str, cwd: Path, env: Mapping[str, str]) -> str:
    """The program's path as the child would find it: a name in its PATH, a path relative to workingDir."""
    if "/" in program:
        found = os.path.join(cwd, program)
        if not os.path.exists(found):
            raise AgentUnavailable(f"the command {program!r} does not exist in {cwd}: correct config.command")
        if not _executable(found):
            raise AgentUnavailable(
                f"the command {found} is not an executable file: `chmod +x` it, or name its interpreter"
            )
        return found
    path = env.get("PATH", os.defpath)
    for folder in path.split(os.pathsep):
        found = os.path.join(cwd, folder, program)  # an empty entry is the current folder: the child's, not Cody's
        if _executable(found):
            return found
    raise AgentUnavailable(f"the command {program!r} is not in the agent's PATH: install it, or give its full path")


def _executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)

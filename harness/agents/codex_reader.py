"""Reads one turn of codex: lines in, run events out, the verdict at the end. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from cody.contracts.run import TokenUsage
from cody.contracts.run_events import (
    Custom,
    TestRunCompleted,
    TestRunStarted,
    TokenUsageReported,
    TurnItem,
    WarningRaised,
)
from harness import sentinel
from harness.agents.base import AgentExit, Body, Reading, TurnOutcome, TurnRequest
from harness.agents.codex_events import (
    AgentMessage,
    CodexEvent,
    CodexItem,
    CommandExecution,
    ErrorItem,
    ErrorReported,
    FileChange,
    ItemEvent,
    McpToolCall,
    Phase,
    Reasoning,
    ThreadStarted,
    TodoList,
    TurnCompleted,
    TurnFailed,
    TurnStarted,
    UnknownEvent,
    UnknownItem,
    Unreadable,
    WebSearch,
    parse,
)
from harness.agents.codex_items import call, file_changes, json_text, output, plan, said, shell_script, unfinished
from harness.agents.codex_verdict import Seen, verdict
from harness.agents.ending import LastLines, first_bytes, plain
from harness.agents.usage import UsageSum, difference
from harness.test_output import command_starts_tests, summarize

LAST_MESSAGE_BYTES = 4096
WARNING_BYTES = 4096
UNKNOWN_BYTES = 8192
"""What is kept of an event that is not known here."""

_OUTPUT = Reading(is_output=True)
_NOTHING = Reading()


class CodexReader:
    """TurnReader of `codex exec --json`. `roots` are the forms of workingDir that paths may begin with."""

    def __init__(self, request: TurnRequest, *, roots: Sequence[str]) -> None:
        self._request = request
        self._roots = roots
        self._thread_id: str | None = None
        self._thread_usage = request.resume_usage if request.resume_thread else None
        self._usage = UsageSum()
        self._completed = False
        self._failed: str | None = None
        self._reported: str | None = None
        self._unreadable = 0
        self._open: dict[str, CodexItem] = {}
        self._plans: dict[str, tuple[int, TodoList]] = {}
        self._last_message: str | None = None
        self._stderr = LastLines()

    @property
    def thread_id(self) -> str | None:
        return self._thread_id

    def stdout_line(self, line: bytes, *, truncated: bool = False) -> Reading:
        if truncated:
            return self._broken("longer than the line limit") if line[:1] == b"{" else _OUTPUT
        match parse(line):
            case None:
                return _plain_line(line)
            case Unreadable(reason):
                return self._broken(reason)
            case UnknownEvent(type=kind, raw=raw):
                body = sentinel.parse(line)
                return Reading([body if body is not None else _custom(f"codex.{kind}", raw)])
            case event:
                events = self._events(event)
                return Reading(events, is_life=not _is_retry(event)) if events else _NOTHING

    def stderr_line(self, line: bytes, *, truncated: bool = False) -> Reading:
        self._stderr.add(line)
        # Its work is told on stdout; here it complains, for hours if the network is gone.
        return (_OUTPUT if truncated else _plain_line(line))._replace(is_life=False)

    def outcome(self, exit: AgentExit) -> TurnOutcome:
        seen = Seen(
            working_dir=self._request.config.working_dir,
            thread_id=self._thread_id,
            asked_thread=self._request.resume_thread,
            completed=self._completed,
            failed=self._failed,
            reported=self._reported,
            last_lines=self._stderr.text(),
        )
        events: list[Body] = [TurnItem(item=unfinished(id)) for id in self._open]
        if self._unreadable > 1:
            events.append(_warning("agent_line_unreadable", f"{self._unreadable} lines of codex could not be read"))
        return TurnOutcome(
            error=verdict(seen, exit),
            usage=self._usage.total(),
            thread_id=self._thread_id,
            thread_usage=self._thread_usage,
            last_message=self._last_message,
            events=tuple(events),
        )

    def _events(self, event: CodexEvent) -> Sequence[Body]:
        match event:
            case ThreadStarted(thread_id):
                return self._thread_started(thread_id)
            case ItemEvent(phase, item):
                return self._item(phase, item)
            case TurnCompleted(usage):
                self._completed = True
                return [self._used(usage)]
            case TurnFailed(message):
                self._failed = message
                return []
            case ErrorReported(message):
                self._reported = message
                return [_warning("agent_retrying" if _is_retry(event) else "agent_warning", message)]
            case TurnStarted() | UnknownEvent() | Unreadable():
                return []

    def _thread_started(self, thread_id: str) -> Sequence[Body]:
        self._thread_id = thread_id or None
        asked = self._request.resume_thread
        if asked is None or asked.lower() == thread_id.lower():
            return []
        # A new conversation counts from zero: what the other one had used is not to be taken off.
        self._thread_usage = None
        return [_warning("resume_mismatch", f"codex was to go on in conversation {asked} and began {thread_id}")]

    def _used(self, usage: TokenUsage) -> TokenUsageReported:
        """What was used since the last report: codex counts for the whole conversation, the turns before included."""
        used = difference(usage, self._thread_usage or TokenUsage())
        self._thread_usage = usage
        self._usage.add(used)
        return TokenUsageReported(**used.model_dump())

    def _item(self, phase: Phase, item: CodexItem) -> Sequence[Body]:
        match item:
            case AgentMessage() | Reasoning() if phase == "completed":
                if isinstance(item, AgentMessage):
                    self._last_message = first_bytes(item.text, LAST_MESSAGE_BYTES)
                return [TurnItem(item=said(item))]
            case CommandExecution() | FileChange() | McpToolCall() | WebSearch():
                return self._call(phase, item)
            case TodoList():
                return self._plan(item)
            case ErrorItem(message=message) if phase == "completed":
                return [_warning("agent_warning", message)]
            case UnknownItem(type=kind, raw=raw):
                return [_custom(f"codex.item.{kind}", {"phase": phase, "item": raw})]
            case _:
                return []

    def _call(self, phase: Phase, item: CommandExecution | FileChange | McpToolCall | WebSearch) -> Sequence[Body]:
        events: list[Body] = []
        if phase != "updated" and item.id not in self._open:
            self._open[item.id] = item
            events.append(TurnItem(item=call(item)))
            if isinstance(item, CommandExecution) and command_starts_tests(shell_script(item.command)):
                events.append(TestRunStarted(command=_shown(item.command)))
        if phase == "completed":
            del self._open[item.id]
            events.append(TurnItem(item=output(item)))
            match item:
                case CommandExecution():
                    events += _told(item)
                case FileChange():
                    events += file_changes(item, self._roots)
                case _:
                    pass
        return events

    def _plan(self, item: TodoList) -> Sequence[Body]:
        """A call of update_plan for each state of the list; its completion at the turn's end repeats the last one."""
        revision, last = self._plans.get(item.id, (0, None))
        if last == item:
            return []
        self._plans[item.id] = (revision + 1, item)
        return [TurnItem(item=part) for part in plan(item, revision + 1)]

    def _broken(self, reason: str) -> Reading:
        """A line that is no whole JSON: shown as the output it is, warned of once, counted to the end."""
        self._unreadable += 1
        if self._unreadable > 1:
            return _OUTPUT
        message = f"a line of codex could not be read ({reason}); it is whole in the turn's log"
        return Reading([_warning("agent_line_unreadable", message)], is_output=True)


def _plain_line(line: bytes) -> Reading:
    body = sentinel.parse(line)
    return _OUTPUT if body is None else Reading([body])


def _told(item: CommandExecution) -> list[Body]:
    """What a command's output tells: its sentinels, else its test summary. Its own text may quote either."""
    events = sentinel.find_in_text(item.output)
    if not any(isinstance(event, TestRunCompleted) for event in events):
        tests = summarize(item.output, command=shell_script(item.command))
        if tests is not None:
            events.append(
                TestRunCompleted(
                    passed=tests.passed,
                    failed=tests.failed,
                    skipped=tests.skipped,
                    duration_ms=tests.duration_ms,
                    framework=tests.framework,
                    command=_shown(item.command),
                )
            )
    return events


def _shown(command: str) -> str:
    return first_bytes(shell_script(command), WARNING_BYTES)


def _is_retry(event: CodexEvent) -> bool:
    """Codex tries to reach its model again, which it does without end when there is no network."""
    return isinstance(event, ErrorReported) and event.message.startswith("Reconnecting")


def _warning(code: str, message: str) -> WarningRaised:
    return WarningRaised(code=code, message=first_bytes(plain(message), WARNING_BYTES))


def _custom(name: str, raw: object) -> Custom:
    """An event that is not known here, as JSON text: nothing in it is trusted, nor is its depth or size."""
    return Custom(name=first_bytes(name, 256), data={"json": first_bytes(json_text(raw), UNKNOWN_BYTES)})

"""What one event looks like to a person: rows of time, mark and text. Pure, but for what the rows before showed."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.text import Text

from cody.cli.amounts import clock, count, duration, size
from cody.cli.items import Item, read_item
from cody.cli.untrusted import last_lines, one_line, safe
from cody.cli.wording import compact_json, first_sentence, sentences, source_words, turn_limit
from cody.contracts.run import RunError, TokenUsage
from cody.contracts.run_events import (
    CompletionDetected,
    Custom,
    FileDeleted,
    FileRead,
    FileWritten,
    LogUpdated,
    OutputDropped,
    RunCancelled,
    RunCancelling,
    RunCompleted,
    RunEvent,
    RunFailed,
    RunPaused,
    RunPausing,
    RunQueued,
    RunRecovered,
    RunResumed,
    RunStarted,
    SubprocessOutput,
    TestRunCompleted,
    TestRunStarted,
    TokenUsageReported,
    TurnCompleted,
    TurnFailed,
    TurnInterrupted,
    TurnItem,
    TurnStarted,
    WarningRaised,
)

LOG_TAIL_LINES = 8
FAILED_OUTPUT_LINES = 8
OPEN_CALLS = 200
"""Calls of tools whose output is awaited; an agent that never answers them must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of the view. `wraps`: long text goes on below itself instead of being cut at the edge."""

    time: str
    mark: str
    text: Text
    wraps: bool = True

    @property
    def style(self) -> str:
        """The colour of the mark: that of the text, or of its beginning."""
        begins = [str(span.style) for span in self.text.spans if span.start == 0]
        return str(self.text.style) or next(iter(begins), "dim")


@dataclass(slots=True)
class Seen:
    """What earlier rows showed, so that a later one can refer to it or need not repeat it."""

    calls: dict[str, Item] = field(default_factory=dict)
    files: set[tuple[str, str]] = field(default_factory=set)
    """(kind, path) in this turn: the agent and the watcher both report what was written."""
    error: str | None = None
    """What the latest turn failed with: the run may fail with the same words."""


def rows(event: RunEvent, seen: Seen) -> list[Row]:
    """The rows of an event; none for what is in the status bar anyway. Updates `seen`."""
    time = clock(event.ts)
    match event.body:
        case TurnItem() as body:
            return _item_rows(time, event.ts, body, seen)
        case SubprocessOutput() as body:
            mark = "│" if body.stream == "stdout" else "┆"
            lines = safe(body.text).rstrip("\n").split("\n")
            return [Row(time, mark, Text(line, "dim"), wraps=False) for line in lines]
        case FileWritten() | FileRead() | FileDeleted() as body:
            return _file_rows(time, body, seen)
        case LogUpdated() as body:
            tail = last_lines(body.tail, LOG_TAIL_LINES)
            title = Text.assemble((one_line(body.path), "magenta"), (f" grew by {size(body.appended_bytes)}", "dim"))
            return [Row(time, "≡", title), *(Row("", "┊", Text(line, "dim magenta")) for line in tail)]
        case TurnStarted() as body:
            seen.files.clear()
            seen.calls.clear()
            number = "" if event.turn is None else f" {event.turn}"
            title = Text.assemble((f"turn{number}", "bold cyan"), (f"  pid {body.pid}", "dim"))
            return [Row("", "", Text()), Row(time, "▶", title)]
        case TestRunStarted(command=command):
            # Agents whose commands are seen have shown it already.
            if any(call.text == command for call in seen.calls.values()):
                return []
            return [Row(time, "▷", Text(f"tests: {one_line(command)}", "dim"))]
        case _:
            text = _sentence(event, seen)
            return [] if text is None else [Row(time, *text)]


def _sentence(event: RunEvent, seen: Seen) -> tuple[str, Text] | None:
    """Mark and text of the events that are one sentence."""
    turn = "the turn" if event.turn is None else f"turn {event.turn}"
    match event.body:
        case RunQueued(epic_id=epic):
            return "·", Text(f"run {event.run_id} is queued, epic {one_line(epic)}", "dim")
        case RunStarted(host=host):
            return "·", Text(f"run started on {one_line(host)}", "dim")
        case RunPausing(reason=reason):
            return "‖", Text(f"pausing when the turn has ended ({one_line(reason)})", "yellow")
        case RunPaused(reason=reason):
            return "‖", Text(f"paused ({one_line(reason)})", "bold yellow")
        case RunResumed():
            return "▶", Text("resumed", "yellow")
        case RunCancelling(reason=reason):
            return "■", Text(f"cancelling ({one_line(reason)})", "yellow")
        case RunCancelled(reason=reason):
            return "■", Text(f"cancelled ({one_line(reason)})", "bold yellow")
        case RunCompleted(source=source, line=line):
            how = "ended at" if source == "max_turns" else "completed by"
            return "✔", Text(f"run {how} {source_words(source, turn_limit(line))}", "bold green")
        case RunFailed(error=error):
            return "✘", Text("run failed: ", "bold red").append_text(_error(error, brief=seen.error == error.message))
        case RunRecovered(fence=fence):
            return "·", Text(f"taken over by another worker (fence {fence})", "yellow")
        case TurnCompleted() as body:
            how = f"{turn} completed in {duration(body.duration_ms / 1000)}"
            return "✔", Text.assemble((how, "green"), (_tokens(body.token_usage, " · "), "dim"))
        case TurnFailed() as body:
            how = f"{turn} failed after {duration(body.duration_ms / 1000)}: "
            seen.error = body.error.message
            return "✘", Text(how, "red").append_text(_error(body.error))
        case TurnInterrupted(reason=reason):
            return "■", Text(f"{turn} was interrupted ({one_line(reason)})", "yellow")
        case OutputDropped() as body:
            where = "" if event.turn is None else f" --turn {event.turn}"
            shown = f"{size(body.bytes)} of {body.stream} not shown: cody logs {event.run_id}{where}"
            return "…", Text(shown, "dim")
        case TestRunCompleted() as body:
            return "✔" if body.failed == 0 else "✘", _tests(body)
        case CompletionDetected(source="max_turns", line=line):
            return "·", Text(f"{source_words('max_turns', turn_limit(line))} is reached", "dim")
        case CompletionDetected(source=source, line=line):
            quoted = f": {one_line(line)}" if line else ""
            return "✔", Text(f"{source_words(source)} says that the work is done{quoted}", "green")
        case WarningRaised(code=code, message=message):
            return "!", Text(f"{one_line(code)}: {one_line(message, 500)}", "yellow")
        case Custom(name=name, data=data):
            return "·", Text(f"{one_line(name)} {one_line(compact_json(data))}", "dim")
        case TokenUsageReported():
            return None
        case _:
            return "·", Text(event.type, "dim")


def _error(error: RunError, *, brief: bool = False) -> Text:
    """Code and message; the agent's last lines below. `brief`: the same was told before."""
    said, _, below = (first_sentence(error.message) if brief else sentences(error.message)).partition("\n")
    retry = " (trying again may help)" if error.retryable else ""
    text = Text.assemble((f"{one_line(error.code)}:", "bold red"), (f" {said}{retry}", "red"))
    return text.append(f"\n{below}", "red") if below else text


def _tokens(usage: TokenUsage, before: str) -> str:
    """Tokens of a turn; nothing where the agent told none."""
    if usage.total_tokens == 0:
        return ""
    cached = f" ({count(usage.cached_input_tokens)} cached)" if usage.cached_input_tokens else ""
    return f"{before}{count(usage.input_tokens)} tokens in{cached}, {count(usage.output_tokens)} out"


def _tests(body: TestRunCompleted) -> Text:
    parts = [(f"{body.passed} passed", "green" if body.failed == 0 else "")]
    parts += [(f"{body.failed} failed", "bold red")] if body.failed else []
    parts += [(f"{body.skipped} skipped", "yellow")] if body.skipped else []
    text = Text("tests: ").append_text(Text(", ").join(Text(words, style) for words, style in parts))
    framework = f" ({one_line(body.framework, 30)})" if body.framework else ""
    took = f" in {duration(body.duration_ms / 1000)}" if body.duration_ms is not None else ""
    return text.append(took + framework, "dim")


def _file_rows(time: str, body: FileWritten | FileRead | FileDeleted, seen: Seen) -> list[Row]:
    key = (body.type, body.path)
    if key in seen.files:
        return []
    if len(seen.files) < 10_000:
        seen.files.add(key)
    path = one_line(body.path, 300)
    match body:
        case FileWritten():
            return [Row(time, "+", Text(path, "green"), wraps=False)]
        case FileDeleted():
            return [Row(time, "-", Text(path, "red"), wraps=False)]
        case FileRead():
            return [Row(time, "<", Text(path, "dim"), wraps=False)]


def _item_rows(time: str, ts: str, body: TurnItem, seen: Seen) -> list[Row]:
    item = read_item(body.item, ts)
    match item.kind:
        case "message":
            return [Row(time, "●", Text(safe(item.text).strip() or "(empty message)"))]
        case "reasoning":
            return [Row(time, "~", Text(one_line(item.text, 300), "italic dim"))] if item.text.strip() else []
        case "plan":
            lines = [f"{'✔' if done else '○'} {one_line(step)}" for step, done in item.plan]
            return [Row(time, "☰", Text("\n".join(lines) or "(empty plan)", "blue"))]
        case "command" | "patch" | "tool":
            if len(seen.calls) < OPEN_CALLS:
                seen.calls[item.call_id] = item
            if item.kind == "patch":
                # The files that it writes have rows of their own; one that fails is told by its output.
                return []
            mark, style = ("$", "bold") if item.kind == "command" else ("⚙", "blue")
            return [Row(time, mark, Text(one_line(item.text, 300), style), wraps=False)]
        case "output":
            return _output_rows(time, item, seen.calls.pop(item.call_id, None))
        case _:
            return [Row(time, "·", Text(one_line(item.text), "dim"))]


def _output_rows(time: str, item: Item, call: Item | None) -> list[Row]:
    """How a command ended, with the end of its output when it failed; nothing for any other tool that worked."""
    failed = not item.completed or item.exit_code not in (0, None)
    if not failed and (call is None or call.kind != "command"):
        return []
    exit_text = f"exit {item.exit_code}" if item.exit_code is not None else "done" if item.completed else "did not end"
    if call is not None and call.kind == "patch":
        exit_text = f"the patch was not applied: {one_line(call.text)}"
    took = f" after {duration(item.at_s - call.at_s)}" if call is not None and item.at_s >= call.at_s else ""
    row = Row(time, "└", Text.assemble((exit_text, "red" if failed else "green"), (took, "dim")))
    tail = last_lines(item.text, FAILED_OUTPUT_LINES) if failed else []
    return [row, *(Row("", "┊", Text(line, "dim"), wraps=False) for line in tail)]


def call_in_progress(seen: Seen) -> str | None:
    """The command that is running, for the status bar; None when none is."""
    running = [call for call in seen.calls.values() if call.kind == "command"]
    return one_line(running[-1].text) if running else None

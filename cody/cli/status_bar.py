"""The bottom of the live view: how the run is now, in one or two lines. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from cody.cli.amounts import count, duration, elapsed_s, plural
from cody.cli.untrusted import one_line
from cody.contracts.run import RunSnapshot, RunStats

STATUS_STYLE = {
    "queued": "dim",
    "running": "bold cyan",
    "pausing": "yellow",
    "paused": "bold yellow",
    "cancelling": "yellow",
    "cancelled": "bold yellow",
    "completed": "bold green",
    "failed": "bold red",
}
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
QUESTION = " [d]etach   [p]ause at the end of the turn   [c]ancel   [enter] keep watching "
SHORT_QUESTION = "[d]etach [p]ause [c]ancel [enter] keep watching"
SEPARATOR = "  ·  "


@dataclass(frozen=True, slots=True)
class Bar:
    """`lost`: why there is no connection; `asking`: Ctrl-C was pressed; `doing`: a command that runs now."""

    snapshot: RunSnapshot
    lost: str | None = None
    asking: bool = False
    doing: str | None = None


def status_text(status: str) -> Text:
    return Text(status, STATUS_STYLE.get(status, ""))


def bar_text(bar: Bar, tick: int, width: int) -> Text:
    """The lines of the bar; `tick` turns the spinner. A fact that `width` has no room for is left out whole."""
    run = bar.snapshot
    moving = run.status in {"running", "pausing", "cancelling"} and bar.lost is None
    first = Text.assemble((SPINNER[tick % len(SPINNER)] if moving else "‖", "cyan"), " ", status_text(run.status))
    if run.reason and run.status == "paused":
        first.append(f" ({one_line(run.reason, 30)})", "yellow")
    for fact in _facts(run):
        room = width - first.cell_len - len(SEPARATOR)
        if (part := next((words for words in fact if words.cell_len <= room), None)) is not None:
            first.append(SEPARATOR, "dim").append_text(part)
    if bar.asking:
        return first.append("\n").append_text(Text(QUESTION if len(QUESTION) <= width else SHORT_QUESTION, "reverse"))
    if bar.lost is not None:
        return first.append(f"\n  no connection to the server, trying again ({one_line(bar.lost, 80)})", "yellow")
    if run.status == "paused":
        return first.append(f"\n  go on with: cody resume {run.run_id}", "yellow")
    if bar.doing is not None:
        return first.append("\n  $ ", "dim").append(bar.doing, "dim")
    return first


def _facts(run: RunSnapshot) -> list[tuple[Text, ...]]:
    """What matters most first; each in all words, and in fewer for where there is no room."""
    stats = run.stats
    facts: list[tuple[Text, ...]] = []
    if run.current_turn:
        of = f"/{run.config.max_turns}" if run.config.max_turns else ""
        facts.append((Text(f"turn {run.current_turn}{of}"),))
    if stats.tests_passed or stats.tests_failed:
        facts.append((Text("tests ").append_text(tests_text(stats)), _tests_in_short(stats)))
    facts.append((Text(duration(elapsed_s(run.started_at, run.finished_at))),))
    if stats.tokens:
        facts.append((Text(f"{count(stats.tokens)} tokens"),))
    if stats.files_written:
        facts.append((Text(plural(stats.files_written, "file")),))
    return facts


def _tests_in_short(stats: RunStats) -> Text:
    return Text(f"{stats.tests_failed} failed", "red") if stats.tests_failed else Text(f"{stats.tests_passed} passed")


def tests_text(stats: RunStats) -> Text:
    """`1 failed, 6 passed`, in the colour of what matters."""
    passed = Text(f"{stats.tests_passed} passed", "" if stats.tests_failed else "green")
    return Text.assemble((f"{stats.tests_failed} failed", "red"), ", ", passed) if stats.tests_failed else passed

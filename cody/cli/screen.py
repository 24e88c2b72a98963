"""The three ways to show a run: a live view on a terminal, plain lines, and JSON lines for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

import orjson
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cody.cli.rows import Row, Seen, call_in_progress, rows
from cody.cli.status_bar import QUESTION, Bar, bar_text
from cody.cli.terminal import stderr_console, stdout_console
from cody.contracts.run_events import RunEvent

REFRESH_PER_SECOND = 8
INDENT = " " * 11
"""The width of time and mark: what goes on below stands under its text."""

Received = tuple[str, RunEvent]


class Screen(Protocol):
    """What shows a run; use it as a context."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, received: Sequence[Received]) -> None:
        """Some events, in order."""
        ...

    def notice(self, text: str) -> None:
        """A word of Cody's own."""
        ...

    def status(self, bar: Bar) -> None:
        """How the run is now."""
        ...


class LiveScreen:
    """Rows that scroll, and the bar below them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen = Seen()
        self._bar: Bar | None = None
        self._doing: str | None = None
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            # What else is printed here is printed through this console; a redirected stream would only be in the way.
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, received: Sequence[Received]) -> None:
        grid = [row for _, event in received for row in rows(event, self._seen)]
        # Kept, because the bar is drawn in another thread, in the midst of changes to what was seen.
        self._doing = call_in_progress(self._seen)
        if grid:
            self._console.print(_grid(grid))

    def notice(self, text: str) -> None:
        self._console.print(Text(text, "bold"))

    def status(self, bar: Bar) -> None:
        self._bar = bar

    def _render(self) -> Group:
        if self._bar is None:
            return Group()
        tick = int(time.monotonic() * REFRESH_PER_SECOND)
        lines = bar_text(replace(self._bar, doing=self._doing), tick, self._console.width).split("\n")
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(Text(), *lines)


class PlainScreen:
    """One line after the other, for pipes, files and simple terminals."""

    def __init__(self, console: Console, errors: Console) -> None:
        self._console = console
        self._errors = errors
        self._seen = Seen()
        self._asking = False
        self._lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, received: Sequence[Received]) -> None:
        lines = [line for _, event in received for row in rows(event, self._seen) for line in _plain_lines(row)]
        if lines:
            self._console.print("\n".join(lines), soft_wrap=True)

    def notice(self, text: str) -> None:
        self._errors.print(text, soft_wrap=True)

    def status(self, bar: Bar) -> None:
        """Only what changes and has no event: the question, and a lost connection."""
        if bar.asking and not self._asking:
            self.notice(QUESTION.strip())
        if (bar.lost is not None) != self._lost:
            self.notice("connected again" if bar.lost is None else f"no connection, trying again ({bar.lost})")
        self._asking, self._lost = bar.asking, bar.lost is not None


class JsonScreen:
    """Each event as one line of JSON: its stream id, and the event as the API has it."""

    def __init__(self, errors: Console) -> None:
        self._errors = errors

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, received: Sequence[Received]) -> None:
        sys.stdout.buffer.write(b"".join(json_line(stream_id, event) for stream_id, event in received))
        sys.stdout.buffer.flush()

    def notice(self, text: str) -> None:
        self._errors.print(text, soft_wrap=True)

    def status(self, bar: Bar) -> None:
        pass


def make_screen(*, json: bool) -> LiveScreen | PlainScreen | JsonScreen:
    """The screen for where stdout goes."""
    console, errors = stdout_console(), stderr_console()
    if json:
        return JsonScreen(errors)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveScreen(console)
    return PlainScreen(console, errors)


def json_line(stream_id: str, event: RunEvent) -> bytes:
    """`{"id", "type", "ts", "runId", "seq", ...}` and a newline; `id` is what --from takes."""
    body = event.body.model_dump(mode="json", by_alias=True, exclude={"type"}, exclude_none=True)
    envelope = {"id": stream_id, "type": event.type, "ts": event.ts, "runId": event.run_id, "seq": event.seq}
    return orjson.dumps(envelope | body, option=orjson.OPT_APPEND_NEWLINE)


def _grid(entries: Sequence[Row]) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(style="dim", width=8, no_wrap=True)
    grid.add_column(width=1, no_wrap=True)
    grid.add_column(overflow="fold")
    for row in entries:
        text = row.text
        if not row.wraps:
            text.no_wrap, text.overflow = True, "ellipsis"
        grid.add_row(row.time, Text(row.mark, row.style), text)
    return grid


def _plain_lines(row: Row) -> list[str]:
    first, *more = row.text.plain.split("\n")
    return [f"{row.time:8} {row.mark} {first}".rstrip(), *(f"{INDENT}{line}" for line in more)]

"""What an agent writes, on its way: to the turn's log on disk, through the splitter and the agent's reader, to events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cody.contracts.run_events import Stream, WarningRaised
from cody.redaction import Redactor
from harness.agents.base import Body, Reading, TurnReader
from harness.output import LineSplitter, OutputThrottle
from harness.turn_log import TurnLog

Emit = Callable[[Body], None]
OnLine = Callable[[bytes], None]
"""Hears each whole line of stdout, without secrets, after the agent's reader has read it."""


class StreamPath:
    """One of the two streams. `feed` is called with each chunk; everything happens in it, in order."""

    def __init__(
        self,
        stream: Stream,
        reader: TurnReader,
        log: TurnLog,
        emit: Emit,
        redactor: Redactor,
        on_activity: Callable[[], None],
        on_line: OnLine | None = None,
    ) -> None:
        self._on_activity = on_activity
        self._on_line = on_line
        self._stream: Stream = stream
        self._redactor = redactor.stream()
        self._read: Callable[..., Reading] = reader.stdout_line if stream == "stdout" else reader.stderr_line
        self._log = log
        self._emit = emit
        self._splitter = LineSplitter()
        self._throttle = OutputThrottle(stream)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._cut_at: int | None = None
        """Where the rest of a shown line that was too long begins in the stream: counted when its end is known."""

    def feed(self, chunk: bytes) -> None:
        """Take a chunk as it came. Here, and nowhere later, secrets end: what follows is kept."""
        self._feed_clean(self._redactor.feed(chunk))

    def _feed_clean(self, chunk: bytes) -> None:
        if not chunk:
            return
        self._log.append(self._stream, chunk)
        now = self._loop.time()
        lines = 0
        for line in self._splitter.feed(chunk):
            lines += 1
            self._take(line.data, line.offset, line.truncated, now)
        if not lines:
            # A part of a line: what it says is not known yet, that it is written is.
            self._on_activity()
        self._arm()

    def finish(self) -> None:
        """The stream has ended: the last line, and what was held back."""
        self._feed_clean(self._redactor.finish())
        now = self._loop.time()
        for line in self._splitter.flush():
            self._take(line.data, line.offset, line.truncated, now)
        self._count_cut(self._splitter.position, now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for body in self._throttle.finish(now):
            self._emit(body)

    def _take(self, data: bytes, offset: int, truncated: bool, now: float) -> None:
        self._count_cut(offset, now)
        reading = self._read(data, truncated=truncated)
        if reading.is_life:
            self._on_activity()
        for body in reading.events:
            self._emit(body)
        if self._on_line is not None and not truncated:
            self._on_line(data)
        if reading.is_output:
            for body in self._throttle.add(data, self._log.offset_of(self._stream, offset), now):
                self._emit(body)

        if truncated and reading.is_output:
            # The throttle counts each line with its newline; what it gets of this one counts that already.
            self._cut_at = offset + len(data) + 1

    def _count_cut(self, end: int, now: float) -> None:
        if self._cut_at is not None:
            self._throttle.drop(max(0, end - self._cut_at), self._log.offset_of(self._stream, self._cut_at), now)
            self._cut_at = None

    def _arm(self) -> None:
        due = self._throttle.next_due()
        if due is not None and self._timer is None:
            self._timer = self._loop.call_at(due, self._on_due)

    def _on_due(self) -> None:
        self._timer = None
        for body in self._throttle.due(self._loop.time()):
            self._emit(body)
        self._arm()


class TurnOutput:
    """Both streams of one turn and their log."""

    def __init__(
        self,
        reader: TurnReader,
        log: TurnLog,
        emit: Emit,
        on_activity: Callable[[], None],
        redactor: Redactor,
        on_line: OnLine | None = None,
    ) -> None:
        self._log = log
        self._emit = emit
        self._out = StreamPath("stdout", reader, log, emit, redactor, on_activity, on_line)
        self._err = StreamPath("stderr", reader, log, emit, redactor, on_activity)
        self._early: list[tuple[StreamPath, bytes]] | None = []
        self._told_full = False

    def begin(self) -> None:
        """The turn's start is told: what came before, and all that comes, is read."""
        early, self._early = self._early or [], None
        for path, chunk in early:
            self._feed(path, chunk)

    def stdout(self, chunk: bytes) -> None:
        self._feed(self._out, chunk)

    def stderr(self, chunk: bytes) -> None:
        self._feed(self._err, chunk)

    def _feed(self, path: StreamPath, chunk: bytes) -> None:
        if self._early is not None:
            # The agent may write before we have heard that it runs; no event of a turn comes before its start.
            self._early.append((path, chunk))
            return
        path.feed(chunk)
        self._tell_lost()

    @property
    def size(self) -> int:
        """Bytes in the log."""
        return self._log.size

    def finish(self) -> None:
        """Both streams have ended."""
        self.begin()
        self._out.finish()
        self._err.finish()
        self._log.close()

    def _tell_lost(self) -> None:
        if self._log.lost_bytes and not self._told_full:
            self._told_full = True
            self._emit(
                WarningRaised(
                    code="turn_log_incomplete",
                    message=f"the turn's output can't be written to {self._log.path}: disk full?",
                )
            )

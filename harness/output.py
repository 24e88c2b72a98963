"""From an agent's bytes to what a reader is shown: whole lines, then a bounded sample of them as events. Pure.

Time is passed in. The whole output is in the turn's log on disk: nothing here slows the agent down, and nothing grows
with its output.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import accumulate, repeat
from typing import NamedTuple

from cody.contracts.run_events import (
    OUTPUT_EVENTS_PER_SECOND,
    OUTPUT_TEXT_MAX_BYTES,
    OutputDropped,
    RunEventBody,
    Stream,
    SubprocessOutput,
)

MAX_LINE_BYTES = 4 * 1024 * 1024
"""Longest line that arrives whole: codex 0.169.0 caps a command's output at 1 MiB, and JSON escapes make it longer."""
TRUNCATED_LINE_BYTES = 64 * 1024
"""What is kept of a line beyond that: enough to tell what it was."""


class Line(NamedTuple):
    """One line, without its newline and without one carriage return before it.

    A tuple, not a frozen dataclass: it is built for each line of output, and costs a fifth of one.
    """

    data: bytes
    offset: int
    """Where its first byte is in the stream."""
    truncated: bool = False
    """True: only its begin is here; the rest, up to the next line's offset, is skipped."""


_ALWAYS = float("-inf")
_NEVER = float("inf")

_as_line = partial(tuple.__new__, Line)


class LineSplitter:
    """Chunks in, lines out; holds at most `max_line_bytes` and a chunk, whatever comes.

    A longer line is given once, cut, as soon as it is known to be too long (else an endless one would never be seen);
    what follows is skipped up to its newline, so that the next line is whole again.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES, kept_bytes: int = TRUNCATED_LINE_BYTES) -> None:
        self.position = 0
        """Bytes fed so far."""
        self._max = max_line_bytes
        self._kept = min(kept_bytes, max_line_bytes)
        self._held = bytearray()  # not a list of chunks: a line that comes byte by byte would cost 40 times its size
        self._held_at = 0
        self._skipping = False

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that this chunk completes, and one that it makes too long."""
        start = self.position
        self.position += len(chunk)
        first = chunk.find(b"\n")
        if first < 0:
            return self._hold(chunk, start)
        lines: list[Line] = []
        begin = 0
        if self._skipping:
            self._skipping = False
            begin = first + 1
        elif self._held:
            lines = self._hold(chunk[:first], start) or [self._release()]
            self._skipping = False
            begin = first + 1
        last = chunk.rfind(b"\n") + 1
        if begin < last:
            lines += self._whole(chunk[begin : last - 1], start + begin)
        return lines + self._hold(chunk[last:], start + last) if last < len(chunk) else lines

    def flush(self) -> list[Line]:
        """At the end of the stream: the last line, if it has no newline."""
        self._skipping = False
        return [self._release()] if self._held else []

    def _whole(self, text: bytes, start: int) -> list[Line]:
        """Lines between newlines; `text` holds no part of another line."""
        parts = text.split(b"\n")
        offsets = accumulate(map((1).__add__, map(len, parts)), initial=start)
        if b"\r" in text:
            parts = [part[:-1] if part.endswith(b"\r") else part for part in parts]
        if len(text) <= self._max:
            return list(map(_as_line, zip(parts, offsets, repeat(False))))
        return [self._cut(part, offset) for part, offset in zip(text.split(b"\n"), offsets, strict=False)]

    def _cut(self, part: bytes, offset: int) -> Line:
        if len(part) > self._max:
            return Line(part[: self._kept], offset, truncated=True)
        return Line(part.removesuffix(b"\r"), offset)

    def _hold(self, part: bytes, start: int) -> list[Line]:
        """Keep the begin of a line; or, once it is too long, give it cut and skip the rest."""
        if self._skipping:
            return []
        if not self._held:
            self._held_at = start
        if len(self._held) + len(part) <= self._max:
            self._held += part
            return []
        self._held += part[: self._kept]
        line = Line(bytes(self._held[: self._kept]), self._held_at, truncated=True)
        self._held = bytearray()
        self._skipping = True
        return [line]

    def _release(self) -> Line:
        line = Line(bytes(self._held).removesuffix(b"\r"), self._held_at)
        self._held = bytearray()
        return line


class _Piece(NamedTuple):
    text: bytes
    """Valid UTF-8, with the newline if the line ends here."""
    fed_bytes: int
    offset: int


class OutputThrottle:
    """Decides which of a stream's lines are shown as events, and counts the others.

    Limits: `events_per_second` in any second, one of them kept back for `finish`, so that the last words of an agent
    that dies in a flood are seen; `text_max_bytes` of UTF-8 in each. The first line after a silence is shown at once.
    Lines that follow are joined by newlines, and shown when an event is full or the pace allows the next one: output
    slower than about 18 KiB/s is shown whole. Beyond that, of the lines that wait the oldest give way to the newest.

    A text has no newline at its end. A line longer than an event is shown in several, cut between characters. Bytes
    that are no UTF-8 are shown as U+FFFD. In counts, a line is its bytes plus one for its newline: each byte given to
    `add` is either in an event's text or in an OutputDropped. Offsets are the caller's own: given back as they came.
    """

    def __init__(
        self,
        stream: Stream,
        events_per_second: int = OUTPUT_EVENTS_PER_SECOND,
        text_max_bytes: int = OUTPUT_TEXT_MAX_BYTES,
    ) -> None:
        self._stream = stream
        self._max_text = text_max_bytes
        self._usual_limit = max(events_per_second - 1, 1)
        self._shown_at: deque[float] = deque(maxlen=events_per_second)
        self._waiting: deque[_Piece] = deque()
        self._waiting_bytes = 0
        self._room_at = _ALWAYS
        """From when on a full event may be shown."""
        self._show_at = _ALWAYS
        """From when on an event that is not full may be shown."""
        self._dropped_bytes = 0
        self._dropped_from = 0
        self._tell_at = _NEVER

    def add(self, line: bytes, log_offset: int, now: float) -> list[RunEventBody]:
        """Take a line without its newline, at `now` seconds of a clock that never goes back; what is shown by it."""
        events: list[RunEventBody] = []
        for piece in _pieces(line, log_offset, self._max_text):
            text = piece[0]
            # The newline at an event's end is not shown, so it needs no room.
            room = self._max_text - len(text) + text.endswith(b"\n")
            if self._waiting_bytes > room:
                if now >= self._room_at:
                    events.append(self._show(now))
                while self._waiting_bytes > room:
                    self._drop_oldest(now)
            self._waiting.append(piece)
            self._waiting_bytes += len(text)
        if now >= self._show_at or now >= self._tell_at:
            events += self.due(now)
        return events

    def drop(self, count: int, log_offset: int, now: float) -> None:
        """Count bytes that will never be given to `add`: the rest of a line that the splitter cut."""
        if not self._dropped_bytes:
            self._dropped_from = log_offset
            self._tell_at = now + 1.0
        self._dropped_bytes += count

    def due(self, now: float) -> list[RunEventBody]:
        """What has waited long enough."""
        events: list[RunEventBody] = [self._tell_dropped()] if now >= self._tell_at else []
        if self._waiting and now >= self._show_at:
            events.append(self._show(now))
        return events

    def next_due(self) -> float | None:
        """When to call `due`; None: not before the next `add`."""
        earliest = min(self._tell_at, self._show_at if self._waiting else _NEVER)
        return None if earliest == _NEVER else earliest

    def finish(self, now: float) -> list[RunEventBody]:
        """At the stream's end: all that is left, shown or counted."""
        full = len(self._shown_at) == self._shown_at.maxlen and now < self._shown_at[0] + 1.0
        while full and self._waiting:
            self._drop_oldest(now)
        events: list[RunEventBody] = [self._tell_dropped()] if self._dropped_bytes else []
        return [*events, self._show(now)] if self._waiting else events

    def _show(self, now: float) -> SubprocessOutput:
        text = b"".join([piece.text for piece in self._waiting]).removesuffix(b"\n")
        self._waiting.clear()
        self._waiting_bytes = 0
        self._shown_at.append(now)
        if len(self._shown_at) >= self._usual_limit:
            self._room_at = self._shown_at[-self._usual_limit] + 1.0
        self._show_at = max(now + 1.0 / self._usual_limit, self._room_at)
        return SubprocessOutput(stream=self._stream, text=text.decode())

    def _drop_oldest(self, now: float) -> None:
        text, fed_bytes, offset = self._waiting.popleft()
        self._waiting_bytes -= len(text)
        self.drop(fed_bytes, offset, now)

    def _tell_dropped(self) -> OutputDropped:
        told = OutputDropped(stream=self._stream, bytes=self._dropped_bytes, log_offset=self._dropped_from)
        self._dropped_bytes = 0
        self._tell_at = _NEVER
        return told


def _pieces(line: bytes, offset: int, max_text: int) -> Iterable[_Piece]:
    """The line in parts whose text fits into an event."""
    if len(line) <= max_text and line.isascii():
        return (_Piece(line + b"\n", len(line) + 1, offset),)
    return _cut_pieces(line, offset, max_text)


def _cut_pieces(line: bytes, offset: int, max_text: int) -> Iterator[_Piece]:
    begin = 0
    while True:
        end = _boundary(line, begin + max_text)
        text = _valid(line[begin:end])
        if len(text) > max_text:
            # Each invalid byte becomes three.
            end = _boundary(line, begin + max_text // 3)
            text = _valid(line[begin:end])
        if end == len(line):
            yield _Piece(text + b"\n", end - begin + 1, offset + begin)
            return
        yield _Piece(text, end - begin, offset + begin)
        begin = end


def _boundary(line: bytes, end: int) -> int:
    """The last place up to `end` that cuts no UTF-8 character; `end` itself where there is no character to cut."""
    if end >= len(line):
        return len(line)
    for back in range(4):
        if line[end - back] & 0xC0 != 0x80:
            return end - back
    return end


def _valid(text: bytes) -> bytes:
    if text.isascii():
        return text
    return text.decode(errors="replace").encode()

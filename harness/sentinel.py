"""Events that an agent, or a script it runs, tells by printing a line: one JSON object with the key `__cody_event__`.

Rules:
1. A known type (cody.contracts.telemetry) becomes its event. Nothing else does: `run_completed`, `completion_detected`,
   `turn_*`, a dotted or an unknown type become Custom, which is kept and has no power.
2. What is malformed is no event: it stays the plain output that it is.
3. The work is bounded by the input's size, whatever the input is.
"""

from __future__ import annotations

import re
from typing import Any

import orjson
from pydantic import ValidationError

from cody.contracts.run_events import Custom, RunEventBody
from cody.contracts.telemetry import SENTINEL_KEY, TELEMETRY_TYPES, read_telemetry

MAX_SENTINEL_BYTES = 64 * 1024
"""Longest sentinel line: room for a Custom of 16 KiB with characters escaped; an agent's own lines are far longer."""
MAX_CUSTOM_BYTES = 16 * 1024
"""Largest `data` of a Custom, as compact JSON."""
MAX_NAME = 256
MAX_DEPTH = 32
"""Deepest nesting of a Custom's data: orjson refuses to write beyond 254, databases and browsers have limits too."""

_KEY = f'"{SENTINEL_KEY}"'.encode()
_START = re.compile(rb'\{[ \t]*"' + SENTINEL_KEY.encode() + rb'"[ \t]*:[ \t]*\{')
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+|[{}]')
"""A brace, or a string: also one never closed (else each escaped quote in it would be tried as a string's begin)."""
_BLANKS = b" \t\r\n"
_QUOTES = (b"'", b'"', b"`")
_GROWTH = 5
"""A value as compact JSON is at most so many times as long as the text it was read from: `1e15` is 1000000000000000.0."""
_WASTE_FACTOR = 4
"""How often a line is read in vain at most: one of openings that are never closed would be read once for each."""


def parse(line: bytes | memoryview) -> RunEventBody | None:
    """The event that a line of output tells; None where it is no sentinel, or a malformed one.

    The line has no newline; blanks and a carriage return around the object do not matter. A line that begins with
    anything but `{` or a blank costs one comparison.
    """
    if len(line) > MAX_SENTINEL_BYTES or not line or line[0] not in b"{ \t\r":
        return None
    text = bytes(line)
    if _KEY not in text:
        return None
    return _read(text)


def find_in_text(text: str) -> list[RunEventBody]:
    """The events in a command's whole output, in order.

    Here a sentinel may also begin in the middle of a line, or be followed by other text: a program that leaves out its
    newline glues its neighbour's output to its own. One in quotes (`print('{"__cody_event__": ...}')`) is source code.
    """
    if SENTINEL_KEY not in text:
        return []
    data = text.encode("utf-8", "surrogatepass")  # lone surrogates become bytes that orjson refuses: no event, no crash
    events: list[RunEventBody] = []
    at = data.find(_KEY)
    while at >= 0:
        start = data.rfind(b"\n", 0, at) + 1
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        events += _in_line(data[start:end])
        at = data.find(_KEY, end)
    return events


def _in_line(line: bytes) -> list[RunEventBody]:
    if line.lstrip(_BLANKS).startswith(b"{"):
        try:
            whole = orjson.loads(line)
        except orjson.JSONDecodeError:
            pass
        else:
            event = _event(whole, line) if len(line) <= MAX_SENTINEL_BYTES else None
            return [] if event is None else [event]
    events: list[RunEventBody] = []
    wasted, allowed = 0, _WASTE_FACTOR * len(line) + 1024
    start = _START.search(line)
    while start is not None and wasted <= allowed:
        at = start.start()
        end, closed = _object_end(line, at)
        if closed and not _quoted(line, at, end) and (event := _read(line[at:end])) is not None:
            events.append(event)
        if not closed:
            wasted += end - at
        # What broke off may have a whole one glued to it: go on just behind its brace.
        start = _START.search(line, end if closed else at + 1)
    return events


def _object_end(line: bytes, at: int) -> tuple[int, bool]:
    """Where the object that opens at `at` is closed, and True; or how far it was read in vain, and False."""
    limit = min(len(line), at + MAX_SENTINEL_BYTES)
    depth = 0
    for token in _TOKEN.finditer(line, at, limit):
        if token[0] == b"{":
            depth += 1
            if depth > MAX_DEPTH + 2:
                return token.end(), False
        elif token[0] == b"}":
            depth -= 1
            if depth == 0:
                return token.end(), True
    return limit, False


def _read(text: bytes) -> RunEventBody | None:
    try:
        return _event(orjson.loads(text), text)
    except orjson.JSONDecodeError:
        return None


def _quoted(line: bytes, at: int, end: int) -> bool:
    before = line[at - 1 : at] if at else b""
    return before in _QUOTES and line[end : end + 1] == before


def _event(value: object, text: bytes) -> RunEventBody | None:
    """The event of a line's value; `text`: what it was read from."""
    payload = value.get(SENTINEL_KEY) if isinstance(value, dict) else None
    if not isinstance(payload, dict):
        return None
    kind = payload.get("type")
    if not isinstance(kind, str) or not 0 < len(kind) <= MAX_NAME:
        return None
    if kind in TELEMETRY_TYPES:
        try:
            return read_telemetry(payload)
        except ValidationError:
            return None
    data: dict[str, Any] = {name: content for name, content in payload.items() if name != "type"}
    return Custom(name=kind, data=data) if _is_kept(data, text) else None


def _is_kept(data: dict[str, Any], text: bytes) -> bool:
    """Whether it is neither too deep nor too large; most lines are so short that neither need be looked for."""
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH and not _shallow(data, MAX_DEPTH):
        return False
    return len(text) * _GROWTH <= MAX_CUSTOM_BYTES or len(orjson.dumps(data)) <= MAX_CUSTOM_BYTES


def _shallow(value: object, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_shallow(content, depth - 1) for content in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_shallow(content, depth - 1) for content in value)
    return True

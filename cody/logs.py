"""Logs: one line an event, on stderr; stdout belongs to what a program answers.

A terminal gets `key=value` lines, anything else one JSON object a line. Records of the standard library's logging
(uvicorn, asyncio) leave by the same way. Tracebacks come without the values of variables, which may be secrets; what is
known as a secret is replaced in the finished line, wherever in it it stands. No value can begin a line of its own, or
steer a terminal.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from cody.redaction import Redactor
from cody.settings import LogLevel


class _Lines:
    """Writes finished lines. A reader of stderr that went away must not end a run: what it would have read is lost."""

    def __init__(self, stream: TextIO, redactor: Redactor) -> None:
        self._stream = stream
        self._redactor = redactor

    def msg(self, line: str) -> None:
        try:
            self._stream.write(self._redactor.clean_text(line) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = exception = fatal = log = msg


class _StandardHandler(logging.Handler):
    """Takes the records of the standard library's logging to the same lines."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.msg(self.format(record))


def _json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode("utf-8", "replace")


def _shown(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """For a terminal: no value with a character that would move its cursor or begin a line (JSON escapes them itself)."""
    for field, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[field] = value.encode("unicode_escape").decode("ascii")
    return event


def configure_logs(level: LogLevel = "info", *, stream: TextIO | None = None, redactor: Redactor | None = None) -> None:
    """From here on every log line of this process goes to `stream` (default: stderr), from this level up.

    What `redactor` knows as secrets is replaced in each of them.
    """
    target = sys.stderr if stream is None else stream
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    ]
    render: list[Processor]
    if target.isatty():
        render = [
            _shown,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback, timestamp_key="ts"),
        ]
    else:
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
    lines = _Lines(target, redactor or Redactor(()))
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    handler = _StandardHandler(lines)
    without_record: Processor = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processors=[without_record, *render], foreign_pre_chain=shared)
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Libraries speak of their own doings at info: of use to no one who runs agents.
    root.setLevel(max(threshold, logging.WARNING))

"""A log of an epic as it is now, on the wire."""

from __future__ import annotations

from typing import Literal

from cody.contracts.wire import Int, Wire

LogName = Literal["codys-log.md", "decision-log.md"]


class EpicLog(Wire):
    """The text of a log file without secrets: all of it, or its end from the start of a line on."""

    run_id: str
    name: LogName
    path: str
    """On the server's host."""
    text: str
    size: Int
    """Bytes of the file."""
    omitted_bytes: Int
    """Of its beginning, which are not in `text`."""

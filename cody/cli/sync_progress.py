"""The progress of a push on stderr: a bar on a terminal, nothing but outages anywhere else."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cody.cli.amounts import size
from cody.cli.terminal import stderr_console
from cody.cli.untrusted import safe
from cody.pipeline.transfer import Record
from cody.sync.contracts import JobSnapshot

NAME_PART = 3
"""A name takes at most this part of the line: the figures are what is looked at."""
MIN_NAME = 8


class Bar:
    """How much of the record is on the other side, and then how much of it is in its place."""

    def __init__(self, what: str) -> None:
        self._console = stderr_console()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        name = _shortened(safe(what), max(MIN_NAME, self._console.width // NAME_PART - len("sending ")))
        self._task: TaskID = self._bar.add_task(f"sending {name}", total=None)
        self._size: int | None = None
        self._sent = 0
        self._is_lost = False
        self._is_applied = False

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind in (asyncio.CancelledError, KeyboardInterrupt) and self._size is not None and not self._is_applied:
            told = f"stopped with {size(self._sent)} of {size(self._size)} sent: give the same command again to go on"
            self._console.print(told, soft_wrap=True)

    def sent(self, record: Record, acknowledged_bytes: int) -> None:
        self._size, self._sent = record.size, acknowledged_bytes
        self._bar.update(self._task, total=record.size, completed=acknowledged_bytes)

    def applied(self, job: JobSnapshot) -> None:
        if not self._is_applied:
            self._is_applied = True
            self._bar.reset(self._task, description="checked there", total=self._size)
        self._bar.update(self._task, completed=job.last_cursor)

    def lost(self, reason: str | None) -> None:
        """Say once that the server does not answer, and once that it does again."""
        if (reason is not None) == self._is_lost:
            return
        self._is_lost = reason is not None
        self._console.print(f"waiting: {safe(reason)}" if reason else "it answers again", style="dim", soft_wrap=True)


def _shortened(name: str, width: int) -> str:
    """Its beginning and its end: a run is known by the one, a file by the other."""
    if len(name) <= width:
        return name
    head = (width - 1) // 2
    return f"{name[:head]}\u2026{name[head + 1 - width :]}"

"""Who changed what, when, from where: one line a mutation, in the state folder (0600), kept in two files of a bounded size."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Any

from starlette.types import Scope
from structlog import get_logger

from cody.contracts.audit import AuditEntry

log = get_logger()

MAX_BYTES = 16 << 20


class AuditLog:
    """Appends; the older half is in `audit.jsonl.1`."""

    def __init__(self, state_dir: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = state_dir / "audit.jsonl"
        self._old = state_dir / "audit.jsonl.1"
        self._max_bytes = max_bytes

    def add(self, entry: AuditEntry) -> None:
        """Write the entry; a full disk is logged and does not undo what was done."""
        line = entry.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n"
        try:
            if self._path.exists() and self._path.stat().st_size + len(line) > self._max_bytes:
                os.replace(self._path, self._old)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(self._path, flags, 0o600)
            try:
                os.write(fd, line)
            finally:
                os.close(fd)
        except OSError as error:
            log.error("audit.not_written", error=str(error), action=entry.action, who=entry.who)

    def newest(self, limit: int) -> list[AuditEntry]:
        """The latest entries, newest first; lines that can't be read are left out."""
        lines: deque[bytes] = deque(maxlen=limit)
        for path in (self._old, self._path):
            try:
                with path.open("rb") as file:
                    lines.extend(file)
            except FileNotFoundError:
                continue
        found: list[AuditEntry] = []
        for line in reversed(lines):
            try:
                found.append(AuditEntry.model_validate_json(line))
            except ValueError:
                continue
        return found


def source_of(scope: Scope) -> str:
    """Where the request came from: the peer's address."""
    client: Any = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else "unknown"

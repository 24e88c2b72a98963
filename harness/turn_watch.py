"""What a turn does to files: events of the workspace and of the two logs, live and settled at the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from cody.contracts.run_config import WatchConfig
from cody.contracts.run_events import FileDeleted, FileWritten, LogUpdated, TurnItem, WarningRaised
from harness.agents.base import Body
from harness.epic import Epic
from harness.kept_files import KeptFiles
from harness.log_diff import LogTail
from harness.patches import Patches
from harness.workspace import FileChange, WorkspaceLedger, WorkspaceWatch, scan

Emit = Callable[[Body], None]


class TurnWatch:
    """Watches from `start` to `settle`; what the notifications lose or what is written at the very end is found by a scan."""

    def __init__(
        self,
        epic: Epic,
        watch: WatchConfig,
        emit: Emit,
        on_activity: Callable[[], None],
        clean: Callable[[str], str] | None = None,
    ) -> None:
        """`clean` takes secrets out of text; None: the agent's patches get no diffs, and no file's content is read."""
        self._kept = None if clean is None else KeptFiles(epic.working_dir)
        self._patches = None if clean is None or self._kept is None else Patches(self._kept, clean)
        self._root = epic.working_dir
        self._watch = watch
        self._harness_dir = epic.harness_dir.relative_to(epic.working_dir).as_posix()
        self._logs = [epic.codys_log, epic.decision_log]
        self._emit = emit
        self._on_activity = on_activity
        self._stack = AsyncExitStack()
        self._ledger: WorkspaceLedger | None = None
        self._tails: list[LogTail] = []
        self._early: list[FileChange] = []

    async def start(self) -> None:
        """Know the workspace as it is; from here on nothing is missed."""
        self._tails = await asyncio.to_thread(lambda: [LogTail(path) for path in self._logs])
        watching = WorkspaceWatch(self._root, self._watch, self._changed, harness_dir=self._harness_dir)
        await self._stack.enter_async_context(watching)
        before = await asyncio.to_thread(scan, self._root, self._watch, harness_dir=self._harness_dir)
        self._ledger = WorkspaceLedger(self._root, self._watch, before, harness_dir=self._harness_dir)
        if self._kept is not None:
            self._kept.load(before)
        if watching.degraded:
            self._emit(WarningRaised(code="workspace_watch_degraded", message=watching.degraded))
        if before.truncated:
            message = f"{self._root} has more files than are compared: some file events may be missing"
            self._emit(WarningRaised(code="workspace_too_large", message=message))

    def by_agent(self, body: FileWritten | FileDeleted) -> None:
        """The agent reported this change itself: it is not told again when the watch sees it."""
        if self._ledger is not None:
            self._ledger.note_agent_change(body.path)

    def with_diff(self, body: Body) -> Body:
        """The event; what came of a patch has the patch's diff with it (see `Patches.told`)."""
        if self._patches is None or not isinstance(body, TurnItem):
            return body
        return body.model_copy(update={"item": self._patches.told(body.item)})

    async def settle(self) -> None:
        """The turn has ended: tell what nobody told yet, and watch no longer."""
        await self._stack.aclose()
        if self._ledger is None:
            return
        after = await asyncio.to_thread(scan, self._root, self._watch, harness_dir=self._harness_dir)
        self._tell(self._ledger.settle(after))
        await asyncio.to_thread(self._poll_logs_into, found := list[LogUpdated]())
        for body in found:
            self._emit(body)

    async def stop(self) -> None:
        """Watch no longer; repeating it is harmless."""
        await self._stack.aclose()
        if self._kept is not None:
            await self._kept.aclose()

    def _changed(self, changes: list[FileChange]) -> None:
        self._on_activity()
        if self._ledger is None:
            # Between the watch's start and the first scan: the agent does not run yet.
            return
        if self._kept is not None:
            self._kept.noticed(changes)
        self._tell(self._ledger.live(changes))
        log_paths = {os.path.relpath(path, self._root) for path in self._logs}
        if any(change.path in log_paths for change in changes):
            self._poll_logs()

    def _tell(self, changes: Sequence[FileChange]) -> None:
        for change in changes:
            if change.kind == "written":
                self._emit(FileWritten(path=change.path, source="watch"))
            else:
                self._emit(FileDeleted(path=change.path, source="watch"))

    def _poll_logs(self) -> None:
        self._poll_logs_into(found := list[LogUpdated]())
        for body in found:
            self._emit(body)

    def _poll_logs_into(self, found: list[LogUpdated]) -> None:
        for tail in self._tails:
            change = tail.poll()
            if change is not None and change.appended_bytes:
                found.append(
                    LogUpdated(
                        log="codys-log.md" if tail.path.name == "codys-log.md" else "decision-log.md",
                        path=self._shown(tail.path),
                        appended_bytes=change.appended_bytes,
                        tail=change.tail,
                    )
                )

    def _shown(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

"""Live file events of a workspace, from the system's own file notifications.

Folders are watched one by one (`recursive=False`), not by the library's recursion: with notify 8 (watchfiles 1.3) that
follows links out of the workspace, cannot leave out node_modules, and misses the files that are put into a new folder
before its watch is there.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import structlog

# The library's documented way to its Rust side; `watchfiles.awatch` would hold one of anyio's 40 threads for each run.
from watchfiles import Change
from watchfiles._rust_notify import RustNotify

from cody.contracts.run_config import WatchConfig
from harness.snapshot import (
    FileChange,
    PathFilter,
    Signature,
    Snapshot,
    Walk,
    WorkspaceLedger,
    clean_path,
    diff,
    files_of,
    scan,
    signature_of,
)

__all__ = ["FileChange", "PathFilter", "Snapshot", "WorkspaceLedger", "WorkspaceWatch", "diff", "scan"]

log = structlog.get_logger(__name__)

POLL_S = 0.1
"""Between two looks at the notifications; bounds how late a change is seen, and how fast the watch is closed."""
SCAN_S = 2.0
"""Between two scans where notifications are not to be had."""
MAX_FOLDERS = 8_000
"""Watched at most: adding one costs 18 us with the interpreter's lock held, and the system's own limit may be 8,192."""
MAX_ARMS = 4
MAX_TRIES = 20
"""Of watching folders that come and go faster than they can be watched."""


class _Notifications:
    """The system's notifications for a set of folders, to which folders can be added.

    The library takes its folders once. New folders get an instance ("arm") of their own; when there are MAX_ARMS, all
    but the first, big one are joined, so that a new folder never costs a new watch of the whole workspace.
    """

    def __init__(self) -> None:
        self._arms: list[tuple[RustNotify, list[str]]] = []

    def add(self, folders: list[str]) -> None:
        """Raises FileNotFoundError or PermissionError for one of them, another OSError or RuntimeError at a limit."""
        joined: list[tuple[RustNotify, list[str]]] = []
        if len(self._arms) >= MAX_ARMS:
            joined = self._arms[1:]
            others = {folder for _, group in joined for folder in group}.difference(folders)
            folders = [*(folder for folder in others if os.access(folder, os.R_OK)), *folders]
        # The last argument, to ignore missing permissions, also ignores the system's limit of watches: not that.
        arm = RustNotify(folders, False, False, 0, False, False)
        for old, _ in joined:
            old.close()
        self._arms = [*self._arms[: len(self._arms) - len(joined)], (arm, folders)]

    def taken(self) -> set[tuple[int, str]]:
        """What was notified since the last call, as (watchfiles.Change, absolute path)."""
        changes: set[tuple[int, str]] = set()
        for arm, _ in self._arms:
            answer = arm.watch(1, 1, 1, None)
            if isinstance(answer, set):
                changes |= answer
        return changes

    def close(self) -> None:
        for arm, _ in self._arms:
            arm.close()


class WorkspaceWatch:
    """`async with WorkspaceWatch(...)`: calls `on_change` in the event loop with what changed, in batches.

    The changes are raw: a `WorkspaceLedger` tells which are news. From the entry on nothing is missed but what the
    system loses (a burst of more than its queue holds; network file systems), which the scan at the turn's end finds.
    Holds one thread. `degraded` says why events are late or incomplete; None = they are neither.
    """

    def __init__(
        self,
        root: Path,
        watch: WatchConfig,
        on_change: Callable[[list[FileChange]], None],
        *,
        harness_dir: str = ".cody-harness",
    ) -> None:
        self.root = Path(os.path.realpath(root))
        self.degraded: str | None = None
        self._watch = watch
        self._harness_dir = harness_dir
        self._paths = PathFilter(watch, harness_dir)
        self._on_change = on_change
        self._closing = threading.Event()
        self._ready, self._ended = asyncio.Event(), asyncio.Event()
        self._lock = threading.Lock()
        self._pending: dict[str, Signature | None] = {}
        self._watched: set[str] = set()

    async def __aenter__(self) -> WorkspaceWatch:
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, name=f"workspace-watch {self.root.name}", daemon=True).start()
        try:
            await self._ready.wait()
        except BaseException:
            self._closing.set()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        await self._ended.wait()

    def _run(self) -> None:
        """The thread. Whatever goes wrong in it costs live events, never the run: the turn's end scans anyway."""
        try:
            try:
                self._follow()
            except (OSError, RuntimeError) as error:
                # The library has no class for "no more inotify instances": it is a RuntimeError.
                self.degraded = f"no file notifications ({error}): the workspace is scanned every {SCAN_S:g} s instead"
                log.warning("workspace.notifications_unavailable", root=str(self.root), error=str(error))
                self._scan_repeatedly()
        except Exception:
            self.degraded = "the watch of the workspace failed: changes are found at the turn's end"
            log.exception("workspace.watch_failed", root=str(self.root))
        finally:
            self._tell(self._ready.set)
            self._tell(self._ended.set)

    def _follow(self) -> None:
        notifications = _Notifications()
        try:
            self._take_up(notifications, "")
            self._tell(self._ready.set)
            while not self._closing.wait(POLL_S):
                self._look_at(notifications, notifications.taken())
        finally:
            notifications.close()

    def _scan_repeatedly(self) -> None:
        # The first scan is handed over whole: what was notified last, before the notifications failed, is among it.
        before = Snapshot({}, truncated=False, taken_ns=0)
        self._tell(self._ready.set)
        while True:
            after = scan(self.root, self._watch, harness_dir=self._harness_dir)
            self._deliver({change.path: change.signature for change in diff(before, after)})
            before = after
            if self._closing.wait(SCAN_S):
                return

    def _look_at(self, notifications: _Notifications, raw: set[tuple[int, str]]) -> None:
        found: dict[str, Signature | None] = {}
        for change, absolute in raw:
            path = clean_path(absolute.removeprefix(f"{self.root}/"))
            try:
                status = os.lstat(absolute)
            except OSError:
                found |= self._gone(path)
                continue
            signature = signature_of(status)
            if signature is not None:
                if self._paths.wanted(path):
                    found[path] = signature
            elif stat.S_ISDIR(status.st_mode) and not self._paths.pruned(path) and self._is_new(change, path):
                self._unwatch(path)
                found |= dict(files_of(self._take_up(notifications, path)))
        self._deliver(found)

    def _is_new(self, change: int, folder: str) -> bool:
        """Also of a folder that is known, when it was removed and made again: its watch went with it."""
        return change == Change.added or folder not in self._watched

    def _gone(self, path: str) -> dict[str, Signature | None]:
        """It may have been a folder, to which `include` does not apply: the ledger knows what was in it."""
        if path in self._watched:
            self._unwatch(path)
        return {} if self._paths.pruned(path) else {path: None}

    def _unwatch(self, folder: str) -> None:
        below = f"{folder}/"
        self._watched = {path for path in self._watched if path != folder and not path.startswith(below)}

    def _take_up(self, notifications: _Notifications, start: str) -> list[tuple[str, os.DirEntry[str]]]:
        """Watch the folder `start` and all below it; gives the files that were there when the last watch stood."""
        for _ in range(MAX_TRIES):
            walk = Walk(self.root, self._paths)
            entries = list(walk.entries(start))
            if not entries and not start:
                raise FileNotFoundError(errno.ENOENT, "not a folder that can be read", str(self.root))
            files = [(path, entry) for path, entry in entries if entry is not None]
            # A name that is no UTF-8 cannot be handed to the library.
            folders = [path for path, entry in entries if entry is None and "\ufffd" not in path]
            missing = [path for path in folders if path not in self._watched]
            room = MAX_FOLDERS - len(self._watched)
            if walk.left <= 0 or len(missing) > room:
                self.degraded = "the workspace is too big to be watched whole: some changes are found at the turn's end"
            if not missing[:room] or self._closing.is_set():
                return files
            try:
                notifications.add([str(self.root / path) for path in missing[:room]])
            except (FileNotFoundError, PermissionError):
                # One of them went away, or was closed, since the walk.
                continue
            self._watched.update(missing[:room])
        self.degraded = "folders come and go too fast to be watched: some changes are found at the turn's end"
        return []

    def _deliver(self, found: dict[str, Signature | None]) -> None:
        """Hand changes to the event loop; while it is busy they add up by path, which bounds them."""
        if not found:
            return
        with self._lock:
            waiting = bool(self._pending)
            self._pending |= found
        if not waiting:
            self._tell(self._hand_over)

    def _hand_over(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, {}
        if not self._closing.is_set():
            self._on_change([FileChange(path, signature) for path, signature in sorted(pending.items())])

    def _tell(self, callback: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            # The loop was closed without waiting for us; nobody is there to be told.
            self._closing.set()

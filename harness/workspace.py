"""Live file events of a workspace, from the system's own file notifications.

Folders are watched one by one: a recursion by the library (watchfiles 1.3 with notify 8) follows links out of the workspace,
cannot leave out node_modules, and misses the files that are put into a new folder before its watch is there.
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
from watchfiles import Change

from cody.contracts.run_config import WatchConfig
from harness.notifications import Notifications, Raw, Watcher, notifications
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

SCAN_S = 2.0
"""Between two scans where notifications are not to be had."""
MAX_FOLDERS = 8_000
"""Watched at most, of one workspace: the system's own limit may be 8,192."""
MAX_TRIES = 20
"""Of watching folders that come and go faster than they can be watched."""


class WorkspaceWatch:
    """`async with WorkspaceWatch(...)`: calls `on_change` in the event loop with what changed, in batches.

    The changes are raw: a `WorkspaceLedger` tells which are news. From the entry on nothing is missed but what the
    system loses (network file systems), which the scan at the turn's end finds. All watches of a process share one
    thread. `degraded` says why events are late or incomplete, and then there is a thread that scans; None = neither.
    """

    def __init__(
        self,
        root: Path,
        watch: WatchConfig,
        on_change: Callable[[list[FileChange]], None],
        *,
        harness_dir: str = ".cody-harness",
        source: Callable[[Watcher], Notifications] = notifications,
    ) -> None:
        self.root = Path(os.path.realpath(root))
        self.degraded: str | None = None
        self._watch = watch
        self._harness_dir = harness_dir
        self._paths = PathFilter(watch, harness_dir)
        self._on_change = on_change
        self._source = source
        self._notifications: Notifications | None = None
        self._closing = threading.Event()
        self._scanner: threading.Thread | None = None
        self._lock = threading.Lock()
        self._pending: dict[str, Signature | None] = {}
        self._watched: set[str] = set()

    async def __aenter__(self) -> WorkspaceWatch:
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._begin)
        except BaseException:
            self._closing.set()
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._close()
        if self._scanner is not None:
            await asyncio.to_thread(self._scanner.join)

    def _close(self) -> None:
        if self._notifications is not None:
            self._notifications.close()

    def _begin(self) -> None:
        try:
            self._notifications = self._source(self)
            self._take_up("")
            self._notifications.begin()
        except (OSError, RuntimeError) as error:
            # watchfiles has no class for "no more inotify instances": it is a RuntimeError.
            self.unnotified(error)
        if self._closing.is_set():  # while we walked, the owner was cancelled
            self._close()

    def notified(self, raw: Raw | None) -> None:
        """Whatever goes wrong here costs live events, never the run: the turn's end scans anyway."""
        try:
            if raw is None:
                self._deliver(dict(files_of(self._take_up(""))))
            else:
                self._look_at(raw)
        except (OSError, RuntimeError) as error:
            self.unnotified(error)
        except Exception:
            self.degraded = "the watch of the workspace failed: changes are found at the turn's end"
            log.exception("workspace.watch_failed", root=str(self.root))

    def unnotified(self, error: Exception) -> None:
        """No notifications (any more): look again and again."""
        self._close()
        with self._lock:
            if self._closing.is_set() or self._scanner is not None:
                return
            self.degraded = f"no file notifications ({error}): the workspace is scanned every {SCAN_S:g} s instead"
            self._scanner = threading.Thread(target=self._scan_repeatedly, name="workspace-watch scan", daemon=True)
            self._scanner.start()
        log.warning("workspace.notifications_unavailable", root=str(self.root), error=str(error))

    def _scan_repeatedly(self) -> None:
        # The first scan is handed over whole: what was notified last, before the notifications failed, is among it.
        before = Snapshot({}, truncated=False, taken_ns=0)
        while True:
            after = scan(self.root, self._watch, harness_dir=self._harness_dir)
            self._deliver({change.path: change.signature for change in diff(before, after)})
            before = after
            if self._closing.wait(SCAN_S):
                return

    def _look_at(self, raw: Raw) -> None:
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
                found |= dict(files_of(self._take_up(path)))
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
        gone = {path for path in self._watched if path == folder or path.startswith(below)}
        self._watched -= gone
        self._notified.forget(map(self._absolute, gone))

    @property
    def _notified(self) -> Notifications:
        assert self._notifications is not None
        return self._notifications

    def _absolute(self, folder: str) -> str:
        return f"{self.root}/{folder}" if folder else str(self.root)

    def _take_up(self, start: str) -> list[tuple[str, os.DirEntry[str]]]:
        """Watch the folder `start` and all below it; gives the files that were there when the last watch stood."""
        for _ in range(MAX_TRIES):
            walk = Walk(self.root, self._paths)
            entries = list(walk.entries(start))
            if not entries and not start:
                raise FileNotFoundError(errno.ENOENT, "not a folder that can be read", str(self.root))
            files = [(path, entry) for path, entry in entries if entry is not None]
            folders = [path for path, entry in entries if entry is None]
            if any("\ufffd" in path for path in folders):
                raise OSError(errno.EILSEQ, "a folder's name is no UTF-8", str(self.root))
            missing = [path for path in folders if path not in self._watched]
            room = MAX_FOLDERS - len(self._watched)
            if walk.left <= 0 or len(missing) > room:
                self.degraded = "the workspace is too big to be watched whole: some changes are found at the turn's end"
            if not missing[:room] or self._closing.is_set():
                return files
            try:
                self._notified.add([self._absolute(path) for path in missing[:room]])
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

"""File notifications for the folders of many workspaces: one inotify instance and one thread for all of a process.

Where there is no inotify, each workspace has a thread with watchfiles (see `PolledNotifications`).
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterable
from typing import Protocol

# The library's documented way to its Rust side; `watchfiles.awatch` would hold one of anyio's 40 threads for each run.
from watchfiles import Change
from watchfiles._rust_notify import RustNotify

from harness import inotify
from harness.inotify import Inotify

GATHER_S = 0.1
"""From a notification on, for those that follow it; bounds how late a change is seen, and how often one is looked at."""
MAX_ARMS = 4

Raw = set[tuple[int, str]]
"""(watchfiles.Change, absolute path)"""


class Watcher(Protocol):
    """Whom to tell, on a thread of the notifications."""

    def notified(self, raw: Raw | None) -> None:
        """What happened; None = some notifications were lost. Must not raise."""
        ...

    def unnotified(self, error: Exception) -> None:
        """There will be no notifications any more."""
        ...


class Notifications(Protocol):
    """Of the folders that were added. Nothing is told before `begin`, and nothing is lost till then."""

    def add(self, folders: list[str]) -> None:
        """Raises FileNotFoundError or PermissionError for one of them, another OSError or RuntimeError at a limit."""
        ...

    def forget(self, folders: Iterable[str]) -> None:
        """These are gone, or somewhere else."""
        ...

    def begin(self) -> None: ...

    def close(self) -> None:
        """May be called on any thread; one last call of the watcher may be on its way."""
        ...


def notifications(watcher: Watcher) -> Notifications:
    """What this system has; raises OSError when there are none left."""
    return _SharedThread.join(watcher) if inotify.is_available() else PolledNotifications(watcher)


class _Shared:
    """One workspace's part of the shared instance."""

    def __init__(self, thread: _SharedThread, watcher: Watcher) -> None:
        self.watcher = watcher
        self.watches: dict[str, int] = {}
        self.waiting: Raw = set()
        self.lost = False
        self.begun = False
        self._thread = thread

    def add(self, folders: list[str]) -> None:
        for folder in folders:
            self._thread.add(self, folder)

    def forget(self, folders: Iterable[str]) -> None:
        for folder in folders:
            self._thread.forget(self, folder)

    def begin(self) -> None:
        self.begun = True
        self._thread.poke()

    def close(self) -> None:
        self._thread.leave(self)


class _SharedThread:
    """The instance and its thread; both are there as long as somebody watches."""

    _current: _SharedThread | None = None
    _joining = threading.Lock()

    def __init__(self) -> None:
        self._inotify = Inotify()
        self._poked = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        """Of the tables below: a folder is in them before its first notice is looked up."""
        self._parts: set[_Shared] = set()
        self._folders: dict[int, dict[_Shared, str]] = {}
        threading.Thread(target=self._run, name="workspace-watch", daemon=True).start()

    @classmethod
    def join(cls, watcher: Watcher) -> _Shared:
        with cls._joining:
            if cls._current is None:
                cls._current = cls()
            part = _Shared(cls._current, watcher)
            with cls._current._lock:
                cls._current._parts.add(part)
            return part

    def poke(self) -> None:
        with self._joining:
            if self._current is self:
                os.eventfd_write(self._poked, 1)

    def leave(self, part: _Shared) -> None:
        with self._lock:
            if part not in self._parts:
                return
            self._parts.discard(part)
            for folder in list(part.watches):
                self._remove(part, folder)
        self.poke()

    def add(self, part: _Shared, folder: str) -> None:
        with self._lock:
            if part not in self._parts:
                return
            watch = self._inotify.add(folder)
            self._folders.setdefault(watch, {})[part] = folder
            part.watches[folder] = watch

    def forget(self, part: _Shared, folder: str) -> None:
        with self._lock:
            self._remove(part, folder)

    def _remove(self, part: _Shared, folder: str) -> None:
        watch = part.watches.pop(folder, None)
        watching = self._folders.get(watch, {}) if watch is not None else {}
        # A folder that was moved has the same watch under its new name.
        if watch is not None and watching.get(part) == folder:
            del watching[part]
            if not watching:
                del self._folders[watch]
                self._inotify.remove(watch)

    def _run(self) -> None:
        try:
            poll = select.poll()
            poll.register(self._inotify.fd, select.POLLIN)
            poll.register(self._poked, select.POLLIN)
            while not self._is_over():
                ready = {fd for fd, _ in poll.poll()}
                if self._poked in ready:
                    os.eventfd_read(self._poked)
                if self._inotify.fd in ready:
                    time.sleep(GATHER_S)
                    self._sort()
                self._tell()
        except Exception as error:
            self._fail(error)

    def _is_over(self) -> bool:
        with self._joining, self._lock:
            if self._parts:
                return False
            self._give_up()
            return True

    def _give_up(self) -> None:
        if _SharedThread._current is self:
            _SharedThread._current = None
        self._inotify.close()
        os.close(self._poked)

    def _fail(self, error: Exception) -> None:
        with self._joining, self._lock:
            parts, self._parts = self._parts, set()
            self._give_up()
        for part in parts:
            part.watcher.unnotified(error)

    def _sort(self) -> None:
        """Give each notice to those that watch its folder."""
        with self._lock:
            for notice in self._inotify.read():
                if notice.mask & inotify.IN_Q_OVERFLOW:
                    for part in self._parts:
                        part.lost = True
                elif notice.mask & inotify.IN_IGNORED:
                    for part, folder in self._folders.pop(notice.watch, {}).items():
                        part.watches.pop(folder, None)
                else:
                    added = notice.mask & (inotify.IN_CREATE | inotify.IN_MOVED_TO)
                    change = Change.added if added else Change.modified
                    for part, folder in self._folders.get(notice.watch, {}).items():
                        part.waiting.add((change, f"{folder}/{notice.name}" if notice.name else folder))

    def _tell(self) -> None:
        with self._lock:
            ready = [part for part in self._parts if part.begun and (part.waiting or part.lost)]
            news = [(part, None if part.lost else part.waiting) for part in ready]
            for part in ready:
                part.waiting, part.lost = set(), False
        for part, raw in news:
            part.watcher.notified(raw)


class PolledNotifications:
    """With a thread of its own, by watchfiles.

    The library takes its folders once. New folders get an instance ("arm") of their own; when there are MAX_ARMS, all
    but the first, big one are joined, so that a new folder never costs a new watch of the whole workspace.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._closing = threading.Event()
        self._arms: list[tuple[RustNotify, list[str]]] = []
        self._begun = False

    def add(self, folders: list[str]) -> None:
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

    def forget(self, folders: Iterable[str]) -> None:
        """The library drops what is gone by itself."""

    def begin(self) -> None:
        self._begun = True
        threading.Thread(target=self._run, name="workspace-watch polled", daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        if not self._begun:
            self._end()

    def _run(self) -> None:
        try:
            while not self._closing.wait(GATHER_S):
                changes: Raw = set()
                for arm, _ in self._arms:
                    answer = arm.watch(1, 1, 1, None)
                    if isinstance(answer, set):
                        changes |= answer
                if changes:
                    self._watcher.notified(changes)
        except (OSError, RuntimeError) as error:
            # The library has no class for "no more inotify instances": it is a RuntimeError.
            self._watcher.unnotified(error)
        finally:
            self._end()

    def _end(self) -> None:
        for arm, _ in self._arms:
            arm.close()

"""Which files of a workspace were written or deleted: snapshots, their difference, and what was reported already."""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from cody.contracts.run_config import WatchConfig
from harness.epic import LAST_PROMPT, STOP_FILE
from harness.globs import compile_globs

Signature = tuple[int, int, int]
"""(mtime in ns, size, inode): differs after every write but one within the same tick of the file system's clock."""

MAX_ENTRIES = 50_000
"""Files and folders that a scan looks at: half a second of a core, and some 10 MB."""

_CLOCK_TICK_NS = 20_000_000
"""Files get the time of the kernel's last tick, which is up to 10 ms old."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """One path, relative to the workspace, and what it is now: its signature, or None when it is gone."""

    path: str
    signature: Signature | None

    @property
    def kind(self) -> Literal["written", "deleted"]:
        return "deleted" if self.signature is None else "written"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of a workspace at one moment, by relative POSIX path (bytes that are no UTF-8 become U+FFFD)."""

    files: Mapping[str, Signature]
    truncated: bool
    """There is more than the limit: nothing is known of the rest."""
    taken_ns: int
    """Wall clock when the scan began, to be compared with mtimes."""
    unread: frozenset[str] = frozenset()
    """Folders that are there and could not be read: nothing is known of what is in them."""


class PathFilter:
    """Which paths of a workspace are reported."""

    def __init__(self, watch: WatchConfig, harness_dir: str) -> None:
        """The harness folder is reported whatever `include` says, but for Cody's own files in it."""
        folder = harness_dir.strip("/")
        self._include = compile_globs([*watch.include, f"{folder}/**"])
        own = [f"{folder}/**/{LAST_PROMPT}*", f"{folder}/**/{STOP_FILE}.stale-*"]
        self._exclude = compile_globs([*watch.exclude, *own])

    def wanted(self, path: str) -> bool:
        """True for a file that is to be reported; does not look at the folders above, see `pruned`."""
        return not self._exclude.match(path) and self._include.match(path) is not None

    def pruned(self, folder: str) -> bool:
        """True for a folder with nothing in it that is to be reported; it need not be looked into."""
        return self._exclude.match(f"{folder}/") is not None


def clean_path(path: str) -> str:
    """`path` without the surrogates that stand for bytes which are no UTF-8: it has to go into JSON."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "replace")


def signature_of(status: os.stat_result) -> Signature | None:
    """The signature of a regular file or a link; None for a folder, a FIFO and the like, which are not reported."""
    if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
        return (status.st_mtime_ns, status.st_size, status.st_ino)
    return None


@dataclass(slots=True)
class Walk:
    """Goes through a folder of a workspace, breadth first and in order; never follows a link."""

    root: Path
    paths: PathFilter
    left: int = MAX_ENTRIES
    """Entries that may still be looked at; 0 at the end means that there may be more."""
    unread: set[str] = field(default_factory=set)
    """Folders that could not be read, by the end of the walk."""

    def entries(self, start: str = "") -> Iterator[tuple[str, os.DirEntry[str] | None]]:
        """(relative path, entry) of each file that is wanted, (relative path, None) of each folder that was read."""
        queue = deque([(self.root / start, start)])
        while queue and self.left > 0:
            folder, relative = queue.popleft()
            try:
                listed = self._listed(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                # No permission, or no file descriptor left: not the same as an empty folder.
                self.unread.add(relative)
                continue
            yield relative, None
            for entry in listed:
                path = f"{relative}/{clean_path(entry.name)}" if relative else clean_path(entry.name)
                if not _is_folder(entry):
                    if self.paths.wanted(path):
                        yield path, entry
                elif not self.paths.pruned(path):
                    queue.append((folder / entry.name, path))

    def _listed(self, folder: Path) -> list[os.DirEntry[str]]:
        """The folder's entries by name, as many as the limit leaves."""
        listed: list[os.DirEntry[str]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if self.left <= 0:
                    break
                self.left -= 1
                listed.append(entry)
        return sorted(listed, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def scan(root: Path, watch: WatchConfig, limit: int = MAX_ENTRIES, *, harness_dir: str = ".cody-harness") -> Snapshot:
    """The files below `root` that `watch` wants; looks at `limit` entries at most. Blocks: run it in a thread."""
    taken_ns = time.time_ns()
    walk = Walk(root, PathFilter(watch, harness_dir), limit)
    files = dict(files_of(walk.entries()))
    return Snapshot(files, truncated=walk.left <= 0, taken_ns=taken_ns, unread=frozenset(walk.unread))


def files_of(entries: Iterable[tuple[str, os.DirEntry[str] | None]]) -> Iterator[tuple[str, Signature]]:
    """(path, signature) of each file of a walk; one that vanished meanwhile is left out."""
    for path, entry in entries:
        if entry is not None:
            try:
                signature = signature_of(entry.stat(follow_symlinks=False))
            except OSError:
                continue
            if signature is not None:
                yield path, signature


def diff(before: Snapshot, after: Snapshot) -> list[FileChange]:
    """What changed between two snapshots, by path; what one of them cannot know is not guessed."""
    changes = [
        FileChange(path, signature)
        for path, signature in after.files.items()
        if before.files.get(path) != signature and (path in before.files or is_new(before, path, signature))
    ]
    if not after.truncated:
        gone = (path for path in before.files if path not in after.files)
        changes += [FileChange(path, None) for path in gone if not _is_below(path, after.unread)]
    return sorted(changes, key=lambda change: change.path)


def is_new(before: Snapshot, path: str, signature: Signature) -> bool:
    """Whether a file that `before` has not was written since; where it could not look, only the file's time tells."""
    looked = not before.truncated and not _is_below(path, before.unread)
    return looked or signature[0] >= before.taken_ns - _CLOCK_TICK_NS


class WorkspaceLedger:
    """What is known of a workspace's files, so that every change is reported once, whoever sees it first.

    In this order: `before = scan(...)`, `WorkspaceLedger(root, watch, before)`, then the live watch; at the turn's end,
    after the watch is closed, `settle(scan(...))`.
    """

    def __init__(self, root: Path, watch: WatchConfig, before: Snapshot, *, harness_dir: str = ".cody-harness") -> None:
        self._root = root
        self._paths = PathFilter(watch, harness_dir)
        self._before = replace(before, files={})
        self._known = dict(before.files)
        self._folders: set[str] = set()
        for path in self._known:
            self._add_folders(path)

    def live(self, changes: Iterable[FileChange]) -> list[FileChange]:
        """Those of the watch's changes that are not known yet; a folder that is gone becomes its files."""
        reported: list[FileChange] = []
        gone_folders: set[str] = set()
        for change in changes:
            if change.signature is None and change.path not in self._known:
                if change.path in self._folders:
                    gone_folders.add(change.path)
            elif self._learn(change.path, change.signature):
                reported.append(change)
        if gone_folders:
            reported += self._forget_below(gone_folders, kept={change.path for change in reported})
        return sorted(reported, key=lambda change: change.path)

    def settle(self, after: Snapshot) -> list[FileChange]:
        """The changes that nobody reported so far, by a fresh scan."""
        changes = diff(replace(self._before, files=self._known), after)
        for change in changes:
            self._learn(change.path, change.signature)
        return changes

    def note_agent_change(self, path: str) -> bool:
        """Take note of a path (absolute, or relative to the workspace) that the agent reports as changed.

        False when this very state of the file was reported already, by the watch for one. The watch is not going to
        report it again unless the file changes again.
        """
        relative = self._relative(path)
        if relative is None or not self._covers(relative):
            return True
        try:
            signature = signature_of(os.lstat(self._root / relative))
        except (OSError, ValueError):
            signature = None
        return self._learn(clean_path(relative), signature)

    def _learn(self, path: str, signature: Signature | None) -> bool:
        """Take the path's state as reported; False when it was known, or is older than a truncated snapshot."""
        if signature is None:
            return self._known.pop(path, None) is not None
        before = self._known.get(path)
        self._known[path] = signature
        self._add_folders(path)
        return before != signature and (before is not None or is_new(self._before, path, signature))

    def _add_folders(self, path: str) -> None:
        folder = path.rpartition("/")[0]
        while folder and folder not in self._folders:
            self._folders.add(folder)
            folder = folder.rpartition("/")[0]

    def _forget_below(self, folders: set[str], kept: set[str]) -> list[FileChange]:
        gone = [path for path in self._known if path not in kept and _is_below(path, folders)]
        for path in gone:
            del self._known[path]
        self._folders -= folders
        return [FileChange(path, None) for path in gone]

    def _covers(self, path: str) -> bool:
        parts = path.split("/")
        above = ("/".join(parts[:count]) for count in range(1, len(parts)))
        return self._paths.wanted(path) and not any(self._paths.pruned(folder) for folder in above)

    def _relative(self, path: str) -> str | None:
        """The path relative to the root, also when it goes through a link to the root; None when it is not below it."""
        absolute = Path(os.path.normpath(self._root / path))
        for candidate in (absolute, Path(os.path.realpath(absolute.parent)) / absolute.name):
            if candidate != self._root and candidate.is_relative_to(self._root):
                return candidate.relative_to(self._root).as_posix()
        return None


def _is_below(path: str, folders: Set[str]) -> bool:
    if not folders:
        return False
    if "" in folders:
        return True
    above = path.rpartition("/")[0]
    while above:
        if above in folders:
            return True
        above = above.rpartition("/")[0]
    return False

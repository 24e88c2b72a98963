"""The live watch on real files: what it sees and leaves out, and that nothing is lost and nothing told twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cody.contracts.run_config import WatchConfig
from harness import workspace
from harness.notifications import MAX_ARMS, Notifications, PolledNotifications, Raw, Watcher, notifications
from harness.workspace import FileChange, WorkspaceLedger, WorkspaceWatch, scan

WATCH = WatchConfig()
DEADLINE_S = 30.0
INOTIFY = "anon_inode:inotify"
POOL_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""Of asyncio.to_thread, for all there is."""


class Seen:
    """What was reported, through the ledger, in order."""

    def __init__(self, root: Path, watch: WatchConfig = WATCH) -> None:
        self.root = root
        self.config = watch
        self.ledger = WorkspaceLedger(root, watch, scan(root, watch))
        self.raw: list[FileChange] = []
        self.news: list[tuple[str, str]] = []
        self._arrived = asyncio.Event()

    def watch(self) -> WorkspaceWatch:
        return WorkspaceWatch(self.root, self.config, self.take)

    def take(self, changes: list[FileChange]) -> None:
        self.raw += changes
        self.news += [(change.kind, change.path) for change in self.ledger.live(changes)]
        self._arrived.set()

    def settle(self) -> list[tuple[str, str]]:
        rest: list[tuple[str, str]] = [
            (change.kind, change.path) for change in self.ledger.settle(scan(self.root, self.config))
        ]
        self.news += rest
        return rest

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._arrived.clear()
                await self._arrived.wait()

    async def until_told(self, *news: tuple[str, str]) -> None:
        await self.until(lambda: set(news) <= set(self.news))


def write(root: Path, path: str, text: str = "x") -> Path:
    """Put a file there in one step: one that is written in place can be seen twice, empty and full."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    part = root.parent / f"{root.name}.part"
    part.write_text(text)
    return part.replace(target)


async def test_files_written_and_deleted_are_told_while_they_happen(tmp_path: Path) -> None:
    write(tmp_path, "old")
    write(tmp_path, "src/a.py")
    seen = Seen(tmp_path)
    async with seen.watch() as watch:
        assert watch.degraded is None
        write(tmp_path, "new")
        await seen.until_told(("written", "new"))
        write(tmp_path, "src/a.py", "changed")
        await seen.until_told(("written", "src/a.py"))
        (tmp_path / "old").unlink()
        await seen.until_told(("deleted", "old"))
    assert seen.settle() == []
    assert len(seen.news) == 3


async def test_a_file_that_is_written_in_place_is_told_each_time(tmp_path: Path) -> None:
    log = write(tmp_path, "log")
    seen = Seen(tmp_path)
    async with seen.watch():
        for count in range(1, 4):
            with log.open("a") as file:
                file.write("more")
            await seen.until(lambda: seen.news.count(("written", "log")) >= count)  # noqa: B023
        assert log.read_text()
        os.utime(log)
        await seen.until(lambda: seen.news.count(("written", "log")) >= 4)
    assert seen.settle() == []


async def test_files_in_folders_made_at_once_are_told(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    async with seen.watch():
        write(tmp_path, "a/b/c/d/first")
        await seen.until_told(("written", "a/b/c/d/first"))
        write(tmp_path, "a/b/c/d/second")
        write(tmp_path, "a/b/beside")
        await seen.until_told(("written", "a/b/c/d/second"), ("written", "a/b/beside"))


@pytest.mark.parametrize("source", [notifications, PolledNotifications])
async def test_many_new_folders_one_after_the_other_stay_watched(
    source: Callable[[Watcher], Notifications], tmp_path: Path
) -> None:
    """More than watchfiles has arms: they are joined, and none of the folders is forgotten."""
    write(tmp_path, "base/file")
    seen = Seen(tmp_path)
    count = 3 * MAX_ARMS
    async with WorkspaceWatch(tmp_path, WATCH, seen.take, source=source) as watch:
        for number in range(count):
            write(tmp_path, f"n{number}/first")
            await seen.until_told(("written", f"n{number}/first"))
        for number in range(count):
            write(tmp_path, f"n{number}/second")
        write(tmp_path, "base/file", "changed")
        await seen.until_told(*(("written", f"n{number}/second") for number in range(count)), ("written", "base/file"))
        assert watch.degraded is None


async def test_a_folder_removed_and_made_again_is_watched_again(tmp_path: Path) -> None:
    write(tmp_path, "build/one")
    seen = Seen(tmp_path)
    async with seen.watch():
        shutil.rmtree(tmp_path / "build")
        write(tmp_path, "build/two")
        await seen.until_told(("written", "build/two"), ("deleted", "build/one"))
        write(tmp_path, "build/three")
        await seen.until_told(("written", "build/three"))


async def test_a_folder_that_is_moved_is_told_file_by_file(tmp_path: Path) -> None:
    write(tmp_path, "here/sub/file")
    seen = Seen(tmp_path)
    async with seen.watch():
        (tmp_path / "here").rename(tmp_path / "there")
        await seen.until_told(("deleted", "here/sub/file"), ("written", "there/sub/file"))
        write(tmp_path, "there/sub/more")
        await seen.until_told(("written", "there/sub/more"))
    assert seen.settle() == []


async def test_a_folder_that_moves_out_is_the_deletion_of_its_files_whatever_include_says(tmp_path: Path) -> None:
    root = tmp_path / "w"
    write(root, "src/a.py")
    seen = Seen(root, WatchConfig(include=["src/*.py"]))
    async with seen.watch():
        (root / "src").rename(tmp_path / "away")
        await seen.until_told(("deleted", "src/a.py"))


async def test_excluded_and_not_included_files_are_not_told(tmp_path: Path) -> None:
    write(tmp_path, ".git/HEAD")
    write(tmp_path, "node_modules/x/index.js")
    seen = Seen(tmp_path, WatchConfig(include=["**/*.py"]))
    async with seen.watch():
        write(tmp_path, ".git/HEAD", "changed")
        write(tmp_path, "node_modules/x/index.py", "changed")
        write(tmp_path, "node_modules/new/index.py")
        write(tmp_path, "src/node_modules/deep/index.py")
        write(tmp_path, "src/a.txt")
        write(tmp_path, "top.txt")
        write(tmp_path, "top.pyc")
        write(tmp_path, "src/last.py")
        write(tmp_path, ".cody-harness/e/.last-prompt.md")
        write(tmp_path, ".cody-harness/e/codys-log.md")
        await seen.until_told(("written", "src/last.py"), ("written", ".cody-harness/e/codys-log.md"))
    seen.settle()
    assert len(seen.news) == 2


async def test_links_out_of_the_workspace_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "w", tmp_path / "outside"
    write(root, "sub/a")
    write(outside, "secret")
    (root / "link").symlink_to(outside)
    seen = Seen(root)
    async with seen.watch():
        (root / "sub/later").symlink_to(outside)
        await seen.until_told(("written", "sub/later"))
        write(outside, "secret", "changed")
        write(outside, "other")
        write(root, "last")
        await seen.until_told(("written", "last"))
    assert sorted(seen.news) == [("written", "last"), ("written", "sub/later")]
    assert not [change for change in seen.raw if "secret" in change.path or "other" in change.path]


async def test_writes_at_the_very_end_are_told_by_the_scan_and_nothing_is_told_twice(tmp_path: Path) -> None:
    """A process writes and exits; the watch is closed at once, in the middle of it for all we know."""
    script = (
        "import pathlib\n"
        "for number in range(300):\n"
        "    folder = pathlib.Path(f'out/{number % 7}/{number % 3}')\n"
        "    folder.mkdir(parents=True, exist_ok=True)\n"
        "    (folder / str(number)).touch()\n"
        "pathlib.Path('last').touch()\n"
    )
    seen = Seen(tmp_path)
    async with seen.watch():
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=60)
        write(tmp_path, "after the exit")
    seen.settle()
    paths = [path for _, path in seen.news]
    assert {kind for kind, _ in seen.news} == {"written"}
    assert len(paths) == len(set(paths)) == 302
    assert "after the exit" in paths


async def test_a_burst_is_told_whole_and_once(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    async with seen.watch():
        for number in range(2000):
            write(tmp_path, f"burst/{number % 20}/{number}")
        await seen.until(lambda: len(seen.news) >= 2000)
    assert seen.settle() == []
    assert len(seen.news) == len(set(seen.news)) == 2000


async def test_what_the_agent_reported_first_is_not_told_by_the_watch(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    async with seen.watch():
        write(tmp_path, "by-agent")
        assert seen.ledger.note_agent_change(str(tmp_path / "by-agent"))
        write(tmp_path, "by-command")
        await seen.until_told(("written", "by-command"))
        await seen.until(lambda: any(change.path == "by-agent" for change in seen.raw))
    assert seen.news == [("written", "by-command")]


async def test_changes_that_come_while_the_loop_is_busy_are_told_at_once_when_it_is_free(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    batches: list[list[str]] = []
    async with WorkspaceWatch(tmp_path, WATCH, lambda changes: batches.append([c.path for c in changes])) as watch:
        for name in ("first", "second"):
            write(tmp_path, name)
            # No await: the loop is held until the watch has collected the change, and has to wait for the loop.
            deadline = time.monotonic() + DEADLINE_S
            while name not in watch._pending:
                assert time.monotonic() < deadline
        async with asyncio.timeout(DEADLINE_S):
            while not batches:
                await asyncio.sleep(0)
    assert batches == [["first", "second"]]
    assert seen.settle() == [("written", "first"), ("written", "second")]


async def test_the_watch_leaves_no_thread_and_calls_nobody_after_its_end(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    async with seen.watch():
        write(tmp_path, "a")
        await seen.until_told(("written", "a"))
    told = len(seen.raw)
    write(tmp_path, "b")
    async with Seen(tmp_path).watch():
        pass
    assert len(seen.raw) == told
    async with asyncio.timeout(DEADLINE_S):
        while any(thread.name.startswith("workspace-watch") for thread in threading.enumerate()):
            await asyncio.sleep(0)


async def test_a_cancelled_owner_closes_the_watch(tmp_path: Path) -> None:
    entered = asyncio.Event()

    async def owner() -> None:
        async with WorkspaceWatch(tmp_path, WATCH, lambda changes: None):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(owner())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(DEADLINE_S):
        while any(thread.name.startswith("workspace-watch") for thread in threading.enumerate()):
            await asyncio.sleep(0)


async def test_when_notifications_fail_the_workspace_is_scanned_and_nothing_in_between_is_lost(tmp_path: Path) -> None:
    """Reading the notifications fails, as their file descriptor leads to a folder by now."""
    seen, other = Seen(tmp_path / "w"), Seen(tmp_path / "other")
    seen.root.mkdir()
    other.root.mkdir()
    async with seen.watch() as watch, other.watch():
        folder = os.open(tmp_path, os.O_RDONLY)
        os.dup2(folder, await inotify_fd())
        os.close(folder)
        write(seen.root, "at the same time")
        async with Seen(tmp_path).watch():  # wakes the thread: the kernel does not, for a descriptor that was replaced
            pass
        await seen.until_told(("written", "at the same time"))
        assert watch.degraded is not None
        assert "scanned every" in watch.degraded
        write(seen.root, "a/b/later")
        write(other.root, "elsewhere")
        await seen.until_told(("written", "a/b/later"))
        await other.until_told(("written", "elsewhere"))
        async with Seen(tmp_path).watch() as later:
            assert later.degraded is None
    assert seen.settle() == []
    assert len(seen.news) == 2


async def inotify_fd() -> int:
    """Of the one instance of this process, once those that watchfiles had for an earlier test are closed."""
    async with asyncio.timeout(DEADLINE_S):
        while len(found := inotify_fds()) != 1:
            await asyncio.sleep(0.01)
    return found[0]


def inotify_fds() -> list[int]:
    found: list[int] = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            if os.readlink(link) == INOTIFY:
                found.append(int(link.name))
    return found


async def test_a_file_whose_name_is_not_utf8_is_told_too(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    async with seen.watch() as watch:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")).touch()
        await seen.until_told(("written", "caf\ufffd"))
        assert watch.degraded is None
    assert seen.settle() == []


async def test_many_workspaces_share_one_thread_and_one_inotify_instance(tmp_path: Path) -> None:
    """A user has 128 instances."""
    many = [Seen(tmp_path / f"w{number}") for number in range(150)]
    threads = threading.active_count()
    async with AsyncExitStack() as stack:
        for one in many:
            one.root.mkdir()
            watch = await stack.enter_async_context(one.watch())
            assert watch.degraded is None
        await inotify_fd()
        assert threading.active_count() - threads <= 1 + POOL_THREADS
        for number, one in enumerate(many):
            write(one.root, f"file{number}")
        for number, one in enumerate(many):
            await one.until_told(("written", f"file{number}"))
    assert [one.news for one in many] == [[("written", f"file{number}")] for number in range(150)]


async def test_two_watches_of_one_folder_are_both_told_and_end_apart(tmp_path: Path) -> None:
    first, second = Seen(tmp_path), Seen(tmp_path)
    async with second.watch():
        async with first.watch():
            write(tmp_path, "a")
            await first.until_told(("written", "a"))
            await second.until_told(("written", "a"))
        write(tmp_path, "b")
        await second.until_told(("written", "b"))
    assert first.news == [("written", "a")]


async def test_notifications_that_the_system_lost_are_made_up_for(tmp_path: Path) -> None:
    """The thread is held up by another watcher while more happens than the kernel's queue (16,384) holds."""
    held, go = threading.Event(), threading.Event()

    class Slow:
        def notified(self, raw: Raw | None) -> None:
            held.set()
            go.wait(DEADLINE_S)

        def unnotified(self, error: Exception) -> None:
            raise error

    (tmp_path / "slow").mkdir()
    slow = notifications(Slow())
    slow.add([str(tmp_path / "slow")])
    slow.begin()
    seen = Seen(tmp_path / "w")
    seen.root.mkdir()
    try:
        async with seen.watch():
            (tmp_path / "slow" / "x").touch()
            assert await asyncio.to_thread(held.wait, DEADLINE_S)
            for number in range(9_000):
                (seen.root / f"file{number}").touch()  # created, changed and closed: more than one each
            (seen.root / "last").touch()
            go.set()
            await seen.until_told(("written", "last"), ("written", "file8999"))
    finally:
        go.set()
        slow.close()
    assert seen.settle() == []
    assert len(set(seen.news)) == 9_001


async def test_without_inotify_watchfiles_tells(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    (tmp_path / "sub").mkdir()
    async with WorkspaceWatch(tmp_path, WATCH, seen.take, source=PolledNotifications) as watch:
        assert watch.degraded is None
        write(tmp_path, "sub/a")
        await seen.until_told(("written", "sub/a"))
        write(tmp_path, "new/b")
        await seen.until_told(("written", "new/b"))
        (tmp_path / "sub" / "a").unlink()
        await seen.until_told(("deleted", "sub/a"))
    async with asyncio.timeout(DEADLINE_S):
        while any(thread.name.startswith("workspace-watch") for thread in threading.enumerate()):
            await asyncio.sleep(0)
    assert seen.settle() == []


async def test_a_workspace_that_goes_away_ends_in_deletions_not_in_an_error(tmp_path: Path) -> None:
    root = tmp_path / "w"
    write(root, "sub/a")
    seen = Seen(root)
    async with seen.watch():
        shutil.rmtree(root)
        await seen.until_told(("deleted", "sub/a"))
    assert seen.settle() == []


async def test_a_workspace_that_was_never_there_is_survived(tmp_path: Path) -> None:
    seen = Seen(tmp_path / "missing")
    async with seen.watch() as watch:
        assert watch.degraded is not None
    assert seen.settle() == []


async def test_what_is_in_a_folder_whose_name_is_not_utf8_is_told_too(tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(odd)
    seen = Seen(tmp_path)
    async with seen.watch():
        Path(odd, "inside").touch()
        write(tmp_path, "plain")
        await seen.until_told(("written", "plain"), ("written", "caf\ufffd/inside"))
    assert seen.settle() == []


async def test_a_workspace_with_more_folders_than_can_be_watched_says_so(
    tmp_path: Path,
) -> None:
    for number in range(workspace.MAX_FOLDERS + 5):
        (tmp_path / f"{number:05}").mkdir()
    seen = Seen(tmp_path)
    async with seen.watch() as watch:
        assert watch.degraded is not None
        assert "too big" in watch.degraded
        write(tmp_path, "00000/early")
        await seen.until_told(("written", "00000/early"))
        write(tmp_path, f"{workspace.MAX_FOLDERS + 4:05}/late")
    assert seen.settle() == [("written", f"{workspace.MAX_FOLDERS + 4:05}/late")]

"""Snapshots of a workspace, and the ledger by which each change is reported once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cody.contracts.run_config import WatchConfig
from harness.snapshot import FileChange, Signature, Snapshot, WorkspaceLedger, diff, scan

WATCH = WatchConfig()


def write(root: Path, path: str, text: str = "x") -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return target


def snapshot(files: dict[str, Signature], *, truncated: bool = False, taken_ns: int = 10**18) -> Snapshot:
    return Snapshot(files, truncated, taken_ns)


def signature(path: Path) -> Signature:
    status = path.lstat()
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def kinds(changes: list[FileChange]) -> list[tuple[str, str]]:
    return [(change.kind, change.path) for change in changes]


def test_a_scan_finds_wanted_files_and_leaves_out_excluded_ones(tmp_path: Path) -> None:
    for path in (
        "a.py",
        "src/b.py",
        "src/b.pyc",
        ".git/HEAD",
        "web/node_modules/x/y.js",
        "target/debug/app",
        "target.txt",
    ):
        write(tmp_path, path)
    assert list(scan(tmp_path, WATCH).files) == ["a.py", "target.txt", "src/b.py"]


def test_the_harness_folder_is_seen_whatever_include_says_but_for_codys_own_files(tmp_path: Path) -> None:
    for path in ("a.py", ".cody-harness/e/codys-log.md", ".cody-harness/e/.last-prompt.md", ".cody-harness/.stop"):
        write(tmp_path, path)
    for path in (".cody-harness/.stop.stale-1", ".cody-harness/e/.last-prompt.md.x1", ".cody-harness/decision-log.md"):
        write(tmp_path, path)
    found = set(scan(tmp_path, WatchConfig(include=["*.ts"])).files)
    assert found == {".cody-harness/e/codys-log.md", ".cody-harness/.stop", ".cody-harness/decision-log.md"}
    moved = scan(tmp_path, WatchConfig(include=["*.ts"]), harness_dir="elsewhere").files
    assert moved == {}


def test_a_scan_follows_no_link_and_takes_no_fifo(tmp_path: Path) -> None:
    root, outside = tmp_path / "w", tmp_path / "outside"
    write(root, "a")
    write(outside, "secret")
    (root / "out").symlink_to(outside)
    (root / "loop").symlink_to(root)
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    assert sorted(scan(root, WATCH).files) == ["a", "dangling", "loop", "out"]


def test_a_name_that_is_not_utf8_is_seen_under_a_name_that_can_be_written(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")).touch()
    assert list(scan(tmp_path, WATCH).files) == ["caf\ufffd"]


def test_a_scan_is_bounded_and_takes_what_is_near_the_top(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path, f"top{number}")
        write(tmp_path, f"deep/er/{number}")
    whole = scan(tmp_path, WATCH)
    assert (len(whole.files), whole.truncated) == (10, False)
    part = scan(tmp_path, WATCH, limit=8)
    assert part.truncated
    assert set(part.files) > {f"top{number}" for number in range(5)}
    assert len(part.files) == 6
    assert scan(tmp_path / "missing", WATCH).files == {}


def test_excluded_folders_cost_nothing_of_the_bound(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path, f"node_modules/x{number}/index.js")
    write(tmp_path, "src/a")
    whole = scan(tmp_path, WATCH, limit=5)
    assert (list(whole.files), whole.truncated) == (["src/a"], False)


def test_a_difference_is_what_was_written_and_deleted() -> None:
    before = snapshot({"same": (1, 1, 1), "changed": (1, 1, 2), "gone": (1, 1, 3)})
    after = snapshot({"same": (1, 1, 1), "changed": (2, 1, 2), "new": (2, 1, 4)})
    assert kinds(diff(before, after)) == [("written", "changed"), ("deleted", "gone"), ("written", "new")]


def test_of_truncated_snapshots_nothing_is_guessed() -> None:
    taken = 10**18
    before = snapshot({"changed": (1, 1, 1), "unseen now": (1, 1, 2)}, truncated=True, taken_ns=taken)
    after = snapshot({"changed": (2, 1, 1), "old": (taken - 10**9, 1, 3), "new": (taken + 1, 1, 4)}, truncated=True)
    assert kinds(diff(before, after)) == [("written", "changed"), ("written", "new")]


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    """No permission, or no file descriptor left: all files below would be told as deleted."""
    write(tmp_path, "a")
    write(tmp_path, "closed/b")
    before = scan(tmp_path, WATCH)
    nothing = scan(tmp_path / ("too long a name" * 20), WATCH)
    assert nothing.unread == {""}
    assert diff(before, nothing) == []
    later = before.taken_ns + 10**9
    part = Snapshot({"a": before.files["a"]}, truncated=False, taken_ns=later, unread=frozenset({"closed"}))
    assert diff(before, part) == []
    assert diff(part, before) == []
    now = (later, 1, 1)
    assert kinds(diff(part, snapshot({**before.files, "closed/c": now, "d": (1, 1, 1)}))) == [
        ("written", "closed/c"),
        ("written", "d"),
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in ("a", "b", "folder/c", "folder/sub/d", "folder2/e"):
        write(tmp_path, path)
    return tmp_path


@pytest.fixture
def ledger(root: Path) -> WorkspaceLedger:
    return WorkspaceLedger(root, WATCH, scan(root, WATCH))


def live(ledger: WorkspaceLedger, root: Path, *paths: str) -> list[tuple[str, str]]:
    """What the ledger says when the watch reports these paths as they are now."""
    changes = [FileChange(path, signature(root / path) if os.path.lexists(root / path) else None) for path in paths]
    return kinds(ledger.live(changes))


def test_a_live_change_is_reported_once_and_not_again_at_the_end(ledger: WorkspaceLedger, root: Path) -> None:
    write(root, "a", "changed")
    write(root, "new")
    assert live(ledger, root, "new", "a") == [("written", "a"), ("written", "new")]
    assert live(ledger, root, "a", "new") == []
    assert ledger.settle(scan(root, WATCH)) == []
    write(root, "a", "changed again")
    assert live(ledger, root, "a") == [("written", "a")]


def test_what_the_watch_missed_is_reported_at_the_end_once(ledger: WorkspaceLedger, root: Path) -> None:
    write(root, "a", "changed")
    (root / "b").unlink()
    write(root, "late/file")
    expected = [("written", "a"), ("deleted", "b"), ("written", "late/file")]
    assert kinds(ledger.settle(scan(root, WATCH))) == expected
    assert ledger.settle(scan(root, WATCH)) == []


def test_a_file_that_was_only_read_is_no_change(ledger: WorkspaceLedger, root: Path) -> None:
    assert live(ledger, root, "a", "folder/c") == []


def test_the_same_content_written_again_counts_as_written(ledger: WorkspaceLedger, root: Path) -> None:
    old = signature(root / "a")
    os.utime(root / "a", ns=(old[0] + 1, old[0] + 1))
    assert live(ledger, root, "a") == [("written", "a")]


def test_a_file_that_came_and_went_unseen_is_no_change(ledger: WorkspaceLedger, root: Path) -> None:
    assert live(ledger, root, "temporary") == []
    assert ledger.settle(scan(root, WATCH)) == []


def test_a_deleted_file_that_comes_back_is_written_again(ledger: WorkspaceLedger, root: Path) -> None:
    (root / "a").unlink()
    assert live(ledger, root, "a") == [("deleted", "a")]
    write(root, "a", "back")
    assert live(ledger, root, "a") == [("written", "a")]


def test_a_folder_that_went_away_is_the_deletion_of_its_files(ledger: WorkspaceLedger, root: Path) -> None:
    write(root, "folder/sub/new")
    assert live(ledger, root, "folder/sub/new") == [("written", "folder/sub/new")]
    (root / "folder").rename(root / "moved")
    gone = ["folder/c", "folder/sub/d", "folder/sub/new"]
    assert live(ledger, root, "folder") == [("deleted", path) for path in gone]
    assert live(ledger, root, "folder", *gone) == []
    assert kinds(ledger.settle(scan(root, WATCH))) == [("written", path.replace("folder", "moved")) for path in gone]


def test_what_the_agent_reported_is_not_repeated_until_it_changes_again(ledger: WorkspaceLedger, root: Path) -> None:
    write(root, "a", "by the agent")
    (root / "b").unlink()
    write(root, "new")
    assert ledger.note_agent_change(str(root / "a"))
    assert ledger.note_agent_change("b")
    assert ledger.note_agent_change("./folder/../new")
    assert live(ledger, root, "a", "b", "new") == []
    assert ledger.settle(scan(root, WATCH)) == []
    write(root, "a", "by a command, later")
    assert live(ledger, root, "a") == [("written", "a")]


def test_the_agent_reporting_what_the_watch_saw_first_is_no_news(ledger: WorkspaceLedger, root: Path) -> None:
    write(root, "a", "changed")
    assert live(ledger, root, "a") == [("written", "a")]
    assert not ledger.note_agent_change("a")


def test_the_agent_may_name_the_workspace_through_a_link(ledger: WorkspaceLedger, root: Path) -> None:
    (root / "link").symlink_to(root)
    write(root, "a", "changed")
    assert ledger.note_agent_change(str(root / "link" / "a"))
    assert live(ledger, root, "link/a", "a") != []
    outside = root.parent / f"{root.name}-link"
    outside.symlink_to(root)
    write(root, "b", "changed")
    assert ledger.note_agent_change(str(outside / "b"))
    assert live(ledger, root, "b") == []


def test_what_the_agent_reports_outside_or_excluded_does_not_disturb_the_end(
    ledger: WorkspaceLedger, root: Path
) -> None:
    write(root, ".git/config")
    write(root, "x/__pycache__/y")
    for path in ("/etc/hostname", "../elsewhere", str(root), ".git/config", "x/__pycache__/y", "bad\0name", "folder"):
        assert ledger.note_agent_change(path) in {True, False}
    assert ledger.settle(scan(root, WATCH)) == []


def test_in_a_workspace_too_big_to_know_old_files_are_not_reported_as_written(root: Path) -> None:
    before = scan(root, WATCH, limit=2)
    assert before.truncated
    ledger = WorkspaceLedger(root, WATCH, before)
    old = root / "folder2/e"
    os.utime(old, ns=(10**18, 10**18))
    assert live(ledger, root, "folder2/e") == [], "an event for it may be a change of its mode"
    write(root, "folder2/e", "changed")
    assert live(ledger, root, "folder2/e") == [("written", "folder2/e")]

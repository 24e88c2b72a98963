"""apply_patch: the format, all or nothing, and nothing outside of the workspace."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from harness.tools.patch_format import AddFile, DeleteFile, Hunk, UpdateFile, apply_hunks, parse_patch
from harness.tools.refusal import ToolRefused
from tests.harness.tools.conftest import Use, runner_of, user_of


def patch(*lines: str) -> str:
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch"])


def test_every_operation_is_read() -> None:
    text = patch(
        "*** Add File: a.txt", "+one", "+", "*** Delete File: b.txt", "*** Update File: c.txt", "*** Move to: d.txt",
        "@@ def f():", " x", "-y", "+z", "@@", "-last", "*** End of File",
    )  # fmt: skip
    assert parse_patch(text) == (
        AddFile("a.txt", "one\n\n"),
        DeleteFile("b.txt"),
        UpdateFile(
            "c.txt",
            "d.txt",
            (Hunk("def f():", ("x", "y"), ("x", "z")), Hunk(None, ("last",), (), at_end=True)),
        ),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "*** Begin Patch\n*** End Patch",
        "*** Begin Patch\n*** Add File: a\n+x",
        patch("*** Remove File: a"),
        patch("*** Add File: a", "x"),
        patch("*** Add File: "),
        patch("*** Update File: a"),
        patch("*** Update File: a", "@@", "?x"),
        patch("*** Add File: a", "+x", "*** Delete File: a"),
        patch("*** Update File: a", "*** Move to: ", "@@", "-x"),
    ],
)
def test_what_is_no_patch_is_refused_in_words(text: str) -> None:
    with pytest.raises(ToolRefused):
        parse_patch(text)


@pytest.mark.parametrize(
    ("before", "hunks", "after"),
    [
        ("a\nb\nc\n", (Hunk(None, ("b",), ("B",)),), "a\nB\nc\n"),
        ("x\na\nx\na\n", (Hunk(None, ("a",), ("1",)), Hunk(None, ("a",), ("2",))), "x\n1\nx\n2\n"),
        ("a\nx\nb\nx\n", (Hunk("b", ("x",), ("y",)),), "a\nx\nb\ny\n"),
        ("x\ny\nx\n", (Hunk(None, ("x",), ("z",), at_end=True),), "x\ny\nz\n"),
        ("a\n", (Hunk(None, (), ("b",)),), "a\nb\n"),
        ("a  \nb\n", (Hunk(None, ("a", "b"), ("c",)),), "c\n"),
        ("    a\n", (Hunk(None, ("a",), ("    b",)),), "    b\n"),
        ("a\r\nb\r\n", (Hunk(None, ("b",), ("c",)),), "a\r\nc\r\n"),
        ("a", (Hunk(None, ("a",), ("b",)),), "b\n"),
        ("a\nb\n", (Hunk(None, ("a", ""), ("A", "")),), "A\nb\n"),
        ("a\n", (Hunk(None, ("a",), ()),), ""),
    ],
)
def test_hunks_find_their_place(before: str, hunks: tuple[Hunk, ...], after: str) -> None:
    assert apply_hunks("f", before, hunks) == after


def test_lines_that_are_not_there_are_named() -> None:
    with pytest.raises(ToolRefused, match=r"hunk 2.*after line 1"):
        apply_hunks("f", "a\nb\n", (Hunk(None, ("a",), ("b",)), Hunk(None, ("a",), ("c",))))


def test_a_file_of_equal_lines_costs_no_square_of_time() -> None:
    size = 200_000
    with pytest.raises(ToolRefused):
        apply_hunks("f", "x\n" * size, (Hunk(None, ("x",) * (size // 2) + ("y",), ("z",)),))


async def test_files_are_added_changed_moved_and_removed(use: Use, workspace: Path) -> None:
    (workspace / "old.py").write_text("print('a')\n")
    (workspace / "old.py").chmod(0o755)
    (workspace / "gone").touch()
    (workspace / "from").write_text("text\n")
    text = patch(
        "*** Add File: deep/er/new.txt", "+hello", "*** Update File: old.py", "@@", "-print('a')", "+print('b')",
        "*** Delete File: gone", "*** Update File: from", "*** Move to: to",
    )  # fmt: skip
    result = await use("apply_patch", input=text)
    assert result.output.split("\n") == ["A deep/er/new.txt", "M old.py", "D gone", "A to", "D from"]
    assert result.success
    assert (workspace / "deep/er/new.txt").read_text() == "hello\n"
    assert (workspace / "old.py").read_text() == "print('b')\n"
    assert stat.S_IMODE((workspace / "old.py").stat().st_mode) == 0o755
    assert sorted(path.name for path in workspace.iterdir()) == ["deep", "notes.txt", "old.py", "to"]


async def test_a_patch_that_does_not_apply_changes_nothing(use: Use, workspace: Path) -> None:
    text = patch("*** Add File: new", "+x", "*** Update File: notes.txt", "@@", "-four", "+five")
    assert not (await use("apply_patch", input=text)).success
    assert [path.name for path in workspace.iterdir()] == ["notes.txt"]


async def test_an_existing_file_is_not_overwritten(use: Use, workspace: Path) -> None:
    for text in (
        patch("*** Add File: notes.txt", "+x"),
        patch("*** Update File: other", "*** Move to: notes.txt"),
    ):
        (workspace / "other").write_text("other\n")
        result = await use("apply_patch", input=text)
        assert (result.success, "exists already" in result.output) == (False, True)
    assert (workspace / "notes.txt").read_text() == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    "path", ["../victim", "/etc/victim", "link/victim", "link/new", "alias", ".git/hooks/x", "a/.GIT/x"]
)
async def test_nothing_outside_is_written(use: Use, workspace: Path, path: str) -> None:
    outside = workspace.parent / "outside"
    outside.mkdir()
    (outside / "victim").write_text("safe\n")
    (workspace / "link").symlink_to(outside)
    (workspace / "alias").symlink_to(outside / "victim")
    for text in (
        patch(f"*** Add File: {path}", "+evil"),
        patch(f"*** Update File: {path}", "@@", "-safe", "+evil"),
        patch(f"*** Delete File: {path}"),
        patch("*** Update File: notes.txt", f"*** Move to: {path}"),
    ):
        assert not (await use("apply_patch", input=text)).success, text
    assert [(entry.name, entry.read_text()) for entry in outside.iterdir()] == [("victim", "safe\n")]
    assert sorted(entry.name for entry in workspace.iterdir()) == ["alias", "link", "notes.txt"]


async def test_a_hard_link_to_a_file_outside_is_not_written_through(use: Use, workspace: Path) -> None:
    outside = workspace.parent / "outside.txt"
    outside.write_text("one\n")
    os.link(outside, workspace / "inside.txt")
    assert (await use("apply_patch", input=patch("*** Update File: inside.txt", "@@", "-one", "+two"))).success
    assert (outside.read_text(), (workspace / "inside.txt").read_text()) == ("one\n", "two\n")


async def test_what_is_no_text_file_is_refused(use: Use, workspace: Path) -> None:
    os.mkfifo(workspace / "pipe")
    (workspace / "latin").write_bytes(b"caf\xe9\n")
    with (workspace / "big").open("wb") as file:
        file.truncate(1 << 40)
    for name in ("pipe", "latin", "big", "missing"):
        assert not (await use("apply_patch", input=patch(f"*** Update File: {name}", "@@", "-a", "+b"))).success, name


async def test_a_read_only_sandbox_offers_no_patching(workspace: Path) -> None:
    runner = runner_of(workspace, sandbox="read-only")
    assert [tool.name for tool in runner.tools] == ["read_file", "list_dir", "exec"]
    result = await user_of(runner)("apply_patch", input=patch("*** Add File: new", "+x"))
    assert (result.success, "no tool 'apply_patch'" in result.output) == (False, True)
    assert not (workspace / "new").exists()

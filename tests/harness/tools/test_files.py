"""read_file and list_dir: what they show, and what does not lead out of the workspace or stop the server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.harness.tools.conftest import Use, runner_of, user_of


async def test_a_file_is_read_whole_and_in_parts(use: Use) -> None:
    assert await use("read_file", path="notes.txt") == await use("read_file", path="./notes.txt")
    assert (await use("read_file", path="notes.txt")).output == "one\ntwo\nthree\n"
    part = await use("read_file", path="notes.txt", offset=2, limit=1)
    assert part.output == "two\n[6 more bytes of 14; go on with offset 3]"
    assert (await use("read_file", path="notes.txt", offset=3)).output == "three\n"


async def test_an_absolute_path_counts_inside_the_workspace(use: Use, workspace: Path) -> None:
    assert (await use("read_file", path=str(workspace / "notes.txt"))).success
    outside = await use("read_file", path="/etc/hostname")
    assert not outside.success
    assert "outside of the workspace" in outside.output


async def test_a_line_behind_the_end_is_told(use: Use) -> None:
    assert not (await use("read_file", path="notes.txt", offset=9)).success


async def test_lines_of_a_huge_file_are_found_without_reading_it_into_memory(workspace: Path) -> None:
    big = workspace / "big.log"
    with big.open("wb") as file:
        file.write(b"x" * 100 + b"\n")
        file.truncate(1 << 40)  # sparse: a terabyte
    use = user_of(runner_of(workspace, max_read_bytes=50))
    head = await use("read_file", path="big.log", limit=1)
    assert head.success
    assert head.output.startswith("x" * 50 + "\n[")
    deep = await use("read_file", path="big.log", offset=3)
    assert not deep.success
    assert "is past" in deep.output


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "..", "link/secret", "alias", "/proc/self/environ"])
@pytest.mark.parametrize("tool", ["read_file", "list_dir"])
async def test_nothing_leads_out(use: Use, workspace: Path, tool: str, path: str) -> None:
    outside = workspace.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s3cret")
    (workspace.parent / "secret").write_text("s3cret")
    (workspace / "link").symlink_to(outside)
    (workspace / "alias").symlink_to(outside / "secret")
    result = await use(tool, path=path)
    assert not result.success
    assert "s3cret" not in result.output


async def test_what_is_no_regular_file_is_not_waited_for(use: Use, workspace: Path) -> None:
    os.mkfifo(workspace / "pipe")
    fifo = await use("read_file", path="pipe")
    assert (fifo.success, "a FIFO" in fifo.output) == (False, True)
    (workspace / "folder").mkdir()
    assert not (await use("read_file", path="folder")).success
    assert not (await use("read_file", path=".")).success


async def test_binaries_are_not_shown_and_broken_text_is(use: Use, workspace: Path) -> None:
    (workspace / "image").write_bytes(b"\x89PNG\0\0")
    (workspace / "latin").write_bytes(b"caf\xe9\n")
    assert "binary" in (await use("read_file", path="image")).output
    assert (await use("read_file", path="latin")).output == "caf�\n"


async def test_a_folder_is_listed_in_order_with_marks(use: Use, workspace: Path) -> None:
    (workspace / "src").mkdir()
    (workspace / "away").symlink_to("/")
    (workspace / "two\nlines").touch()
    assert (await use("list_dir")).output.split("\n") == ["away@", "notes.txt", "src/", "two\\nlines"]
    assert (await use("list_dir", path="src")).output == "[empty]"


async def test_a_folder_of_thousands_is_cut(use: Use, workspace: Path) -> None:
    (workspace / "many").mkdir()
    for number in range(1_003):
        (workspace / "many" / f"{number:05}").touch()
    lines = (await use("list_dir", path="many")).output.split("\n")
    assert (lines[0], lines[999], lines[1000]) == ("00000", "00999", "[3 more entries]")


async def test_hidden_folders_inside_the_workspace_are_refused(workspace: Path) -> None:
    (workspace / "state").mkdir()
    (workspace / "state" / "token").write_text("t0ken")
    use = user_of(runner_of(workspace, hidden=(workspace / "state",)))
    assert not (await use("read_file", path="state/token")).success
    assert "t0ken" not in (await use("exec", command="cat state/token")).output

"""The diff of a file: it is one that `patch` applies, whatever the texts, and it costs little."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.unified_diff import CUT, MAX_LINES, bounded_diff, unified_diff


def test_a_change_is_shown_with_three_lines_around_it() -> None:
    before = "".join(f"{n}\n" for n in range(1, 21))
    after = before.replace("10\n", "ten\n")
    assert unified_diff("a/b.txt", before, after) == (
        "--- a/a/b.txt\n+++ b/a/b.txt\n@@ -7,7 +7,7 @@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n"
    )


def test_files_that_come_and_go_are_named_as_git_does() -> None:
    assert unified_diff("x", None, "one\n") == "--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+one\n"
    assert unified_diff("x", "one\n", None) == "--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n"
    assert unified_diff("x", "same\n", "same\n") == ""


def test_a_missing_last_newline_is_told() -> None:
    assert unified_diff("x", "one", "one\n").endswith("-one\n\\ No newline at end of file\n+one\n")


@pytest.mark.parametrize("before", ["", "a\n" * (MAX_LINES + 1), "".join(f"{n}\n" for n in range(4 * MAX_LINES))])
def test_texts_that_would_cost_much_are_replaced_as_a_whole(tmp_path: Path, before: str) -> None:
    after = "first\n" + "b\na\n" * MAX_LINES + "last\n"
    assert applied(tmp_path, before, after) == after


LINES = st.lists(st.sampled_from(["", "a", "b", "{", "\r", "--- x", "+++ y", "@@ z", "ä\x0b\x0c\u2028"]), max_size=40)


@settings(max_examples=60, deadline=None)
@given(LINES, LINES, st.booleans(), st.booleans())
def test_what_is_shown_makes_the_one_text_the_other(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str], old_ends: bool, new_ends: bool
) -> None:
    before, after = "\n".join(old) + "\n" * old_ends, "\n".join(new) + "\n" * new_ends
    assert applied(tmp_path_factory.mktemp("diff"), before, after) == after


def applied(folder: Path, before: str, after: str) -> str:
    """What `git apply` makes of the one text with the diff to the other."""
    (folder / "x").write_bytes(before.encode())
    diff = unified_diff("x", before, after)
    if diff:
        command = ["git", "apply", "--unidiff-zero", "--whitespace=nowarn", "-"]
        subprocess.run(command, cwd=folder, input=diff.encode(), check=True, capture_output=True)
    return (folder / "x").read_bytes().decode() if (folder / "x").exists() else ""


def test_a_diff_that_is_too_long_ends_with_a_whole_line_that_says_so() -> None:
    diff = unified_diff("x", "", "ä" * 30 + "\n" + "second\n" * 100)
    cut, truncated = bounded_diff(diff, 200)
    assert truncated
    assert cut.endswith("+second\n" + CUT)
    assert len(cut.encode()) <= 200
    assert bounded_diff(diff, 10_000) == (diff, False)
    one_line, truncated = bounded_diff("+" + "ä" * 300, 101)
    assert truncated
    assert len(one_line.encode()) <= 101

"""What is said of a log that grew, was rewritten, or went away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.log_diff import EMPTY, KEPT_BYTES, MAX_TAIL_BYTES, LogChange, LogTail, compare, state_of
from harness.regular_file import ReadRange


def over(content: bytes) -> ReadRange:
    return lambda start, max_bytes: content[start : start + max_bytes]


def change(before: bytes, after: bytes) -> LogChange | None:
    return compare(state_of(len(before), over(before)), len(after), over(after))


def test_an_addition_is_counted_and_shown() -> None:
    assert change(b"one\n", b"one\ntwo\nthree\n") == LogChange(10, "two\nthree\n")


def test_the_same_log_has_no_change() -> None:
    assert change(b"one\n", b"one\n") is None
    assert change(b"", b"") is None


@pytest.mark.parametrize("after", [b"ONE\nmore\n", b"ONE\n", b"on", b"zero\none\n"])
def test_a_rewritten_log_counts_whole(after: bytes) -> None:
    assert change(b"one\n", after) == LogChange(len(after), after.decode())


def test_a_log_that_was_emptied_is_a_change_of_nothing() -> None:
    assert change(b"one\n", b"") == LogChange(0, "")


def test_a_long_addition_shows_its_last_whole_lines() -> None:
    added = b"".join(b"line %04d\n" % number for number in range(1000))
    found = change(b"start\n", b"start\n" + added)
    assert found is not None
    assert found.appended_bytes == len(added)
    assert found.tail.startswith("line 0")
    assert found.tail.endswith("line 0999\n")
    assert MAX_TAIL_BYTES - 10 < len(found.tail.encode()) <= MAX_TAIL_BYTES


def test_a_tail_is_cut_between_characters() -> None:
    found = change(b"", "€".encode() * 2000)
    assert found is not None
    assert found.tail == "€" * (MAX_TAIL_BYTES // 3)


def test_a_character_that_is_not_written_whole_yet_is_left_out() -> None:
    assert change(b"", "ab€".encode()[:-1]) == LogChange(4, "ab")


def test_invalid_bytes_do_not_make_the_tail_longer() -> None:
    found = change(b"", b"\xff" * 5000)
    assert found is not None
    assert set(found.tail) == {"\ufffd"}
    assert len(found.tail.encode()) <= MAX_TAIL_BYTES


@given(before=st.binary(max_size=200), added=st.binary(max_size=4000))
def test_any_addition_is_counted_exactly_and_its_tail_is_bounded(before: bytes, added: bytes) -> None:
    found = change(before, before + added)
    if not added:
        assert found is None
    else:
        assert found is not None
        assert found.appended_bytes == len(added)
        assert len(found.tail.encode()) <= MAX_TAIL_BYTES


def test_a_file_is_followed_over_additions_and_rewrites(tmp_path: Path) -> None:
    path = tmp_path / "codys-log.md"
    path.write_text("old\n")
    tail = LogTail(path)
    assert tail.poll() is None
    with path.open("a") as file:
        file.write("one\n")
    assert tail.poll() == LogChange(4, "one\n")
    assert tail.poll() is None
    other = tmp_path / "new"
    other.write_text("all new\n")
    other.replace(path)
    assert tail.poll() == LogChange(8, "all new\n")
    assert tail.poll() is None


def test_a_log_that_appears_later_counts_whole(tmp_path: Path) -> None:
    tail = LogTail(tmp_path / "codys-log.md")
    assert tail.poll() is None
    (tmp_path / "codys-log.md").write_text("first\n")
    assert tail.poll() == LogChange(6, "first\n")


def test_a_log_that_is_away_for_a_moment_is_compared_with_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "codys-log.md"
    path.write_text("old\n")
    tail = LogTail(path)
    path.unlink()
    assert tail.poll() is None
    path.write_text("old\nnew\n")
    assert tail.poll() == LogChange(4, "new\n")


def test_a_log_that_is_being_written_anew_is_compared_with_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "codys-log.md"
    path.write_text("old\n")
    tail = LogTail(path)
    with path.open("w") as file:
        assert tail.poll() is None
        file.write("old\nnew\n")
    assert tail.poll() == LogChange(4, "new\n")


def test_a_link_or_a_fifo_in_place_of_the_log_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "codys-log.md"
    tail = LogTail(path)
    (tmp_path / "secret").write_text("secret\n")
    path.symlink_to("secret")
    assert tail.poll() is None
    path.unlink()
    os.mkfifo(path)
    assert tail.poll() is None


def test_following_goes_on_from_a_given_state(tmp_path: Path) -> None:
    path = tmp_path / "codys-log.md"
    path.write_text("written before\n")
    assert LogTail(path, EMPTY).poll() == LogChange(15, "written before\n")


def test_a_huge_log_is_followed_by_its_ends(tmp_path: Path) -> None:
    path = tmp_path / "codys-log.md"
    reads: list[int] = []
    with path.open("wb") as file:
        file.truncate(1 << 30)
    tail = LogTail(path)
    with path.open("ab") as file:
        file.write(b"done\n")
    assert tail.poll() == LogChange(5, "done\n")

    def counted(start: int, max_bytes: int) -> bytes:
        reads.append(max_bytes)
        return b"\0" * max_bytes

    compare(state_of(1 << 30, counted), (1 << 30) + 10_000, counted)
    assert sum(reads) <= 2 * KEPT_BYTES + MAX_TAIL_BYTES

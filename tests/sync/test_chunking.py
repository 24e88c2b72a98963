"""Records cut into chunks: nothing lost, nothing added, the same cuts however it was read, constant memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cody.sync.chunking import chunk_lines, chunk_messages
from cody.sync.contracts import Chunk
from cody.sync.policy import ManifestBuilder

sizes = st.integers(1, 12)
messages = st.lists(st.binary(max_size=30), max_size=20)
lines = st.lists(st.sampled_from([b"\n", b"a", b"bb\n", b"a long line without an end", b"\n\n"]), max_size=20)


def assert_sound(chunks: list[Chunk], whole: bytes, count: int, max_bytes: int) -> None:
    assert b"".join(chunk.payload for chunk in chunks) == whole
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert all(chunk.byte_size == len(chunk.payload) <= max_bytes for chunk in chunks)
    assert sum(chunk.message_count for chunk in chunks) == count


@given(messages, sizes)
def test_messages_come_out_whole_and_counted(parts: list[bytes], max_bytes: int) -> None:
    assert_sound(list(chunk_messages(parts, max_bytes)), b"".join(parts), len(parts), max_bytes)


@given(messages, sizes)
def test_a_message_that_fits_is_not_cut(parts: list[bytes], max_bytes: int) -> None:
    cuts, at = set(), 0
    for chunk in chunk_messages(parts, max_bytes):
        at += chunk.byte_size
        cuts.add(at)
    at = 0
    for part in parts:
        if len(part) <= max_bytes:
            assert not cuts & set(range(at + 1, at + len(part)))
        at += len(part)


def count_of(whole: bytes) -> int:
    return whole.count(b"\n") + (bool(whole) and not whole.endswith(b"\n"))


@given(lines, sizes)
def test_lines_come_out_whole_and_counted(parts: list[bytes], max_bytes: int) -> None:
    whole = b"".join(parts)
    assert_sound(list(chunk_lines(parts, max_bytes)), whole, count_of(whole), max_bytes)


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), min_size=1), sizes)
def test_the_blocks_that_a_file_is_read_in_do_not_matter(whole: bytes, blocks: list[int], max_bytes: int) -> None:
    def read() -> Iterator[bytes]:
        at = 0
        while at < len(whole):
            for size in blocks:
                yield whole[at : at + size]
                at += size

    assert list(chunk_lines(read(), max_bytes)) == list(chunk_lines([whole], max_bytes))


@given(lines, lines, sizes)
def test_a_record_that_has_grown_begins_with_the_same_chunks(before: list[bytes], more: list[bytes], size: int) -> None:
    short, long = list(chunk_lines(before, size)), list(chunk_lines([*before, *more], size))
    assert long[: max(len(short) - 1, 0)] == short[:-1]


def test_an_empty_record_has_no_chunks_and_empty_messages_count() -> None:
    assert list(chunk_messages([])) == list(chunk_lines([])) == list(chunk_lines([b"", b""])) == []
    assert [chunk.message_count for chunk in chunk_messages([b"", b""])] == [2]


@pytest.mark.parametrize("cut", [chunk_messages, chunk_lines])
def test_a_size_that_holds_nothing_is_refused(cut: Callable[[list[bytes], int], Iterator[Chunk]]) -> None:
    with pytest.raises(ValueError, match="max_bytes is 0"):
        list(cut([b"a"], 0))


def test_one_chunk_at_a_time_is_held() -> None:
    block, max_bytes = b"x" * 65_536, 262_144

    def endless_line() -> Iterator[bytes]:
        for _ in range(1024):  # 64 MiB without a newline
            yield block

    builder = ManifestBuilder()
    tracemalloc.start()
    try:
        for _ in builder.through(chunk_lines(endless_line(), max_bytes)):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert builder.manifest.byte_size == 1024 * len(block)
    assert peak < 8 * max_bytes

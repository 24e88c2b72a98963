"""A record that comes in pieces is read by lines, in bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cody.pipeline.record_lines import lines_of

WHOLE = b'one\n\n{"text": "\xe2\x80\xa8 ends no line"}\r\nlonger than ten bytes\nlast'


async def pieces(whole: bytes, size: int) -> AsyncIterator[bytes]:
    for place in range(0, len(whole), size):
        yield whole[place : place + size]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_the_pieces_do_not_matter(size: int) -> None:
    assert [line async for line in lines_of(pieces(WHOLE, size))] == WHOLE.split(b"\n")
    assert [line async for line in lines_of(pieces(WHOLE + b"\n", size))] == WHOLE.split(b"\n")


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_a_line_that_is_too_long_is_left_out_and_the_others_keep_their_numbers(size: int) -> None:
    expected = [line if len(line) <= 10 else b"" for line in WHOLE.split(b"\n")]
    assert [line async for line in lines_of(pieces(WHOLE, size), max_bytes=10)] == expected
    too_long = [line async for line in lines_of(pieces(b"x" * 50, size), max_bytes=10)]
    assert too_long == [b""]

"""Which bytes a Range header or an offset means."""

from __future__ import annotations

import pytest

from server.problems import RangeNotSatisfiable
from server.ranges import Part, from_header, from_offset


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", Part(0, 1, partial=True)),
        ("bytes=2-4", Part(2, 5, partial=True)),
        ("bytes=2-", Part(2, 10, partial=True)),
        ("bytes=0-99", Part(0, 10, partial=True)),
        ("bytes=-3", Part(7, 10, partial=True)),
        ("bytes=-99", Part(0, 10, partial=True)),
        ("BYTES=9-9", Part(9, 10, partial=True)),
        # What is not one byte range is ignored, and the whole is sent.
        ("bytes=4-2", Part(0, 10)),
        ("bytes=-", Part(0, 10)),
        ("bytes=0-1,3-4", Part(0, 10)),
        ("lines=0-1", Part(0, 10)),
        ("bytes=a-b", Part(0, 10)),
        ("bytes=" + "9" * 5_000 + "-", Part(0, 10)),
        ("", Part(0, 10)),
    ],
)
def test_ranges_of_ten_bytes(header: str, expected: Part) -> None:
    assert from_header(header, 10) == expected


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-1", 0)])
def test_ranges_of_which_nothing_exists(header: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiable) as refused:
        from_header(header, size)
    assert refused.value.headers == {"Content-Range": f"bytes */{size}"}


def test_an_offset_at_the_end_is_an_empty_part_and_one_behind_it_an_error() -> None:
    assert from_offset(4, 10) == Part(4, 10)
    assert from_offset(10, 10).length == 0
    with pytest.raises(RangeNotSatisfiable):
        from_offset(11, 10)

"""Which bytes of a file a request asks for (RFC 9110, section 14): pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from server.problems import RangeNotSatisfiable

_ONE_RANGE = re.compile(r"bytes=[ \t]*(\d{0,19})-(\d{0,19})[ \t]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `begin` up to, not including, `end`. `partial`: answered with 206."""

    begin: int
    end: int
    partial: bool = False

    @property
    def length(self) -> int:
        return self.end - self.begin


def from_offset(offset: int, size: int) -> Part:
    """All from `offset` on; nothing when it is the end. Raises RangeNotSatisfiable beyond the end."""
    if offset > size:
        raise _not_satisfiable(size, f"offset {offset} is behind the end")
    return Part(offset, size)


def from_header(header: str, size: int) -> Part:
    """What a Range header asks for: a header that is not one single byte range is ignored, as the RFC has it.

    Raises RangeNotSatisfiable when nothing of the range exists.
    """
    whole = Part(0, size)
    found = _ONE_RANGE.fullmatch(header.strip())
    if found is None or found.groups() == ("", ""):
        return whole
    first, last = found.groups()
    if not first:
        if int(last) == 0 or size == 0:
            raise _not_satisfiable(size, "the range is empty")
        return Part(max(0, size - int(last)), size, partial=True)
    if last and int(last) < int(first):
        return whole
    if int(first) >= size:
        raise _not_satisfiable(size, f"byte {int(first)} is behind the end")
    end = min(int(last) + 1, size) if last else size
    return Part(int(first), end, partial=True)


def _not_satisfiable(size: int, why: str) -> RangeNotSatisfiable:
    return RangeNotSatisfiable(
        f"{why}: there are {size} bytes now", details={"size": size}, headers={"Content-Range": f"bytes */{size}"}
    )

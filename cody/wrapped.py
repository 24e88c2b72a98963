"""Long texts found in data where they may be broken into lines: base64 of 76 or 64 columns, hexadecimal of 60. Pure.

Of each text a few pieces are looked for, chosen so that every line that is full has one; from there the text is followed
to both sides, over line ends, also as JSON writes those.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ahocorasick_rs import BytesAhoCorasick

MIN_FORM_BYTES = 24
"""Shorter texts are looked for as a whole only."""
ANCHOR_BYTES = 8
MIN_LINE_BYTES = 60
"""The shortest line that programs break these texts into."""
MIN_PIECE_BYTES = 4
"""Of the text on one side of a line end."""
MAX_BREAK_BYTES = 8

_BREAK = re.compile(rb"[\r\n]{1,8}|(?:\\{1,3}[rn]){1,2}")
_BREAK_BEFORE = re.compile(rb"(?:[\r\n]{1,8}|(?:\\{1,3}[rn]){1,2})\Z")
_BREAKS = re.compile(rb"[\r\n]+|\\+[rn]|\\+\Z")


@dataclass(frozen=True, slots=True)
class Found:
    """What stands at [begin, end), and what it is replaced by. `open`: it may go on behind the end of the data."""

    begin: int
    end: int
    mark: bytes
    open: bool = False


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A text to look for, and what it is replaced by."""

    form: bytes
    mark: bytes

    @property
    def enough(self) -> int:
        """Bytes: so much in a row is in the longest line, wherever the breaks are; and it has an anchor."""
        return min(MIN_LINE_BYTES, len(self.form) // 2)


def in_lines(size: int) -> int:
    """How many bytes a text of this size takes in lines, at the most."""
    return size + (size // MIN_LINE_BYTES + 2) * MAX_BREAK_BYTES


def without_breaks(data: bytes) -> bytes:
    """The data as one line; half of a break at its end counts as one."""
    return _BREAKS.sub(b"", data)


class WrappedForms:
    """Looks for all of them at once."""

    def __init__(self, forms: Sequence[Wrapped]) -> None:
        self.anchors = list(dict.fromkeys(anchor for one in forms for anchor in _anchors(one)))
        # Keys that begin alike share anchors: one may stand in several texts, and more than once in one.
        self._places = [[(one, at) for one in forms for at in _all_in(one.form, anchor)] for anchor in self.anchors]
        self._matcher = BytesAhoCorasick(self.anchors) if self.anchors else None

    @staticmethod
    def takes(form: bytes) -> bool:
        """Whether the text is long enough to be looked for in lines."""
        return len(form) >= MIN_FORM_BYTES

    def find(self, data: bytes) -> list[Found]:
        """In order, none over another."""
        found: list[Found] = []
        if self._matcher is None:
            return found
        free = 0
        for which, begin, _ in self._matcher.find_matches_as_indexes(data, overlapping=True):
            if begin < free:
                continue
            spans = [_followed(data, begin, one, at, free) for one, at in self._places[which]]
            best = max((span for span in spans if span), key=lambda span: span.end - span.begin, default=None)
            if best is not None:
                found.append(best)
                free = best.end
        return found


def _anchors(one: Wrapped) -> list[bytes]:
    """Pieces of the text of which each run of `enough` bytes has one, and few: each makes the search a little slower."""
    step = one.enough - ANCHOR_BYTES + 1
    last = len(one.form) - ANCHOR_BYTES
    places = [min(at, last) for at in range(step - 1, len(one.form) - one.enough + step, step)]
    return [one.form[at : at + ANCHOR_BYTES] for at in places]


def _all_in(form: bytes, piece: bytes) -> list[int]:
    found = [form.find(piece)]
    while found[-1] >= 0:
        found.append(form.find(piece, found[-1] + 1))
    return found[:-1]


def _followed(data: bytes, begin: int, one: Wrapped, at: int, free: int) -> Found | None:
    """All of the text around its piece at `begin`, which is at `at` in the text; None when that is too little.

    What is before `free` belongs to others.
    """
    first, start = _to_the_left(data, begin, one.form, at, free)
    last, end = _to_the_right(data, begin + ANCHOR_BYTES, one.form, at + ANCHOR_BYTES)
    if last - first < one.enough:
        return None
    rest = data[end : end + MAX_BREAK_BYTES + MIN_PIECE_BYTES]
    is_open = last < len(one.form) and one.form[last:].startswith(without_breaks(rest)) and end + len(rest) == len(data)
    return Found(start, end, one.mark, is_open)


def _to_the_right(data: bytes, end: int, form: bytes, at: int) -> tuple[int, int]:
    """How far the text goes: in the text, and in the data."""
    while True:
        while at < len(form) and end < len(data) and data[end] == form[at]:
            at, end = at + 1, end + 1
        found = _BREAK.match(data, end)
        piece = form[at : at + MIN_PIECE_BYTES]
        if found is None or not piece or not data.startswith(piece, found.end()):
            return at, end
        end = found.end()


def _to_the_left(data: bytes, begin: int, form: bytes, at: int, free: int) -> tuple[int, int]:
    """From where on the text goes: in the text, and in the data."""
    while True:
        while at > 0 and begin > free and data[begin - 1] == form[at - 1]:
            at, begin = at - 1, begin - 1
        found = _BREAK_BEFORE.search(data[max(free, begin - MAX_BREAK_BYTES) : begin])
        if found is None or at < MIN_PIECE_BYTES:
            return at, begin
        before = begin - len(found[0])
        if before - MIN_PIECE_BYTES < free or not data.endswith(form[at - MIN_PIECE_BYTES : at], 0, before):
            return at, begin
        begin = before

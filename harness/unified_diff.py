"""What changed in a text file, as a unified diff. Pure, and of bounded cost whatever the texts are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

CONTEXT_LINES = 3
MAX_LINES = 1_500
MAX_PAIRS = 20_000
"""Of equal lines. difflib's time grows with both; beyond either the changed middle is shown as replaced, which is true too."""
NO_NEWLINE = "\\ No newline at end of file\n"
CUT = "... the diff goes on: it was cut here ...\n"


def unified_diff(path: str, before: str | None, after: str | None) -> str:
    """The diff of one file in git's words (`a/`, `b/`, /dev/null); '' when nothing changed. None = there is no such file."""
    if before == after:
        return ""
    old, new = _lines(before), _lines(after)
    head = f"--- {f'a/{path}' if before is not None else '/dev/null'}\n+++ {f'b/{path}' if after is not None else '/dev/null'}\n"
    return head + "".join(_hunks(old, new))


def bounded_diff(text: str, max_bytes: int) -> tuple[str, bool]:
    """The diff, or its first lines within `max_bytes` (UTF-8) and a line that says so; True when it was cut."""
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return text, False
    head = data[: max_bytes - len(CUT)]
    whole_lines = head[: head.rfind(b"\n") + 1]
    return (whole_lines or head).decode("utf-8", "ignore") + CUT, True


def _lines(text: str | None) -> list[str]:
    """The lines with their newlines; only '\\n' ends one, as in git."""
    if not text:
        return []
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def _hunks(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    for group in _grouped(_changes(old, new), len(old), len(new)):
        (begin_old, begin_new), (end_old, end_new) = group[0][:2], (group[-1][2], group[-1][3])
        yield f"@@ -{_range(begin_old, end_old)} +{_range(begin_new, end_new)} @@\n"
        for first_old, first_new, last_old, last_new, same in group:
            if same:
                yield from (_line(" ", line) for line in old[first_old:last_old])
            else:
                yield from (_line("-", line) for line in old[first_old:last_old])
                yield from (_line("+", line) for line in new[first_new:last_new])


Block = tuple[int, int, int, int, bool]
"""(first old line, first new line, behind the last old one, behind the last new one, whether they are the same)."""


def _changes(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """What was replaced by what, as (old begin, new begin, old end, new end), in order."""
    begin, shorter = 0, min(len(old), len(new))
    while begin < shorter and old[begin] == new[begin]:
        begin += 1
    end = 0
    while end < shorter - begin and old[-1 - end] == new[-1 - end]:
        end += 1
    a, b = old[begin : len(old) - end], new[begin : len(new) - end]
    if not _is_cheap(a, b):
        return [(begin, begin, begin + len(a), begin + len(b))]
    codes = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    return [(begin + i1, begin + j1, begin + i2, begin + j2) for tag, i1, i2, j1, j2 in codes if tag != "equal"]


def _is_cheap(a: Sequence[str], b: Sequence[str]) -> bool:
    if len(a) > MAX_LINES or len(b) > MAX_LINES:
        return False
    counts = Counter(b)
    return sum(counts[line] for line in a) <= MAX_PAIRS


def _grouped(changes: Sequence[tuple[int, int, int, int]], old_count: int, new_count: int) -> Iterator[list[Block]]:
    """The changes with the lines around them; those whose surroundings touch are one group."""
    group: list[Block] = []
    for place, (begin_old, begin_new, end_old, end_new) in enumerate(changes):
        if not group:
            lead = min(CONTEXT_LINES, begin_old, begin_new)
            group.append((begin_old - lead, begin_new - lead, begin_old, begin_new, True))
        group.append((begin_old, begin_new, end_old, end_new, False))
        next_old = changes[place + 1][0] if place + 1 < len(changes) else None
        if next_old is not None and next_old - end_old <= 2 * CONTEXT_LINES:
            gap = next_old - end_old
            group.append((end_old, end_new, end_old + gap, end_new + gap, True))
            continue
        tail = min(CONTEXT_LINES, old_count - end_old, new_count - end_new)
        group.append((end_old, end_new, end_old + tail, end_new + tail, True))
        yield group
        group = []


def _range(begin: int, end: int) -> str:
    """As `diff -u` writes it: the first line from 1, and how many; before an empty range stands the line before it."""
    count = end - begin
    if count == 1:
        return str(begin + 1)
    return f"{begin + 1 if count else begin},{count}"


def _line(mark: str, line: str) -> str:
    return f"{mark}{line}" if line.endswith("\n") else f"{mark}{line}\n{NO_NEWLINE}"

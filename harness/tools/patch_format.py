"""Patches in the format that codex's `apply_patch` reads: text in, operations out. Pure.

Source: the tool's description in codex 0.163, and what codex 0.169 was seen to accept. Not taken over: the shell
heredoc around a patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.tools.refusal import ToolRefused

BEGIN, END = "*** Begin Patch", "*** End Patch"
ADD, DELETE, UPDATE = "*** Add File: ", "*** Delete File: ", "*** Update File: "
MOVE, END_OF_FILE = "*** Move to: ", "*** End of File"
MAX_FILES = 200
MAX_HUNKS = 500
"""Of one file. Each is looked for in all of it."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """`before` becomes `after`. `below`: a line that stands above the place. `at_end`: the place is the file's end."""

    below: str | None
    before: tuple[str, ...]
    after: tuple[str, ...]
    at_end: bool = False


@dataclass(frozen=True, slots=True)
class AddFile:
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class DeleteFile:
    path: str


@dataclass(frozen=True, slots=True)
class UpdateFile:
    path: str
    move_to: str | None
    hunks: tuple[Hunk, ...]


Operation = AddFile | DeleteFile | UpdateFile


def parse_patch(text: str) -> tuple[Operation, ...]:
    """The patch's operations in their order; raises ToolRefused, naming the line."""
    lines = text.replace("\r\n", "\n").strip().split("\n")
    if lines[0].strip() != BEGIN or lines[-1].strip() != END:
        raise ToolRefused(f"the patch must begin with `{BEGIN}` and end with `{END}`")
    reader = _Lines(lines[1:-1])
    found: list[Operation] = []
    while (line := reader.peek()) is not None:
        if not line.strip():
            reader.take()
            continue
        found.append(_operation(reader))
        if len(found) > MAX_FILES:
            raise ToolRefused(f"the patch changes more than {MAX_FILES} files: send several")
    if not found:
        raise ToolRefused("the patch changes nothing")
    paths = [path for one in found for path in (one.path, *(_moved(one)))]
    if len(set(paths)) != len(paths):
        raise ToolRefused("the patch names a file twice: put its changes into one part, or send two patches")
    return tuple(found)


def apply_hunks(path: str, text: str, hunks: tuple[Hunk, ...]) -> str:
    """The text with the hunks applied, in order; raises ToolRefused where a hunk's lines are not found. Pure."""
    crlf = "\r\n" in text and text.count("\r\n") == text.count("\n")
    lines = (text.replace("\r\n", "\n") if crlf else text).split("\n")
    if lines[-1] == "":
        lines.pop()
    at = 0
    for number, hunk in enumerate(hunks, start=1):
        where, size, after = _place(path, lines, hunk, at, number)
        lines[where : where + size] = after
        at = where + len(after)
    # A file without a newline at its end gets one, as codex does.
    result = "\n".join(lines) + ("\n" if lines else "")
    return result.replace("\n", "\r\n") if crlf else result


def _moved(operation: Operation) -> tuple[str, ...]:
    moved = isinstance(operation, UpdateFile) and operation.move_to not in {None, operation.path}
    return (operation.move_to or "",) if isinstance(operation, UpdateFile) and moved else ()


class _Lines:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0

    @property
    def number(self) -> int:
        """Of the next line, counted from the patch's first."""
        return self._at + 2

    def peek(self) -> str | None:
        return self._lines[self._at] if self._at < len(self._lines) else None

    def take(self) -> str:
        self._at += 1
        return self._lines[self._at - 1]

    def until_operation(self) -> Iterator[str]:
        while (line := self.peek()) is not None and not line.startswith((ADD, DELETE, UPDATE)):
            yield self.take()


def _operation(reader: _Lines) -> Operation:
    number, head = reader.number, reader.take()
    for mark in (ADD, DELETE, UPDATE):
        if head.startswith(mark):
            path = head[len(mark) :].strip()
            if not path or "\0" in path:
                raise ToolRefused(f"line {number} of the patch names no file")
            match mark:
                case _ if mark == ADD:
                    return AddFile(path, _added(reader))
                case _ if mark == DELETE:
                    return DeleteFile(path)
                case _:
                    return _update(reader, path)
    raise ToolRefused(f"line {number} of the patch is none of Add File, Delete File, Update File: {head[:80]!r}")


def _added(reader: _Lines) -> str:
    text: list[str] = []
    start = reader.number
    for line in reader.until_operation():
        if not line.startswith("+"):
            if not line.strip():
                continue
            raise ToolRefused(f"line {start + len(text)} of the patch: lines of a new file begin with +: {line[:80]!r}")
        text.append(line[1:])
    return "".join(f"{line}\n" for line in text)


def _update(reader: _Lines, path: str) -> UpdateFile:
    move_to = None
    line = reader.peek()
    if line is not None and line.startswith(MOVE):
        move_to = reader.take()[len(MOVE) :].strip()
        if not move_to:
            raise ToolRefused(f"the new path of {path} is missing")
    hunks = tuple(_hunks(reader, path))
    if len(hunks) > MAX_HUNKS:
        raise ToolRefused(f"the update of {path} has more than {MAX_HUNKS} hunks: write the file anew")
    if not hunks and move_to is None:
        raise ToolRefused(f"the update of {path} changes nothing")
    return UpdateFile(path, move_to, hunks)


def _hunks(reader: _Lines, path: str) -> Iterator[Hunk]:
    below: str | None = None
    before: list[str] = []
    after: list[str] = []
    at_end = started = False
    number = reader.number - 1
    for number, line in enumerate(reader.until_operation(), start=reader.number):
        if line == "@@" or line.startswith("@@ ") or line.strip() == END_OF_FILE:
            at_end = line.strip() == END_OF_FILE
            if started:
                yield Hunk(below, tuple(before), tuple(after), at_end)
                before, after, below, started = [], [], None, False
            if not at_end:
                below = line[3:].rstrip() or None
            continue
        started = True
        match line[:1]:
            case "+":
                after.append(line[1:])
            case "-":
                before.append(line[1:])
            case " " | "":
                before.append(line[1:])
                after.append(line[1:])
            case _:
                raise ToolRefused(
                    f"line {number} of the patch ({path}) begins with neither space, + nor -: {line[:80]!r}"
                )
    if started:
        yield Hunk(below, tuple(before), tuple(after))


def _place(path: str, lines: list[str], hunk: Hunk, start: int, number: int) -> tuple[int, int, tuple[str, ...]]:
    """Where the hunk's lines begin in the file, how many they are, and what takes their place."""
    if hunk.below is not None:
        found = _find(lines, (hunk.below,), start, at_end=False)
        if found is None:
            raise ToolRefused(f"{path}: hunk {number}: no line {hunk.below!r} after line {start}")
        start = found + 1
    if not hunk.before:
        return len(lines), 0, hunk.after
    candidates = [(hunk.before, hunk.after)]
    if hunk.before[-1] == "" and hunk.after[-1:] == ("",):
        # A blank line at the hunk's end may only be how the patch was written down.
        candidates.append((hunk.before[:-1], hunk.after[:-1]))
    for before, after in candidates:
        at = _find(lines, before, start, at_end=hunk.at_end) if before else None
        if at is not None:
            return at, len(before), after
    shown = "\n".join(hunk.before)[:500]
    raise ToolRefused(f"{path}: hunk {number}: these lines are not there after line {start}:\n{shown}")


def _find(lines: list[str], wanted: tuple[str, ...], start: int, *, at_end: bool) -> int | None:
    """The first place of these lines: exactly, else without blanks at the ends of lines, else without indentation.

    By a search in the whole text, which is linear: line by line, a file of equal lines takes minutes.
    """
    start = max(start, len(lines) - len(wanted)) if at_end else start
    for same in (str, str.rstrip, str.strip):
        text = "\n" + "".join(f"{same(line)}\n" for line in lines[start:])
        at = text.find("\n" + "".join(f"{same(line)}\n" for line in wanted))
        if at >= 0:
            return start + text.count("\n", 0, at)
    return None

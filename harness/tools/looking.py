"""Reading files and listing folders for the model: bounded, whatever is there. Blocks; raises ToolRefused."""

from __future__ import annotations

import os
from itertools import islice

from harness.regular_file import ReadRange
from harness.tools.definitions import ListDir, ReadFile
from harness.tools.refusal import ToolRefused
from harness.tools.workspace_files import WorkspaceFiles

CHUNK_BYTES = 1 << 16
MAX_SCANNED_BYTES = 64 << 20
"""How deep into a file a line is looked for: reading it takes some 50 ms."""
MAX_ENTRIES = 1_000
MAX_SEEN_ENTRIES = 50_000


def read_lines(files: WorkspaceFiles, asked: ReadFile, *, max_bytes: int) -> str:
    """The lines asked for, at most `max_bytes` of them; what was left out is said in a last line."""
    with files.reading(asked.path) as file:
        start = _start_of_line(file.read, asked.offset)
        if start is None:
            raise ToolRefused(
                f"{asked.path}: line {asked.offset} is past its end, or past {MAX_SCANNED_BYTES} bytes "
                f"(the file has {file.size} bytes)"
            )
        data = file.read(start, max_bytes)
        size = file.size
    if b"\0" in data:
        raise ToolRefused(f"{asked.path}: is a binary file of {size} bytes")
    lines = data.split(b"\n", asked.limit)
    shown = b"\n".join(lines[: asked.limit]) + (b"\n" if len(lines) > asked.limit else b"")
    rest = size - start - len(shown)
    text = shown.decode("utf-8", "replace")
    if rest <= 0:
        return text
    following = asked.offset + shown.count(b"\n")
    newline = "" if text.endswith("\n") else "\n"
    return f"{text}{newline}[{rest} more bytes of {size}; go on with offset {following}]"


def _start_of_line(read: ReadRange, number: int) -> int | None:
    """The byte at which the line begins; None when the file has no such line, or it is too deep."""
    at, missing = 0, number - 1
    while missing and at < MAX_SCANNED_BYTES:
        chunk = read(at, CHUNK_BYTES)
        if not chunk:
            return None
        count = chunk.count(b"\n")
        if count < missing:
            missing -= count
            at += len(chunk)
            continue
        found = -1
        for _ in range(missing):
            found = chunk.index(b"\n", found + 1)
        return at + found + 1
    return at if not missing else None


def list_entries(files: WorkspaceFiles, asked: ListDir) -> str:
    """One name a line, sorted; at most MAX_ENTRIES."""
    with files.folder(asked.path) as descriptor, os.scandir(descriptor) as entries:
        seen = [_shown(entry) for entry in islice(entries, MAX_SEEN_ENTRIES)]
        more = next(entries, None) is not None
    seen.sort()
    lines = seen[:MAX_ENTRIES]
    if len(seen) > MAX_ENTRIES:
        lines.append(f"[{len(seen) - MAX_ENTRIES}{' or more' if more else ''} more entries]")
    return "\n".join(lines) if lines else "[empty]"


def _shown(entry: os.DirEntry[str]) -> str:
    # A newline in a name would make two entries of one.
    name = os.fsencode(entry.name).decode("utf-8", "replace").replace("\n", "\\n").replace("\r", "\\r")
    if entry.is_symlink():
        return f"{name}@"
    return f"{name}/" if entry.is_dir(follow_symlinks=False) else name

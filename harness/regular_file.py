"""Bounded reads of files that somebody else owns: regular files only, never through a link, never blocking.

The agent can put anything in place of a file that Cody reads: a symbolic link out of the workspace, a FIFO that never
answers, a log of gigabytes. Every read of the epic folder goes through here.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ReadRange = Callable[[int, int], bytes]
"""`read(start, max_bytes)`: the bytes from `start` on, fewer where the file ends."""

_FOLDER_FLAGS = (
    # O_PATH needs no permission to list: a folder that may only be entered is one that Cody may go through.
    getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
)
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegular(OSError):
    """There is something at the path, and it is not a regular file."""


@dataclass(frozen=True, slots=True)
class RegularFile:
    """An open regular file; `size` is what it had when it was opened, so that a growing file has an end."""

    fd: int
    size: int

    def read(self, start: int, max_bytes: int) -> bytes:
        """At most `max_bytes` from `start` on, nothing behind `size`; shorter when the file was cut meanwhile."""
        wanted = min(max_bytes, self.size - start)
        parts: list[bytes] = []
        while wanted > 0:
            part = os.pread(self.fd, wanted, start)
            if not part:
                break
            parts.append(part)
            start += len(part)
            wanted -= len(part)
        return b"".join(parts)


@contextmanager
def opened(path: Path) -> Iterator[RegularFile]:
    """The regular file at `path`, an absolute path without links: no component of it is followed if it is one by now.

    Raises FileNotFoundError, NotRegular, or what else the system says (OSError).
    """
    folder = _opened_folder(path.parent)
    try:
        # Looked at before it is opened too: opening a FIFO wakes its writer, opening a device can act.
        _require_regular(os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode)
        fd = os.open(path.name, _OPEN_FLAGS, dir_fd=folder)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise NotRegular(error.errno, "is not a regular file") from None
        raise
    finally:
        os.close(folder)
    try:
        status = os.fstat(fd)
        _require_regular(status.st_mode)
        yield RegularFile(fd, status.st_size)
    finally:
        os.close(fd)


def _opened_folder(folder: Path) -> int:
    """A descriptor of this folder, walked to from the root, one component after the other.

    A check of the path before it is opened as a whole would leave a moment in which a link can take a component's place.
    """
    current = os.open(folder.anchor, _FOLDER_FLAGS)
    for name in folder.parts[1:]:
        try:
            below = os.open(name, _FOLDER_FLAGS, dir_fd=current)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise NotRegular(error.errno, f"is not a regular file: {name} on the way to it is no folder") from None
            raise
        finally:
            os.close(current)
        current = below
    return current


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise NotRegular(errno.EINVAL, f"is {kind}, not a regular file")


def why_unreadable(error: OSError) -> str:
    """The end of a sentence that starts with the path: `is a FIFO, not a regular file`."""
    if isinstance(error, NotRegular):
        return error.strerror or "is not a regular file"
    return f"cannot be read ({error.strerror or error})"


def text_of_tail(data: bytes, *, cut: bool) -> str:
    """`data` as text; with `cut`, what came before was left out: the broken first line (or character) is dropped.

    An unfinished character at the end, of a writer that is not done yet, is dropped; invalid bytes become U+FFFD.
    """
    if cut:
        newline = data.find(b"\n")
        if 0 <= newline < len(data) - 1:
            data = data[newline + 1 :]
        else:
            data = data.lstrip(bytes(range(0x80, 0xC0))) if _starts_inside_character(data) else data
    return _decode(data)


def text_of_head(data: bytes, *, cut: bool) -> str:
    """`data` as text; with `cut`, what follows was left out: the broken last line (or character) is dropped."""
    if cut:
        newline = data.rfind(b"\n")
        if newline >= 0:
            data = data[: newline + 1]
    return _decode(data)


def _starts_inside_character(data: bytes) -> bool:
    """True for one to three continuation bytes at the start: the rest of one UTF-8 character that was cut."""
    count = len(data) - len(data.lstrip(bytes(range(0x80, 0xC0))))
    return 1 <= count <= 3


def _decode(data: bytes) -> str:
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data, final=False)

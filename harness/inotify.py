"""One inotify instance of the kernel: folders are added and taken away as one likes (Linux; inotify(7)).

watchfiles 1.3 gives each set of folders an instance and two threads, and takes its folders once; of instances a user has 128.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

IN_ATTRIB = 0x4
IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x1000000
_IN_DONT_FOLLOW = 0x2000000
_IN_EXCL_UNLINK = 0x4000000
_IN_NONBLOCK = os.O_NONBLOCK
_IN_CLOEXEC = os.O_CLOEXEC

FOLDER_MASK = (IN_ATTRIB | IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE) | (
    _IN_ONLYDIR | _IN_DONT_FOLLOW | _IN_EXCL_UNLINK
)
_HEAD = struct.Struct("iIII")
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Notice:
    """Something happened to `name` in the folder behind `watch`; to the queue as a whole where `watch` is -1."""

    watch: int
    mask: int
    name: str


def is_available() -> bool:
    """Whether this system has it."""
    return sys.platform == "linux"


class Inotify:
    """Closed by `close`. Raises OSError: EMFILE = no instance left, ENOSPC = no watch left."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._checked(self._libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC), "inotify_init1")

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def add(self, folder: str) -> int:
        """The number of the watch of this folder; the same for the same folder, by whatever name."""
        path = os.fsencode(folder)
        return self._checked(self._libc.inotify_add_watch(self.fd, path, FOLDER_MASK), folder)

    def remove(self, watch: int) -> None:
        """Watch it no more; harmless for one that is gone by itself."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> Iterator[Notice]:
        """What has happened since the last call; names as `os.fsdecode` gives them."""
        while True:
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            place = 0
            while place < len(data):
                watch, mask, _, length = _HEAD.unpack_from(data, place)
                place += _HEAD.size
                yield Notice(watch, mask, os.fsdecode(data[place : place + length].rstrip(b"\0")))
                place += length

    def _checked(self, answer: int, what: str) -> int:
        if answer < 0:
            number = ctypes.get_errno()
            explained = {errno.EMFILE: "no inotify instance left", errno.ENOSPC: "no inotify watch left"}
            raise OSError(number, explained.get(number, os.strerror(number)), what)
        return answer

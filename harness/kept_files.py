"""What the text files of a workspace said before the agent changed them, as far as that fits into bounded memory.

codex tells which files a patch changes, never what it changes in them, and tells it when the patch is already applied (as of
0.163: the line arrives some milliseconds after the write). So the contents must be known before: they are read when the turn
begins, in the background, and again whenever the watch sees that somebody else wrote a file.
"""

from __future__ import annotations

import asyncio
import os
import threading
import zlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog

from harness.regular_file import opened
from harness.snapshot import FileChange, Snapshot

log = structlog.get_logger(__name__)

MAX_FILE_BYTES = 256 << 10
"""Of a file that is compared: sources are smaller, generated ones nobody reads as a diff."""
MAX_TOTAL_BYTES = 16 << 20
"""Of all that is kept, before it is packed: some 5 MB of memory for source text."""
MAX_FILES = 20_000
MAX_WAITING = 2_000
"""Changed files that wait to be read: an installation writes tens of thousands, which are not what a patch changes."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text file at one moment, packed. Two are equal when they say the same."""

    packed: bytes
    size: int
    mtime_ns: int

    @property
    def text(self) -> str:
        return zlib.decompress(self.packed).decode()

    def says(self, other: Text | None) -> bool:
        return other is not None and self.size == other.size and self.packed == other.packed


class NotText(Exception):
    """There is something that can't be compared; the message is the end of a sentence that begins with the path."""


def read_text(path: Path) -> Text | None:
    """The file as it is now; None when there is none. Raises NotText. `path` is absolute and without links."""
    try:
        with opened(path) as file:
            if file.size > MAX_FILE_BYTES:
                raise NotText(f"is larger than {MAX_FILE_BYTES >> 10} KiB")
            data, mtime_ns = file.read(0, file.size), os.fstat(file.fd).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise NotText(f"can't be read ({error.strerror or error})") from None
    if b"\0" in data:
        raise NotText("is not text")
    try:
        data.decode()
    except UnicodeDecodeError:
        raise NotText("is not text in UTF-8") from None
    return Text(zlib.compress(data, 1), len(data), mtime_ns)


@dataclass(frozen=True, slots=True)
class _Known:
    """`before` is what the file said before somebody other than a patch wrote it; it may have been that very patch."""

    now: Text
    before: Text | None = None


class KeptFiles:
    """The contents of one turn's workspace. All methods belong to the event loop; `load` and `noticed` read in a thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, _Known] = {}
        self._bytes = 0
        self._waiting: deque[str] = deque()
        self._reading: asyncio.Task[None] | None = None
        self._closing = threading.Event()

    def load(self, found: Snapshot) -> None:
        """Begin to read the files of a workspace in which the agent does not work yet.

        Those that were changed last come first: of a workspace too large to be kept they are what is worked on.
        """
        latest = sorted(((mtime, path) for path, (mtime, size, _) in found.files.items() if size <= MAX_FILE_BYTES))
        self._waiting.extend(path for _, path in reversed(latest[-MAX_FILES:]))
        self._read_on()

    def noticed(self, changes: Iterable[FileChange]) -> None:
        """Somebody wrote these files: read what they say now."""
        for change in changes:
            if change.signature is not None and len(self._waiting) < MAX_WAITING:
                # Before what is left of the beginning: this one is being worked on.
                self._waiting.appendleft(change.path)
        self._read_on()

    def before_change(self, path: str) -> tuple[Text, ...]:
        """What the file may have said before a patch that changes it now, the likeliest first."""
        known = self._known.get(path)
        if known is None:
            return ()
        return (known.now,) if known.before is None else (known.now, known.before)

    def changed_to(self, path: str, text: Text | None) -> None:
        """A patch has changed the file, and this is what it says now."""
        self._drop(path)
        if text is not None:
            self._put(path, _Known(text))

    async def aclose(self) -> None:
        """Read no more; what is known stays known. Repeating it is harmless."""
        self._closing.set()
        self._waiting.clear()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    def _read_on(self) -> None:
        if self._waiting and self._reading is None and not self._closing.is_set():
            self._reading = asyncio.create_task(self._read(), name="kept files")

    async def _read(self) -> None:
        try:
            while self._waiting and not self._closing.is_set():
                some = [self._waiting.popleft() for _ in range(min(len(self._waiting), 64))]
                for path, text in await asyncio.to_thread(self._texts, some):
                    self._take(path, text)
        except Exception:
            # At the worst a diff is missing: no reason to end a turn.
            log.exception("workspace.contents_not_kept", root=str(self.root))
        finally:
            self._reading = None

    def _texts(self, paths: Iterable[str]) -> list[tuple[str, Text]]:
        found = []
        for path in paths:
            if self._closing.is_set():
                break
            try:
                text = read_text(self.root / path)
            except (NotText, ValueError):
                continue
            if text is not None:
                found.append((path, text))
        return found

    def _take(self, path: str, text: Text) -> None:
        known = self._known.get(path)
        if known is None:
            self._put(path, _Known(text))
        elif text.size and text.mtime_ns >= known.now.mtime_ns and not text.says(known.now):
            # An empty one is hardly ever what somebody wrote: who writes a file anew empties it first.
            self._drop(path)
            self._put(path, _Known(text, known.now))

    def _put(self, path: str, known: _Known) -> None:
        size = known.now.size + (known.before.size if known.before else 0)
        if self._bytes + size <= MAX_TOTAL_BYTES and len(self._known) < MAX_FILES:
            self._known[path] = known
            self._bytes += size

    def _drop(self, path: str) -> None:
        known = self._known.pop(path, None)
        if known is not None:
            self._bytes -= known.now.size + (known.before.size if known.before else 0)

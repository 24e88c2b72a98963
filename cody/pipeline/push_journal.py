"""What is known of a push that has begun: enough to go on after a crash. One small file each, in the state folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cody.errors import Conflict


class Journal(BaseModel):
    """The first `acknowledged_chunks` chunks of the record, which hash to `acknowledged_sha256`, are on the other side."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    conversation_id: str
    path: str
    size: int
    chunk_bytes: int
    source_id: str | None = None
    acknowledged_chunks: int = 0
    acknowledged_bytes: int = 0
    acknowledged_sha256: str = ""
    job_id: str | None = None
    """Set when all of it was sealed."""

    def is_of(self, other: Journal) -> bool:
        """Whether both are of the same push."""
        names = ("url", "conversation_id", "path", "size", "chunk_bytes")
        return all(getattr(self, name) == getattr(other, name) for name in names)


class JournalFile:
    """The journal of one conversation's push to one server; `spool` is where its record may be kept beside it."""

    def __init__(self, folder: Path, url: str, conversation_id: str) -> None:
        name = hashlib.sha256(f"{url}\n{conversation_id}".encode()).hexdigest()[:32]
        self._path = folder / f"{name}.json"
        self.spool = folder / f"{name}.record"
        self._what = conversation_id

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else pushes this meanwhile; raises Conflict when somebody does."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"another `cody sync push` sends {self._what} there right now") from None
            yield
        finally:
            os.close(lock)

    def load(self) -> Journal | None:
        """None when there is none, or none that can be read: then the push begins anew."""
        return read_journal(self._path)

    def save(self, journal: Journal) -> None:
        """Replace it as a whole. Not synced: after a power loss a few chunks more are sent again."""
        fresh = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(journal.model_dump_json().encode())
        os.replace(fresh, self._path)

    def remove(self) -> None:
        """The push has ended: nothing is left of it but the lock's empty file."""
        self.spool.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)


def read_journal(path: Path) -> Journal | None:
    try:
        return Journal.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def unfinished(folder: Path) -> list[Journal]:
    """Pushes that have begun and not ended, by conversation."""
    found = (read_journal(path) for path in folder.glob("*.json") if not path.name.startswith("."))
    return sorted((one for one in found if one is not None), key=lambda one: one.conversation_id)

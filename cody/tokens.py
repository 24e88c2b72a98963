"""Who may speak to the server: named tokens with a scope, in the state folder, by their hashes.

The token named `local` is made at the first start; its value is kept too (0600), for the CLI of the same user. Of all others
only the hash is kept: their value is shown once.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from cody.errors import ConfigurationError, Conflict, InvalidRequest, NotFound
from cody.wall_clock import now_text

Scope = Literal["read", "control", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "control", "admin")
"""Each includes those before it: read sees everything, control also starts and steers runs, admin also manages tokens."""

LOCAL = "local"
PREFIX = "cody_"
TOKEN_BYTES = 32
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")


class TokenRecord(BaseModel):
    """What is kept of a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    scope: Scope
    sha256: str
    created_at: str


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: tuple[TokenRecord, ...]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: the token's name (or `session:<name>`), and what it may do."""

    name: str
    scope: Scope

    def may(self, scope: Scope) -> bool:
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


def digest(value: str) -> str:
    """The hash under which a token is kept; tokens are random, so a plain hash can't be searched."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


class TokenStore:
    """The tokens of a state folder. Another process may change them at any time: the file is read again when it did."""

    def __init__(self, state_dir: Path, *, override: str | None = None) -> None:
        """`override` is CODY_TOKEN: it is the local token then, and the one in the state folder does not count."""
        self._path = state_dir / "tokens.json"
        self._local_path = state_dir / "token"
        self._lock_path = state_dir / "tokens.lock"
        self._override = override
        self._cached: tuple[tuple[int, int, int], tuple[TokenRecord, ...]] | None = None

    def prepare(self) -> None:
        """Make the local token if there is none.

        Raises ConfigurationError for files that others can read, and for a folder in which they could put their own.
        """
        for path in (self._path, self._local_path):
            if path.exists() and path.stat().st_mode & 0o077:
                raise ConfigurationError(f"{path} can be read by others: chmod 600 {path}, and rotate the tokens")
        with self._locked():
            folder = self._path.parent
            about = folder.stat()
            if about.st_mode & 0o022 or about.st_uid not in {os.geteuid(), 0}:
                raise ConfigurationError(
                    f"the state folder {folder} can be changed by others, who could let themselves in: make it your own, "
                    f"and chmod go-w {folder}"
                )
            if self._override is None and not any(record.name == LOCAL for record in self.records()):
                self._put(LOCAL, "admin")

    def find(self, value: str) -> Caller | None:
        """Whose token this is. Takes the same time whichever token it is or is not."""
        return self.whose(digest(value))

    def whose(self, sha256: str) -> Caller | None:
        """As `find`, by the hash of the token's value."""
        found: Caller | None = None
        for record in self.records():
            if hmac.compare_digest(record.sha256, sha256) and not (record.name == LOCAL and self._override):
                found = Caller(record.name, record.scope)
        if self._override and hmac.compare_digest(digest(self._override), sha256):
            found = Caller(LOCAL, "admin")
        return found

    def records(self) -> tuple[TokenRecord, ...]:
        """All tokens; raises ConfigurationError when their file can't be read."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return ()
        seen, cached = (found.st_mtime_ns, found.st_size, found.st_ino), self._cached
        if cached is not None and cached[0] == seen:
            return cached[1]
        try:
            records = _File.model_validate_json(self._path.read_bytes()).tokens
        except (OSError, ValidationError) as error:
            raise ConfigurationError(f"{self._path} can't be read: {str(error)[:200]}") from None
        # In one step: the event loop looks tokens up while a thread changes them.
        self._cached = (seen, records)
        return records

    def create(self, name: str, scope: Scope) -> str:
        """A new token's value, which is not kept; raises InvalidRequest, Conflict."""
        if not _NAME.match(name):
            raise InvalidRequest(
                f"{name[:80]!r} is not a token's name: small letters, digits, '.', '_', '-', at most 64",
                details={"field": "name"},
            )
        with self._locked():
            if any(record.name == name for record in self.records()):
                raise Conflict(f"there is a token {name} already: rotate or revoke it")
            return self._put(name, scope)

    def rotate(self, name: str) -> str:
        """A new value for this token; the old one counts no more. Raises NotFound."""
        with self._locked():
            return self._put(name, self._record(name).scope)

    def revoke(self, name: str) -> None:
        """The token counts no more; raises NotFound, and Conflict for the local one, which can only be rotated."""
        if name == LOCAL:
            raise Conflict("the local token is the CLI's own: rotate it instead")
        with self._locked():
            record = self._record(name)
            self._write(tuple(one for one in self.records() if one.name != record.name))

    def local_value(self) -> str | None:
        """The CLI's token; None when there is none yet."""
        if self._override is not None:
            return self._override
        try:
            return self._local_path.read_text(encoding="ascii").strip() or None
        except (FileNotFoundError, PermissionError, UnicodeDecodeError):
            return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One change at a time, of all threads and processes: each replaces the whole file, the others' tokens included."""
        self._lock_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._lock_path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self._cached = None
            yield
        finally:
            os.close(fd)

    def _record(self, name: str) -> TokenRecord:
        for record in self.records():
            if record.name == name:
                return record
        raise NotFound(f"there is no token {name[:80]!r} (`cody token list` shows them)")

    def _put(self, name: str, scope: Scope) -> str:
        value = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        now = now_text()
        record = TokenRecord(name=name, scope=scope, sha256=digest(value), created_at=now)
        if name == LOCAL:
            _write_private(self._local_path, value.encode() + b"\n")
        self._write((*(one for one in self.records() if one.name != name), record))
        return value

    def _write(self, records: tuple[TokenRecord, ...]) -> None:
        _write_private(self._path, orjson.dumps(_File(tokens=records).model_dump(), option=orjson.OPT_INDENT_2))
        self._cached = None


def _write_private(path: Path, data: bytes) -> None:
    """Replace the file as a whole; nobody else can read it at any moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise

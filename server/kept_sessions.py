"""Browsers' sessions over a restart of the server: kept in the state folder by the hashes of their secrets, for this user only.

What can't be read, is not this user's alone, or was made with a token that has another value by now, is no session: the
browser signs in again. So a file that is lost, or put back from a backup, lets nobody in who could not come in anyway.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from structlog import get_logger

from cody.tokens import LOCAL, Scope, TokenStore, digest

log = get_logger()

FILE = "sessions.json"
MAX_BYTES = 1 << 20
"""A thousand sessions are some 250 KB."""


class KeptSession(BaseModel):
    """One session. `sha256` of its cookie, `token_sha256` of the token that it was made with."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sha256: str
    token: str
    token_sha256: str
    scope: Scope
    until_ms: int
    """Wall clock: the only one that goes on over a restart."""


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    port: int
    """Cookies carry the port in their name: a server on another one has sessions of its own."""
    sessions: list[KeptSession]


@dataclass(frozen=True, slots=True)
class Kept:
    """A session as its server has it: with what is left of it."""

    sha256: str
    token: str
    scope: Scope
    left_s: float
    made_with: str
    """The hash of the token's value when the session was made: a token that was rotated since is another."""


class SessionFile:
    """The sessions of the server on this port, in one file that is replaced as a whole."""

    def __init__(self, state_dir: Path, port: int, tokens: TokenStore, clock: Callable[[], float] = time.time) -> None:
        self._path = state_dir / FILE
        self._port = port
        self._tokens = tokens
        self._clock = clock

    def load(self) -> list[Kept]:
        """The sessions that still count. Never raises: a session that is lost costs a sign-in."""
        try:
            found = self._read()
        except (OSError, ValueError, ValidationError) as error:
            log.warning("sessions.not_taken_up", path=str(self._path), error=str(error)[:200])
            return []
        if found is None or found.port != self._port:
            return []
        now_s, counting = self._clock(), self._counting()
        return [
            Kept(one.sha256, one.token, one.scope, one.until_ms / 1000 - now_s, one.token_sha256)
            for one in found.sessions
            if one.until_ms / 1000 > now_s and counting.get(one.token) == one.token_sha256
        ]

    def save(self, sessions: Iterable[Kept]) -> None:
        """Keep these and no others. Never raises: should that fail, none is kept, so that one that ended stays ended."""
        now_s, counting = self._clock(), self._counting()
        kept = [
            KeptSession(
                sha256=one.sha256,
                token=one.token,
                token_sha256=one.made_with,
                scope=one.scope,
                until_ms=int((now_s + one.left_s) * 1000),
            )
            for one in sessions
            if one.left_s > 0 and counting.get(one.token) == one.made_with
        ]
        try:
            self._replace(_File(port=self._port, sessions=kept).model_dump_json().encode())
        except OSError as error:
            log.error("sessions.not_kept", path=str(self._path), error=str(error))
            with contextlib.suppress(OSError):
                self._path.unlink()

    def sha256_of(self, token: str) -> str | None:
        """The hash of this token's value now; None when it counts no more. Raises ConfigurationError."""
        local = self._tokens.local_value() if token == LOCAL else None
        if local is not None:
            return digest(local)
        return next((record.sha256 for record in self._tokens.records() if record.name == token), None)

    def _counting(self) -> dict[str, str]:
        """The hash of each token that counts now."""
        found = {record.name: record.sha256 for record in self._tokens.records()}
        local = self._tokens.local_value()  # CODY_TOKEN, where that is set
        return {**found, LOCAL: digest(local)} if local is not None else found

    def _read(self) -> _File | None:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode) or about.st_mode & 0o077 or about.st_uid != os.geteuid():
                raise ValueError("it is not a file of this user alone")
            if about.st_size > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES} bytes")
            return _File.model_validate_json(file.read(MAX_BYTES))

    def _replace(self, data: bytes) -> None:
        fresh = self._path.with_name(f".{FILE}.{secrets.token_hex(8)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.replace(fresh, self._path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise

"""Keeps the secrets of a run's `config.env` unreadable where the run is stored: Redis, its files, SQL.

The key is CODY_SECRET_KEY, or one of the state folder's own. Hosts that share runs must share it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cody.errors import CodyError, ConfigurationError
from cody.redaction import holds_secret

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

SEALED = "sealed:v1:"
MIN_KEY_CHARS = 16
"""As of CODY_SECRET_KEY."""


class SealBroken(CodyError):
    """A sealed value can't be opened with this host's key."""

    code = "secret_unreadable"


class Sealer:
    """Seals and opens values with one key."""

    def __init__(self, key: str) -> None:
        """Any text is a key: it is stretched to the length that Fernet wants."""
        self._key = base64.urlsafe_b64encode(hashlib.sha256(b"cody-seal:" + key.encode()).digest())

    @cached_property
    def _fernet(self) -> Fernet:
        from cryptography.fernet import Fernet  # 12 MB, that a server without such a value never needs

        return Fernet(self._key)

    def seal_env(self, env: Mapping[str, str]) -> dict[str, str]:
        """The environment with the values sealed that have a telling name, or a password in a URL."""
        return {
            name: SEALED + self._fernet.encrypt(value.encode("utf-8", "surrogatepass")).decode()
            if holds_secret(name, value)
            else value
            for name, value in env.items()
        }

    def open_env(self, env: Mapping[str, str]) -> dict[str, str]:
        """The inverse of `seal_env`; raises SealBroken, naming the variable."""
        return {name: self._open(name, value) for name, value in env.items()}

    def _open(self, name: str, value: str) -> str:
        if not value.startswith(SEALED):
            return value
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(value.removeprefix(SEALED).encode()).decode("utf-8", "surrogatepass")
        except InvalidToken:
            raise SealBroken(
                f"config.env {name} was sealed with another key: give every server and worker the same CODY_SECRET_KEY"
            ) from None


def shown_env(env: Mapping[str, str]) -> dict[str, str]:
    """The environment as people may see it."""
    return {
        name: f"[redacted:{name}]" if value.startswith(SEALED) or holds_secret(name, value) else value
        for name, value in env.items()
    }


def key_of(state_dir: Path) -> str:
    """The key of this state folder, made at its first use (0600); raises ConfigurationError."""
    path = state_dir / "secret.key"
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the key of the state folder ({path}) can't be used: {error}") from error
    if len(key) < MIN_KEY_CHARS:
        raise ConfigurationError(
            f"the key of the state folder ({path}) is empty or cut off: put it back from a backup, or remove the file for a new "
            "key; what was sealed with the old one can't be opened then"
        )
    return key


def _make_key(path: Path) -> None:
    """A key that nobody ever sees a part of; whichever process is the first, all get its key. Raises OSError."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(base64.urlsafe_b64encode(os.urandom(32)).decode() + "\n")
            file.flush()
            os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)

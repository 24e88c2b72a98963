"""Keeps secrets out of what Cody keeps: found in bytes and text, also encoded, also cut across chunks. Pure.

A secret is the value of an environment variable whose name says so, the password in a URL, or a value that was configured.
Each is looked for as it is, as JSON writes it (once and twice: an agent's line may quote a command's output), URL-encoded,
in hexadecimal, and in base64 at each of its three alignments. What is found becomes `[redacted:NAME]`.

What this can't know: a secret that the agent reads from a file, or changes before it prints it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, unquote, urlsplit

from ahocorasick_rs import BytesAhoCorasick, MatchKind

MIN_SECRET_CHARS = 6
"""Shorter values (`true`, `on`, `1234`) stand everywhere in honest output; nothing can be told from them."""
MIN_ENCODED_BYTES = 8
"""Of an encoded form after its edges were cut off."""

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PWD|CREDENTIALS?|PRIVATE|AUTH|COOKIE|DSN|PAT)(?:$|_|\d)",
    re.IGNORECASE,
)
_NOT_SECRET = frozenset({"PWD", "OLDPWD", "SSH_AUTH_SOCK", "GPG_AGENT_INFO", "XAUTHORITY"})


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that must not be kept, and the name it is replaced by."""

    name: str
    value: str


def looks_secret(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return name not in _NOT_SECRET and _SECRET_NAME.search(name) is not None


def holds_secret(name: str, value: str) -> bool:
    """Whether this variable must not be kept as it is: by its name, or for a password in a URL."""
    return looks_secret(name) or bool(_password_in(value))


def secrets_of(environment: Mapping[str, str]) -> list[Secret]:
    """The secrets among these variables: values under a telling name, and passwords inside URLs."""
    found: list[Secret] = []
    for name, value in environment.items():
        if looks_secret(name) and len(value) >= MIN_SECRET_CHARS:
            found.append(Secret(name, value))
        found += _url_password(name, value)
    return found


def _password_in(value: str) -> str | None:
    try:
        return urlsplit(value).password if "://" in value else None
    except ValueError:
        return None


def _url_password(name: str, value: str) -> Iterator[Secret]:
    password = _password_in(value)
    if password and len(password) >= MIN_SECRET_CHARS:
        yield Secret(name, password)
        if unquote(password) != password:
            yield Secret(name, unquote(password))


def _variants(value: str) -> Iterator[bytes]:
    """Every form in which the value is looked for."""
    raw = value.encode("utf-8", "surrogateescape")
    yield raw
    text = raw.decode("utf-8", "replace")
    for ascii_only in (True, False):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield once.encode()
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1].encode()
    for quoted in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield quoted.encode()
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), quoted).encode()
    yield binascii.hexlify(raw)
    yield binascii.hexlify(raw).upper()
    yield from _base64_variants(raw)


def _base64_variants(raw: bytes) -> Iterator[bytes]:
    """What of the value's base64 does not depend on the bytes around it, for each place it may begin at."""
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        begin = 0 if shift == 0 else 4  # the first group mixes in what stood before
        end = len(encoded) - (4 if (shift + len(raw)) % 3 else 0)  # the last one what follows
        inner = encoded[begin:end]
        if len(inner) >= MIN_ENCODED_BYTES:
            yield inner
            yield inner.replace(b"+", b"-").replace(b"/", b"_")


class Redactor:
    """Replaces a set of secrets. Build it once and use it for everything; `stream()` for what comes in chunks."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        marks: dict[bytes, bytes] = {}
        for secret in secrets:
            if len(secret.value) < MIN_SECRET_CHARS:
                continue
            for variant in _variants(secret.value):
                if len(variant) >= MIN_SECRET_CHARS:
                    marks.setdefault(variant, f"[redacted:{secret.name}]".encode())
        self._marks = list(marks.values())
        self._matcher = BytesAhoCorasick(list(marks), matchkind=MatchKind.LeftmostLongest) if marks else None
        self.longest = max(map(len, marks), default=0)
        self._prefixes = frozenset(variant[:size] for variant in marks for size in range(1, len(variant)))
        self._starts = frozenset(variant[0] for variant in marks)

    def clean(self, data: bytes) -> bytes:
        """The data with every secret replaced; the same object when there is none."""
        if self._matcher is None:
            return data
        found = self._matcher.find_matches_as_indexes(data)
        if not found:
            return data
        parts: list[bytes] = []
        at = 0
        for which, begin, end in found:
            parts += (data[at:begin], self._marks[which])
            at = end
        return b"".join((*parts, data[at:]))

    def clean_text(self, text: str) -> str:
        """As `clean`, for text."""
        if self._matcher is None:
            return text
        data = text.encode("utf-8", "surrogatepass")
        cleaned = self.clean(data)
        return text if cleaned is data else cleaned.decode("utf-8", "surrogatepass")

    def open_end(self, data: bytes) -> int:
        """How many bytes at the end of `data` may be the begin of a secret whose rest is still to come."""
        if self._matcher is None:
            return 0
        for size in range(min(self.longest - 1, len(data)), 0, -1):
            if data[-size] in self._starts and data[-size:] in self._prefixes:
                return size
        return 0

    def stream(self) -> StreamRedactor:
        """For one stream of chunks."""
        return StreamRedactor(self)


class StreamRedactor:
    """Cleans a stream chunk by chunk. Holds back only bytes that may be the begin of a secret, until that is known."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """What can be said of the stream so far, cleaned."""
        data = self._held + chunk if self._held else chunk
        # What is held must be the end of what was cleaned, not of what came: a secret that is whole is not its own begin.
        cleaned = self._redactor.clean(data)
        size = self._redactor.open_end(cleaned)
        self._held = cleaned[len(cleaned) - size :] if size else b""
        return cleaned[: len(cleaned) - size] if size else cleaned

    def finish(self) -> bytes:
        """The stream has ended: what was held back."""
        held, self._held = self._held, b""
        return held

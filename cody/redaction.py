"""Keeps secrets out of what Cody keeps: found in bytes and text, also encoded, also cut across chunks. Pure.

A secret is the value of an environment variable whose name says so, the password in a URL, or a value that was configured.
Each is looked for as it is, as JSON writes it (once and twice: an agent's line may quote a command's output), URL-encoded,
in hexadecimal, and in base64 at each of its three alignments, those two also in lines. What is found becomes
`[redacted:NAME]`.

What this can't know: a secret that the agent reads from a file, or changes before it prints it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote, quote_plus, unquote, urlsplit

from ahocorasick_rs import BytesAhoCorasick, MatchKind

from cody.wrapped import Found, Wrapped, WrappedForms, in_lines, without_breaks

MIN_SECRET_CHARS = 6
"""Shorter values (`true`, `on`, `1234`) stand everywhere in honest output; nothing can be told from them."""
MIN_ENCODED_BYTES = 8
"""Of an encoded form after its edges were cut off."""
HEAD_BYTES = 4
"""So much of a form's begin is looked for at once at the end of a chunk; what is shorter is held back by a table."""

FAST_TEXTS = 64
"""So many texts are searched for at once by the processor's vector instructions: ten times as fast as more of them."""
MAX_GROUPS = 4

_SECRET_NAME = re.compile(
    # Anywhere in a name, as PGPASSWORD and AUTHTOKENS have it; a tokenizer's settings are none.
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL|TOKEN(?!I[SZ])|(?:ACCESS|API|AUTH|PRIVATE|SIGNING)_?KEY|SSHPASS"
    # As a word of its own: MONKEY, COMPASS and AUTHOR have it too.
    r"|(?:^|_)(?:KEY|PASS|PWD|PRIVATE|AUTH|AUTHORIZATION|COOKIE|DSN|PAT)(?:$|_|\d)",
    re.IGNORECASE,
)
_NOT_SECRET = frozenset({"PWD", "OLDPWD", "SSH_AUTH_SOCK", "GPG_AGENT_INFO", "XAUTHORITY"})
_HOW_MANY = re.compile(
    r"(?:^|_)(?:MAX|MIN|NUM|N)_(?:[A-Z0-9]+_)*TOKENS?$|(?:^|_)TOKENS?_(?:LIMIT|COUNT|BUDGET|PER_[A-Z0-9_]+)$",
    re.IGNORECASE,
)
"""What a model may use up (MAX_OUTPUT_TOKENS=100000): the number is no secret, and would be found everywhere."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that must not be kept, and the name it is replaced by."""

    name: str
    value: str


def looks_secret(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    if name in _NOT_SECRET or _SECRET_NAME.search(name) is None:
        return False
    return _HOW_MANY.search(name) is None


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
    """Every form in which the value is looked for, but those that `_wrapped_variants` gives."""
    raw = value.encode("utf-8", "surrogateescape")
    yield raw
    yield from _json_variants(raw.decode("utf-8", "replace"))
    # The last leaves what JavaScript's encodeURIComponent leaves.
    for quoted in (quote(raw, safe=""), quote(raw), quote_plus(raw), quote(raw, safe="!'()*")):
        yield quoted.encode()
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), quoted).encode()


def _json_variants(text: str) -> Iterator[bytes]:
    """As a JSON string has it, without its quotes, and once more as a string in a string."""
    for ascii_only in (True, False):
        plain = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        # As most write it; as PHP does; as Go does; as Gson does: safe within HTML.
        for special in ("", "/", "<>&", "<>&='"):
            once = plain
            for character in special:
                once = once.replace(character, "\\/" if character == "/" else f"\\u{ord(character):04x}")
            yield once.encode()
            yield json.dumps(once, ensure_ascii=ascii_only)[1:-1].encode()


def _wrapped_variants(value: str) -> Iterator[bytes]:
    """The forms that programs print in lines."""
    raw = value.encode("utf-8", "surrogateescape")
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
        wrapped: dict[bytes, bytes] = {}
        for secret in secrets:
            if len(secret.value) < MIN_SECRET_CHARS:
                continue
            mark = f"[redacted:{secret.name}]".encode()
            for variant in _variants(secret.value):
                if len(variant) >= MIN_SECRET_CHARS:
                    marks.setdefault(variant, mark)
            for variant in _wrapped_variants(secret.value):
                (wrapped if WrappedForms.takes(variant) else marks).setdefault(variant, mark)
        self._marks = list(marks.values())
        self._wrapped = WrappedForms([Wrapped(form, mark) for form, mark in wrapped.items()])
        # One look for whatever there may be; only where there is something, what exactly is asked.
        self._looks = _looks([*marks, *self._wrapped.anchors])
        self._matcher = BytesAhoCorasick(list(marks), matchkind=MatchKind.LeftmostLongest)
        self.longest = max(map(len, [*marks, *wrapped]), default=0)
        self._openings = _Openings(marks, wrapped, self.longest)

    def clean(self, data: bytes) -> bytes:
        """The data with every secret replaced; the same object when there is none."""
        for look in self._looks:  # written out: this is done for every line, and a call takes as long as the search
            if look(data):
                return self._replaced(data, self._found(data))
        return data

    def clean_text(self, text: str) -> str:
        """As `clean`, for text."""
        if not self.longest:
            return text
        data = text.encode("utf-8", "surrogatepass")
        cleaned = self.clean(data)
        return text if cleaned is data else cleaned.decode("utf-8", "surrogatepass")

    def cut(self, data: bytes) -> tuple[bytes, bytes]:
        """What can be said of the data, cleaned; and the rest, as it is: it may become a secret by what is still to come."""
        if not self.longest:
            return data, b""
        found = self._found(data) if any(look(data) for look in self._looks) else []
        begin = self._openings.first(data, found)
        if begin == len(data):
            return (self._replaced(data, found) if found else data), b""
        return self._replaced(data[:begin], [one for one in found if one.begin < begin]), data[begin:]

    def stream(self) -> StreamRedactor:
        """For one stream of chunks."""
        return StreamRedactor(self)

    def _found(self, data: bytes) -> list[Found]:
        """In order, none over another."""
        plain = [Found(begin, end, self._marks[one]) for one, begin, end in self._matcher.find_matches_as_indexes(data)]
        folded = self._wrapped.find(data)
        if not folded:
            return plain
        merged: list[Found] = []
        for one in sorted([*plain, *folded], key=lambda one: (one.begin, -one.end)):
            if not merged or one.begin >= merged[-1].end:
                merged.append(one)
            elif one.end > merged[-1].end:
                merged[-1] = replace(merged[-1], end=one.end, open=one.open)
        return merged

    def _replaced(self, data: bytes, found: Iterable[Found]) -> bytes:
        parts: list[bytes] = []
        at = 0
        for one in found:
            parts += (data[at : one.begin], one.mark)
            at = one.end
        return b"".join((*parts, data[at:])) if at else data


def _looks(texts: Sequence[bytes]) -> list[Callable[[bytes], list[tuple[int, int, int]]]]:
    """Searches that find something in some data if one of these texts is in it."""
    groups = [texts[at : at + FAST_TEXTS] for at in range(0, len(texts), FAST_TEXTS)]
    if len(groups) > MAX_GROUPS:
        groups = [texts]
    return [
        BytesAhoCorasick(list(group), matchkind=MatchKind.LeftmostFirst).find_matches_as_indexes for group in groups
    ]


class _Openings:
    """Where at the end of some data a secret may begin whose rest is still to come."""

    def __init__(self, plain: Iterable[bytes], wrapped: Iterable[bytes], longest: int) -> None:
        self._plain: dict[bytes, list[bytes]] = {}
        self._wrapped: dict[bytes, list[bytes]] = {}
        self._short: set[bytes] = set()
        for kind, forms in ((self._plain, plain), (self._wrapped, wrapped)):
            for form in forms:
                kind.setdefault(form[:HEAD_BYTES], []).append(form)
                self._short |= {form[:size] for size in range(1, HEAD_BYTES)}
        heads = list({*self._plain, *self._wrapped})
        self._heads = BytesAhoCorasick(heads) if heads else None
        self._reach = in_lines(longest)

    def first(self, data: bytes, found: Sequence[Found]) -> int:
        """The first such place, which may be the begin of what was found and can become longer; else the data's length."""
        size = len(data)
        for begin in self._candidates(data, size):
            # Within what was found nothing begins: that is a secret, whatever comes.
            if not any(one.begin < begin < one.end for one in found) and self._is_open(data, begin):
                return min(begin, found[-1].begin) if found and found[-1].open else begin
        return found[-1].begin if found and found[-1].open else size

    def _candidates(self, data: bytes, size: int) -> Iterator[int]:
        """In order."""
        if self._heads is not None:
            offset = max(0, size - self._reach)
            tail = data[offset:] if offset else data
            for _, begin, _ in self._heads.find_matches_as_indexes(tail, overlapping=True):
                yield offset + begin
        yield from range(max(0, size - HEAD_BYTES + 1), size)

    def _is_open(self, data: bytes, begin: int) -> bool:
        rest = data[begin:]
        if len(rest) < HEAD_BYTES:
            return rest in self._short
        head = rest[:HEAD_BYTES]
        if any(len(form) > len(rest) and form.startswith(rest) for form in self._plain.get(head, ())):
            return True
        forms = self._wrapped.get(head)
        if not forms:
            return False
        folded = without_breaks(rest)
        return any(len(form) > len(folded) and form.startswith(folded) for form in forms)


class StreamRedactor:
    """Cleans a stream chunk by chunk. Holds back only bytes that may be the begin of a secret, until that is known."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """What can be said of the stream so far, cleaned."""
        # What is held is as it came: a secret that is whole may yet turn out to be the begin of a longer one.
        cleaned, self._held = self._redactor.cut(self._held + chunk if self._held else chunk)
        return cleaned

    def finish(self) -> bytes:
        """The stream has ended: what was held back."""
        held, self._held = self._held, b""
        return self._redactor.clean(held)

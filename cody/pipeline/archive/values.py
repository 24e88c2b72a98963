"""Values that both databases take. What no database can hold is replaced: a lookup by it finds nothing then."""

from __future__ import annotations

from typing import overload

MAX_INTEGER = 2**31 - 1
MAX_BIGINT = 2**63 - 1


@overload
def plain(text: str) -> str: ...
@overload
def plain(text: None) -> None: ...
def plain(text: str | None) -> str | None:
    """The text without NUL (PostgreSQL refuses it) and without half surrogate pairs (no encoding has them)."""
    if text is None:
        return None
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def within(number: int, largest: int) -> int:
    """The number, or the nearest that its column can hold."""
    return max(-1, min(number, largest))

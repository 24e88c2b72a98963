"""Tokens and the audit log, on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cody.contracts.wire import Int, Wire

TokenScope = Literal["read", "control", "admin"]


class AuditEntry(Wire):
    """One mutation: who (the token's name), what, when, from where, and how it ended."""

    ts: str
    who: str
    scope: TokenScope
    action: str
    """Method and route: `POST /api/runs/{run_id}/control`."""
    run_id: str | None = None
    token: str | None = None
    """The name of the token that was made, rotated or revoked."""
    source: str
    status: Int


class AuditPage(Wire):
    """The latest entries, newest first."""

    entries: list[AuditEntry]


class TokenInfo(Wire):
    """What anyone may know of a token."""

    name: str
    scope: TokenScope
    created_at: str


class TokenPage(Wire):
    """All tokens."""

    tokens: list[TokenInfo]


class CreateTokenRequest(Wire):
    """Body of `POST /api/tokens`."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    scope: TokenScope


class NewToken(Wire):
    """A token's value: shown this once."""

    name: str
    scope: TokenScope
    token: str


class LinkAnswer(Wire):
    """A link that lets one browser in, once."""

    url: str
    valid_for_sec: Int


class Nothing(Wire):
    """A body that says nothing; it may be left out."""

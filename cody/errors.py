"""The errors of Cody: one class per decision a caller makes, each with a stable code.

A code is part of the contract: the server maps it to an HTTP status, scripts match on it. Messages are for people and may
change: they say what failed, with which id, and what to try.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class CodyError(Exception):
    """Base of every error that Cody raises on purpose."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})


class ConfigurationError(CodyError):
    """A setting, flag or file of Cody's own is wrong: mend it and start again."""

    code = "configuration"


class InvalidRequest(CodyError):
    """The caller's input is wrong; `details` names the fields. Nothing was started and nothing changed."""

    code = "invalid_request"


class Forbidden(CodyError):
    """The request is understood and not allowed."""

    code = "forbidden"


class NotFound(CodyError):
    """There is no such run, turn or file."""

    code = "not_found"


class Conflict(CodyError):
    """The request is valid, but not in the state that the run is in."""

    code = "conflict"


class StreamTrimmed(CodyError):
    """The cursor is older than what is still kept: start again from `earliest_event_id`."""

    code = "stream_trimmed"

    def __init__(self, message: str, *, earliest_event_id: str) -> None:
        super().__init__(message, details={"earliestEventId": earliest_event_id})
        self.earliest_event_id = earliest_event_id


class StoreUnavailable(CodyError):
    """Redis is away, not configured, or not usable."""

    code = "service_unavailable"


class IllegalTransition(Conflict):
    """The state machine has no such move; nothing was changed."""


class Fenced(CodyError):
    """Another worker holds the run under a newer fence: stop the agent and write nothing more."""

    code = "fenced"


class SequenceGap(CodyError):
    """Events are missing between what the store has and what was to be added."""

    code = "sequence_gap"


class AgentUnavailable(CodyError):
    """The agent's program is missing, not executable, or too old; the message says what mends it."""

    code = "agent_unavailable"

"""Errors as HTTP answers: every refusal has one shape, `{"error": {"code", "message", "details"?}}`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson
from starlette.exceptions import HTTPException

from cody.errors import CodyError, InvalidRequest

STATUS_BY_CODE: Mapping[str, int] = {
    "invalid_request": 400,
    "secret_unreadable": 409,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "stream_trimmed": 410,
    "agent_unavailable": 503,
    "service_unavailable": 503,
}
"""Codes that are not here are faults of Cody's own: 500."""

SHOWN_CHARACTERS = 80
FIELDS_IN_DETAILS = 20


class HttpError(CodyError):
    """A refusal that only HTTP knows; base of those below."""

    status: ClassVar[int]

    def __init__(
        self, message: str, *, details: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, details=details)
        self.headers = dict(headers or {})


class MethodNotAllowed(HttpError):
    code = "method_not_allowed"
    status = 405


class PayloadTooLarge(HttpError):
    code = "payload_too_large"
    status = 413


class UnsupportedMediaType(HttpError):
    code = "unsupported_media_type"
    status = 415


class RangeNotSatisfiable(HttpError):
    code = "range_not_satisfiable"
    status = 416


@dataclass(frozen=True, slots=True)
class Problem:
    """An error, ready to be sent."""

    status: int
    code: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            error["details"] = self.details
        return orjson.dumps({"error": error}, default=repr)


def problem_of(error: CodyError | HTTPException) -> Problem | None:
    """How a deliberate error is answered; None for one that no caller should ever have met."""
    match error:
        case HTTPException(status_code=405):
            allowed = ", ".join(sorted(part.strip() for part in (error.headers or {}).get("Allow", "").split(",")))
            return problem_of(MethodNotAllowed(f"use {allowed} for this path", headers={"Allow": allowed}))
        case HttpError():
            return Problem(error.status, error.code, error.message, error.details, error.headers)
        case CodyError(code=code) if code in STATUS_BY_CODE:
            return Problem(STATUS_BY_CODE[code], code, error.message, error.details)
        case _:
            return None


def internal_problem(request_id: str) -> Problem:
    """The answer to a fault of Cody's own; the id finds its traceback in the log."""
    message = f"an unexpected error: the server's log has it under request id {request_id}"
    return Problem(500, "internal", message, {"requestId": request_id})


def invalid_fields(problems: list[tuple[str, str]]) -> InvalidRequest:
    """The error for input that is wrong in these (field, message) places; there must be one at least."""
    (first, message), more = problems[0], len(problems) - 1
    text = f"{first}: {message}" + (f" (and {more} more)" if more else "")
    fields = [{"field": name, "message": said} for name, said in problems[:FIELDS_IN_DETAILS]]
    return InvalidRequest(text, details={"fields": fields})


def printable(text: str) -> str:
    """Someone else's text for a message of ours: short, and without control characters."""
    short = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
    return short.encode("unicode_escape").decode("ascii")

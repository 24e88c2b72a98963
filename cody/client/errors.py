"""What the server's errors are to a caller: the class that belongs to the code, from status and body. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from cody.contracts.run import ErrorAnswer, ErrorDetail
from cody.errors import (
    AgentUnavailable,
    CodyError,
    ConfigurationError,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    StoreUnavailable,
    StreamTrimmed,
)


class ServerUnreachable(CodyError):
    """No Cody server answers, or it went away and did not come back."""

    code = "server_unreachable"


class ApiError(CodyError):
    """An answer without a class of its own. `status` is HTTP's, `error_code` the answer's (None: it had none)."""

    code = "api_error"

    def __init__(
        self, message: str, *, status: int, error_code: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, details=details)
        self.status = status
        self.error_code = error_code


_CLASSES: Mapping[str, Callable[..., CodyError]] = {
    known.code: known
    for known in (InvalidRequest, Forbidden, NotFound, Conflict, StoreUnavailable, AgentUnavailable, ConfigurationError)
}


def error_of_answer(status: int, body: bytes) -> CodyError:
    """The error that an answer of status 400 or more stands for."""
    try:
        return error_of_detail(status, ErrorAnswer.model_validate_json(body).error)
    except ValidationError:
        seen = body[:200].decode(errors="replace")
        return ApiError(f"HTTP {status}, and not in the way Cody answers: {seen or 'no body'}", status=status)


def error_of_detail(status: int, detail: ErrorDetail) -> CodyError:
    """The error for what an answer, or an `error` frame of the event stream, says."""
    details = detail.details or {}
    earliest = details.get("earliestEventId")
    if detail.code == StreamTrimmed.code and isinstance(earliest, str):
        return StreamTrimmed(detail.message, earliest_event_id=earliest)
    known = _CLASSES.get(detail.code)
    if known is not None:
        return known(detail.message, details=details)
    return ApiError(detail.message, status=status, error_code=detail.code, details=details)

"""Why an answer broke off: the stable codes of response_error, whatever provider it came from. Pure.

`details.retryable` says whether the same request may succeed later; `details.retry_after_s` (seconds), if known, when.
"""

from __future__ import annotations

from pydantic import JsonValue

from cody.contracts.responses import ErrorInfo, whole_text

AUTH_ERROR = "auth_error"
RATE_LIMITED = "rate_limited"
INVALID_REQUEST = "invalid_request"
PROVIDER_ERROR = "provider_error"
STREAM_DROPPED = "stream_dropped"
MALFORMED_CHUNK = "malformed_chunk"
CONNECTION_FAILED = "connection_failed"
TIMEOUT = "timeout"
INTERNAL_ERROR = "internal_error"
AGENT_FAILED = "agent_failed"
AGENT_WARNING = "agent_warning"

MAX_MESSAGE_CHARS = 2000
"""Of what a provider says: a proxy's error page is not worth more."""


def problem(code: str, message: str, *, retryable: bool, **details: JsonValue) -> ErrorInfo:
    """The error of an answer; details that are None are left out."""
    told = {name: value for name, value in details.items() if value is not None}
    text = whole_text(message)[:MAX_MESSAGE_CHARS]
    return ErrorInfo(code=code, message=text, details={"retryable": retryable, **told})


def stream_dropped(message: str) -> ErrorInfo:
    return problem(STREAM_DROPPED, message, retryable=True)


def malformed_chunk(message: str) -> ErrorInfo:
    return problem(MALFORMED_CHUNK, message, retryable=True)


def http_problem(
    status: int,
    message: str,
    *,
    provider_code: str | None = None,
    request_id: str | None = None,
    retry_after_s: float | None = None,
    retryable: bool | None = None,
) -> ErrorInfo:
    """The error of an HTTP status; `retryable` where the provider's own code knows better than the status."""
    code, by_status = _of_status(status)
    return problem(
        code,
        message,
        retryable=by_status if retryable is None else retryable,
        http_status=status,
        provider_code=None if provider_code is None else whole_text(provider_code),
        request_id=None if request_id is None else whole_text(request_id),
        retry_after_s=retry_after_s,
    )


def _of_status(status: int) -> tuple[str, bool]:
    match status:
        case 401 | 403:
            return AUTH_ERROR, False
        case 408:
            return TIMEOUT, True
        case 409:
            return PROVIDER_ERROR, True
        case 429:
            return RATE_LIMITED, True
        case _ if 400 <= status < 500:
            return INVALID_REQUEST, False
        case _:
            return PROVIDER_ERROR, True

"""What Anthropic's error types mean. Pure. Source: the types of anthropic-python 2.11 and the API's error guide."""

from __future__ import annotations

from cody.contracts.responses import ErrorInfo
from cody.pipeline.problems import (
    AUTH_ERROR,
    INVALID_REQUEST,
    PROVIDER_ERROR,
    RATE_LIMITED,
    TIMEOUT,
    problem,
)

_MEANING: dict[str, tuple[str, bool]] = {
    "api_error": (PROVIDER_ERROR, True),
    "overloaded_error": (PROVIDER_ERROR, True),
    "rate_limit_error": (RATE_LIMITED, True),
    "timeout_error": (TIMEOUT, True),
    "authentication_error": (AUTH_ERROR, False),
    "permission_error": (AUTH_ERROR, False),
    "billing_error": (RATE_LIMITED, False),
    "invalid_request_error": (INVALID_REQUEST, False),
    "not_found_error": (INVALID_REQUEST, False),
    "request_too_large": (INVALID_REQUEST, False),
}


def problem_of_type(kind: str, message: str, *, request_id: str | None = None) -> ErrorInfo:
    """The error of an answer that Anthropic ended with this type; one that is not known is the provider's trouble."""
    meaning, retryable = _MEANING.get(kind, (PROVIDER_ERROR, True))
    return problem(meaning, message, retryable=retryable, provider_code=kind or None, request_id=request_id)

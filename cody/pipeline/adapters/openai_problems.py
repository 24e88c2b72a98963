"""What OpenAI's error codes mean. Pure. Source: the codes of openai-python 3.52 and of the API's error guide."""

from __future__ import annotations

from cody.contracts.responses import ErrorInfo
from cody.pipeline.problems import (
    AUTH_ERROR,
    INVALID_REQUEST,
    PROVIDER_ERROR,
    RATE_LIMITED,
    problem,
)

_MEANING: dict[str, tuple[str, bool]] = {
    "server_error": (PROVIDER_ERROR, True),
    "server_is_overloaded": (PROVIDER_ERROR, True),
    "slow_down": (RATE_LIMITED, True),
    "vector_store_timeout": (PROVIDER_ERROR, True),
    "rate_limit_exceeded": (RATE_LIMITED, True),
    "insufficient_quota": (RATE_LIMITED, False),
    "invalid_api_key": (AUTH_ERROR, False),
    "context_length_exceeded": (INVALID_REQUEST, False),
    "invalid_prompt": (INVALID_REQUEST, False),
    "bio_policy": (INVALID_REQUEST, False),
    "misalignment_policy_violation": (INVALID_REQUEST, False),
    "data_residency_mismatch": (INVALID_REQUEST, False),
}
NEVER_RETRY = frozenset(code for code, (_, retryable) in _MEANING.items() if not retryable)


def problem_of_code(code: str, message: str) -> ErrorInfo:
    """The error of an answer that OpenAI ended with this code; one that is not known is the provider's own trouble."""
    about_input = (INVALID_REQUEST, False) if "image" in code else None
    meaning, retryable = about_input or _MEANING.get(code, (PROVIDER_ERROR, True))
    return problem(meaning, message, retryable=retryable, provider_code=code or None)

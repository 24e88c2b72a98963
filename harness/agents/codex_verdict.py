"""Why a turn of codex failed, from what it said and how it ended: codes, whether a retry may help, what to do. Pure.

Source: texts and exit codes of codex 0.163.0 and 0.169.0, provoked one by one. Codex normalises what the provider says
(a 500 reads "high demand"), so texts are searched where no HTTP status is given. The first pattern that fits holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cody.contracts.run import RunError
from harness.agents.base import AgentExit
from harness.agents.ending import failure, signal_name

_PANIC_EXIT = 101
"""Rust's exit code of a panic; codex panics when the reader of its stdout goes away."""
_USAGE_EXIT = 2


@dataclass(frozen=True, slots=True)
class Seen:
    """What a turn's lines told, as far as the verdict needs it."""

    working_dir: str
    thread_id: str | None
    asked_thread: str | None
    """The conversation that was to be resumed."""
    completed: bool
    """turn.completed was read."""
    failed: str | None
    """The message of turn.failed."""
    reported: str | None
    """The last `error` line."""
    last_lines: str
    """Of stderr."""


@dataclass(frozen=True, slots=True)
class _Cause:
    code: str
    retryable: bool
    advice: str


_AUTH = _Cause(
    "agent_auth",
    False,
    "Check the key or the log-in that codex uses (OPENAI_API_KEY or CODEX_API_KEY, or `codex login` for its CODEX_HOME).",
)
_RATE = _Cause("agent_rate_limited", True, "Wait for the limit to reset, or use another model or key.")
_QUOTA = _Cause("agent_rate_limited", False, "Waiting does not help: see to the account's plan and billing.")
_PROVIDER = _Cause("agent_provider_error", True, "The provider is in trouble: try again later, or use another model.")
_STREAM = _Cause(
    "agent_stream_dropped", True, "The connection to the provider broke: try again; check proxies if it persists."
)
_REFUSED = _Cause(
    "agent_connection_refused", True, "Nothing answers at the provider's address: check the network and base_url."
)
_MODEL = _Cause("agent_model_not_found", False, "Check config.model, and base_url in codex' config.toml.")
_BAD = _Cause(
    "agent_bad_request",
    False,
    "The provider does not take this request: see its message; other input or settings are needed.",
)
_CONTEXT = _Cause(
    "agent_bad_request",
    False,
    "Use session 'fresh', or shorten the epic's files: the conversation is too long for the model.",
)
_CUT_SHORT = _Cause(
    "agent_incomplete", True, "The model stopped before its answer was whole: try again, or ask for less in one turn."
)

_STATUS = re.compile(r"(?:unexpected status|last status:) (\d{3})\b")
_BY_STATUS = {401: _AUTH, 402: _QUOTA, 403: _AUTH, 404: _MODEL, 408: _PROVIDER, 429: _RATE}

_BY_TEXT = (
    (r"quota exceeded|insufficient_quota|exceeded your current quota", _QUOTA),
    (r"usage limit|rate limit|rate_limit|too many requests", _RATE),
    (
        r"missing environment variable|api key|not logged in|log in again|sign in again|unauthorized|refresh token",
        _AUTH,
    ),
    (r"context window|context_length_exceeded", _CONTEXT),
    (r"model\b.*does not exist|model_not_found", _MODEL),
    (r"high demand|at capacity|overloaded|server_error|internal server error", _PROVIDER),
    (r"connection failed|error sending request|connection refused", _REFUSED),
    (r"stream disconnected|stream closed|idle timeout", _STREAM),
    (r"incomplete response", _CUT_SHORT),
    (r'^\{"error"|invalid_request_error|bad request', _BAD),
)

_BY_STDERR = (
    (
        "Not inside a trusted directory",
        "Run `git init` in {dir}, or set workingDir to a folder inside a git repository.",
    ),
    ("`approval_policy`", "This codex does not know the value of config.approval: use 'never' or 'on-request'."),
    (
        "Error loading config.toml",
        "Mend config.toml in codex' CODEX_HOME (default: ~/.codex), as named in the lines below.",
    ),
    ("CODEX_HOME points to", "Create the folder that CODEX_HOME names, or unset it."),
    ("no rollout found", "The conversation is gone from CODEX_HOME: start a new run, or use session 'fresh'."),
    ("Model provider", "Define the provider in config.toml in codex' CODEX_HOME, or mend model_provider there."),
    ("No prompt provided", "The prompt was empty: the epic's folder needs a mission or a work log."),
    (
        "unexpected argument",
        "This codex does not know an option that Cody gives: update it (`codex update`, or the wheel).",
    ),
    ("invalid value", "This codex does not know a value that Cody gives: update it (`codex update`, or the wheel)."),
    ("No such file or directory", "Check that {dir} and the files that config.toml names exist."),
)


def verdict(seen: Seen, exit: AgentExit) -> RunError | None:
    """The error of an ended turn; None when it completed. A turn whose commands failed still completes."""
    if _resumed_another(seen):
        return failure(
            "resume_mismatch",
            f"codex was to go on in conversation {seen.asked_thread} and silently began {seen.thread_id}",
            "The conversation's file is gone, or CODEX_HOME is another one: start a new run, or use session 'fresh'.",
            seen.last_lines,
            retryable=False,
        )
    if exit.signal is not None:
        what = f"codex was killed by {signal_name(exit.signal)}"
        return failure(
            "agent_killed",
            what,
            "Something outside this run ended it (out of memory?): try again.",
            seen.last_lines,
            retryable=True,
        )
    if seen.failed is not None:
        return _turn_failed(seen, seen.failed, exit)
    if exit.exit_code is None:
        return None if seen.completed else _ended(seen, "how codex ended is not known")
    if exit.exit_code == 0:
        return None if seen.completed else _incomplete(seen)
    return _exited(seen, exit.exit_code)


def _resumed_another(seen: Seen) -> bool:
    if seen.asked_thread is None or seen.thread_id is None:
        return False
    return seen.asked_thread.lower() != seen.thread_id.lower()


def _turn_failed(seen: Seen, message: str, exit: AgentExit) -> RunError:
    cause = _cause(message)
    if cause is None:
        return _ended(seen, f"the turn failed: {message or 'codex gave no reason'} (exit code {exit.exit_code})")
    return failure(cause.code, f"the turn failed: {message}", cause.advice, seen.last_lines, retryable=cause.retryable)


def _cause(message: str) -> _Cause | None:
    status = _STATUS.search(message)
    if status is not None:
        number = int(status[1])
        return _BY_STATUS.get(number, _PROVIDER if number >= 500 else _BAD)
    text = message.strip().lower()
    return next((cause for pattern, cause in _BY_TEXT if re.search(pattern, text)), None)


def _exited(seen: Seen, exit_code: int) -> RunError:
    if exit_code == _PANIC_EXIT:
        what = "codex panicked (exit code 101)"
        return failure(
            "agent_panicked",
            what,
            "Try again; if it persists, it is a bug of codex: update it.",
            seen.last_lines,
            retryable=True,
        )
    nothing_ran = seen.thread_id is None and seen.last_lines != ""
    if exit_code == _USAGE_EXIT or (exit_code == 1 and nothing_ran):
        return _usage_error(seen, exit_code)
    reason = f": {seen.reported}" if seen.reported else ""
    return _ended(seen, f"codex exited with code {exit_code} before the turn's end{reason}")


def _usage_error(seen: Seen, exit_code: int) -> RunError:
    advice = next((text for sign, text in _BY_STDERR if sign in seen.last_lines), "See the lines below.")
    what = f"codex refused to start (exit code {exit_code})"
    return failure("agent_usage_error", what, advice.format(dir=seen.working_dir), seen.last_lines, retryable=False)


def _incomplete(seen: Seen) -> RunError:
    reason = f": {seen.reported}" if seen.reported else ""
    what = f"codex exited with code 0 and never reported the turn's end{reason}"
    return failure(
        "agent_incomplete", what, "Try again; the turn's log has all that it printed.", seen.last_lines, retryable=True
    )


def _ended(seen: Seen, what: str) -> RunError:
    return failure("agent_exited", what, "The turn's log has all that it printed.", seen.last_lines, retryable=False)

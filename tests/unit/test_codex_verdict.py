"""Why a turn of codex failed: each text below was printed by codex 0.163.0 or 0.169.0."""

from __future__ import annotations

import pytest

from harness.agents.base import AgentExit
from harness.agents.codex_verdict import Seen, verdict

FAILED = AgentExit(exit_code=1, signal=None)


def seen(
    *,
    failed: str | None = None,
    completed: bool = False,
    thread: str | None = "01a1fabf-4d00-72e2-9524-dc7f7cfabec3",
    stderr: str = "",
    reported: str | None = None,
) -> Seen:
    return Seen(
        working_dir="/workspace",
        thread_id=thread,
        asked_thread=None,
        completed=completed,
        failed=failed,
        reported=reported,
        last_lines=stderr,
    )


@pytest.mark.parametrize(
    ("message", "code", "retryable"),
    [
        ("unexpected status 401 Unauthorized: no, url: http://127.0.0.1/v1/responses", "agent_auth", False),
        ("unexpected status 403 Forbidden: no, url: http://127.0.0.1/v1/responses", "agent_auth", False),
        ("Missing environment variable: `OPENAI_API_KEY`.", "agent_auth", False),
        ("exceeded retry limit, last status: 429 Too Many Requests", "agent_rate_limited", True),
        ("rate limit exceeded: provider message here", "agent_rate_limited", True),
        ("You’ve hit your usage limit. Try again at Mar 17th, 2030 5:46 PM.", "agent_rate_limited", True),
        ("Quota exceeded. Check your plan and billing details.", "agent_rate_limited", False),
        ("unexpected status 402 Payment Required: pay, url: http://127.0.0.1", "agent_rate_limited", False),
        ("exceeded retry limit, last status: 500 Internal Server Error", "agent_provider_error", True),
        ("unexpected status 502 Bad Gateway: rate limit, url: http://127.0.0.1", "agent_provider_error", True),
        ("unexpected status 408 Request Timeout: slow, url: http://127.0.0.1", "agent_provider_error", True),
        ("We’re currently experiencing high demand, which may cause temporary errors.", "agent_provider_error", True),
        ("Selected model is at capacity. Please try a different model.", "agent_provider_error", True),
        ("stream disconnected before completion: idle timeout waiting for SSE", "agent_stream_dropped", True),
        (
            "stream disconnected before completion: stream closed before response.completed",
            "agent_stream_dropped",
            True,
        ),
        ("Connection failed: error sending request", "agent_connection_refused", True),
        ("The model `gpt-x` does not exist or you do not have access to it.", "agent_model_not_found", False),
        ("unexpected status 404 Not Found: no model, url: http://127.0.0.1", "agent_model_not_found", False),
        ('{"error": {"message": "server says 400", "type": "t", "code": "c"}}', "agent_bad_request", False),
        ("unexpected status 413 Payload Too Large: no, url: http://127.0.0.1", "agent_bad_request", False),
        ("Codex ran out of room in the model's context window. Start a new thread.", "agent_bad_request", False),
        ("Incomplete response returned, reason: max_output_tokens", "agent_incomplete", True),
        ("something nobody has seen before", "agent_exited", False),
        ("", "agent_exited", False),
    ],
)
def test_the_cause_of_a_failed_turn(message: str, code: str, retryable: bool) -> None:
    error = verdict(seen(failed=message), FAILED)
    assert error is not None
    assert (error.code, error.retryable) == (code, retryable)
    assert message in error.message


@pytest.mark.parametrize(
    ("stderr", "advice"),
    [
        ("Not inside a trusted directory and --skip-git-repo-check was not specified.", "git init"),
        ("Error loading config.toml:\n/home/dev/.codex/config.toml:1:6: unclosed array", "Mend config.toml"),
        ('Error loading config.toml: `approval_policy`: "untrusted" is no longer supported', "config.approval"),
        ("Error: thread/resume: thread/resume failed: no rollout found for thread id 01a1 (code -32600)", "'fresh'"),
        ("No prompt provided via stdin.", "prompt was empty"),
        ('Error finding codex home: CODEX_HOME points to "/nowhere", but that path does not exist', "unset it"),
        ("Error: Model provider `zz` not found", "model_provider"),
        ("Error: No such file or directory (os error 2)", "/workspace"),
        ("Error: something new", "See the lines below"),
    ],
)
def test_a_refusal_to_start_says_what_to_do(stderr: str, advice: str) -> None:
    error = verdict(seen(thread=None, stderr=stderr), FAILED)
    assert error is not None
    assert (error.code, error.retryable) == ("agent_usage_error", False)
    assert advice in error.message
    assert stderr in error.message


def test_an_unknown_option_is_a_usage_error_whatever_else_was_seen() -> None:
    error = verdict(seen(stderr="error: unexpected argument '--nope' found"), AgentExit(2, None))
    assert error is not None
    assert error.code == "agent_usage_error"
    assert "update it" in error.message


@pytest.mark.parametrize(
    ("subject", "exit", "code", "part"),
    [
        (seen(completed=True), AgentExit(0, None), None, ""),
        (seen(completed=True), AgentExit(None, None), None, ""),
        (seen(), AgentExit(None, None), "agent_exited", "not known"),
        (seen(), AgentExit(0, None), "agent_incomplete", "never reported"),
        (seen(reported="odd"), AgentExit(0, None), "agent_incomplete", "odd"),
        (seen(failed="rate limit"), AgentExit(0, None), "agent_rate_limited", "rate limit"),
        (seen(completed=True, failed="rate limit"), AgentExit(0, None), "agent_rate_limited", "rate limit"),
        (seen(completed=True), AgentExit(3, None), "agent_exited", "code 3"),
        (seen(reported="odd"), AgentExit(1, None), "agent_exited", "odd"),
        (seen(thread=None), AgentExit(1, None), "agent_exited", "code 1"),
        (seen(stderr="thread 'main' panicked"), AgentExit(101, None), "agent_panicked", "panicked"),
        (seen(), AgentExit(None, 9), "agent_killed", "SIGKILL"),
        (seen(failed="rate limit"), AgentExit(None, 15), "agent_killed", "SIGTERM"),
        (seen(), AgentExit(None, 99), "agent_killed", "signal 99"),
    ],
)
def test_how_it_ended(subject: Seen, exit: AgentExit, code: str | None, part: str) -> None:
    error = verdict(subject, exit)
    assert (error.code if error else None) == code
    assert part in (error.message if error else "")


def test_messages_are_bounded() -> None:
    error = verdict(seen(failed="x" * 100_000, stderr="y" * 2048), FAILED)
    assert error is not None
    assert len(error.message.encode()) < 5000

"""An agent that was not started for no fault of its program is tried again; a program that can't be started is not."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from harness.guard_status import GuardFailed, SpawnFailed
from harness.launch import AgentStartCutOff, Launch, start_error

LAUNCH = Launch(("codex",), Path("/"), {}, Path("/dev/null"))


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(None, "guard_died"), (None, "deadline"), (None, "supervisor_gone"), (GuardFailed("x"), "guard_died")],
)
def test_a_start_that_was_cut_off(failure: GuardFailed | None, reason: str) -> None:
    error = start_error(LAUNCH, failure, reason)
    assert isinstance(error, AgentStartCutOff)
    assert error.code == "agent_start_cut_off"


def test_a_program_that_is_not_there() -> None:
    error = start_error(LAUNCH, SpawnFailed(errno.ENOENT, "exec"), "exited")
    assert not isinstance(error, AgentStartCutOff)
    assert error.code == "agent_start_failed"

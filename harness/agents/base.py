"""What an agent is to Cody: how one turn of it is started, how its lines are read, how its end is judged.

An agent is pure but for `launch` (which looks its binary up): lines in, events out. Effects are the turn's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from cody.contracts.run import RunError, TokenUsage
from cody.contracts.run_config import RunConfig
from cody.contracts.run_events import RunEventBody
from harness.process import Launch

__all__ = ["Agent", "AgentExit", "Body", "Launch", "Reading", "TurnOutcome", "TurnReader", "TurnRequest"]

Body = RunEventBody


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """One turn that is to be made."""

    run_id: str
    turn: int
    config: RunConfig
    prompt: Path
    """File with the prompt; becomes the agent's stdin."""
    base_env: Mapping[str, str]
    """The allow-listed environment, Cody's own variables (CODY_RUN_ID, CODY_STOP_FILE, ...) included; config.env goes on top."""
    resume_thread: str | None = None
    """The conversation to go on in; None = a new one."""
    resume_usage: TokenUsage | None = None
    """The provider's cumulative usage of that conversation at the end of the turn before."""


class Reading(NamedTuple):
    """What one line meant.

    `is_output`: the line is plain output, to be shown as such. `is_life`: it tells that the agent gets on with its work;
    a word that it is still trying to reach its model does not.
    """

    events: Sequence[Body] = ()
    is_output: bool = False
    is_life: bool = True


@dataclass(frozen=True, slots=True)
class AgentExit:
    """How the agent's process ended: exactly one of the two is set, both None when it is unknown."""

    exit_code: int | None
    signal: int | None


@dataclass(frozen=True, slots=True)
class TurnOutcome:
    """The verdict over a turn that ended by itself. `error` None = the turn completed."""

    error: RunError | None
    usage: TokenUsage
    """Of this turn alone."""
    thread_id: str | None = None
    thread_usage: TokenUsage | None = None
    """Cumulative for the conversation, as the provider counts it: what the next resumed turn subtracts."""
    last_message: str | None = None
    events: Sequence[Body] = field(default=())
    """What only the end reveals: a last line, tests recognised late."""


class TurnReader(Protocol):
    """Reads one turn's lines (without their newline). Holds the turn's state; does no I/O."""

    @property
    def thread_id(self) -> str | None: ...

    def stdout_line(self, line: bytes, *, truncated: bool = False) -> Reading: ...

    def stderr_line(self, line: bytes, *, truncated: bool = False) -> Reading: ...

    def outcome(self, exit: AgentExit) -> TurnOutcome: ...


class Agent(Protocol):
    """One kind of agent."""

    @property
    def name(self) -> str: ...

    def launch(self, request: TurnRequest) -> Launch:
        """How to start this turn; raises AgentUnavailable (missing, not executable, too old), with what mends it."""
        ...

    def reader(self, request: TurnRequest) -> TurnReader: ...

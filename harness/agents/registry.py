"""The agents that a run can name."""

from __future__ import annotations

from collections.abc import Mapping

from cody.contracts.run_config import AgentName
from harness.agents.base import Agent
from harness.agents.codex import CodexAgent
from harness.agents.command import CommandAgent


def agents(*, codex_binary: str | None = None, codex_commits: bool = False) -> Mapping[AgentName, Agent]:
    """Every agent by its name in config.agent. `codex_binary` is CODY_CODEX_BIN; for `codex_commits` see CodexAgent."""
    return {"codex": CodexAgent(codex_binary, commits=codex_commits), "command": CommandAgent()}

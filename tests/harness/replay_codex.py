"""One turn of the real codex, for the tests of harness.replay."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_cli_bin import bundled_codex_path  # type: ignore[import-untyped]

_DEADLINE_S = 120


@dataclass(frozen=True, slots=True)
class CodexTurn:
    """How a turn ended: exit code (negative = the signal), the JSON lines of stdout, and stderr."""

    code: int
    lines: Sequence[Mapping[str, Any]]
    stderr: str

    @property
    def thread_id(self) -> str:
        return str(self.of_type("thread.started")[0]["thread_id"])

    @property
    def usage(self) -> Mapping[str, int]:
        usage: Mapping[str, int] = self.of_type("turn.completed")[0]["usage"]
        return usage

    @property
    def messages(self) -> list[str]:
        return [str(item["text"]) for item in self.completed("agent_message")]

    def of_type(self, kind: str) -> list[Mapping[str, Any]]:
        return [line for line in self.lines if line["type"] == kind]

    def completed(self, kind: str) -> list[Mapping[str, Any]]:
        """The finished items of that type."""
        return [line["item"] for line in self.of_type("item.completed") if line["item"]["type"] == kind]


async def start_codex(
    workspace: Path,
    env: Mapping[str, str],
    *,
    sandbox: str = "danger-full-access",
    resume: str | None = None,
    config: Sequence[str] = (),
) -> asyncio.subprocess.Process:
    """A running codex that waits for its prompt on stdin."""
    options = ["-s", sandbox, *(word for setting in config for word in ("-c", setting))]
    resumed = [] if resume is None else ["resume", resume]
    return await asyncio.create_subprocess_exec(
        str(bundled_codex_path()),
        *["exec", *options, *resumed, "--json", "--skip-git-repo-check", "-"],
        cwd=workspace,
        env={**os.environ, **env},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=4 * 1024 * 1024,
    )


async def run_codex(
    workspace: Path,
    env: Mapping[str, str],
    *,
    prompt: str = "Go on with the work.",
    sandbox: str = "danger-full-access",
    resume: str | None = None,
    config: Sequence[str] = (),
) -> CodexTurn:
    """One whole turn; a codex that hangs is killed and fails the test."""
    process = await start_codex(workspace, env, sandbox=sandbox, resume=resume, config=config)
    try:
        async with asyncio.timeout(_DEADLINE_S):
            stdout, stderr = await process.communicate(prompt.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    lines = [json.loads(line) for line in stdout.decode().splitlines()]
    return CodexTurn(process.returncode, lines, stderr.decode())
